#include "node-agent/enforce/enforcer.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/enforce/ruleset.h"

namespace vsocket::enforce {
namespace {

struct Call {
  std::string netns;
  std::vector<std::string> texts;
};

class FakeApplier : public RulesetApplier {
 public:
  Result<Applied, ApplyError> Apply(const model::LocalPod& pod, const std::vector<std::string>& texts) override {
    calls.push_back({pod.netns_path, texts});
    if (failure && (!only_told || texts.front().find("log prefix") != std::string::npos)) return Failure<ApplyError>(*failure);
    return Applied{};
  }
  Result<std::string, ApplyError> ListHook(const model::LocalPod&) override {
    ++listed;
    return listing;
  }
  std::vector<Call> calls;
  std::optional<ApplyError> failure;
  bool only_told = false;  // only what tells of refused flows fails
  std::string listing;
  int listed = 0;
};

model::LocalPod Pod(const std::string& name) {
  model::LocalPod pod;
  pod.ns = "a";
  pod.name = name;
  pod.uid = "uid-" + name;
  pod.container_id = "box-" + name;
  pod.netns_path = "/run/netns/" + name;
  return pod;
}

model::AllowList Closed() {
  model::AllowList list;
  list.ingress.isolated = true;
  return list;
}

using Texts = std::vector<std::string>;

const Texts kRemoval{RemovalText()};

Texts Exchange(const model::AllowList& allow, Slot slot, bool tell = true) {
  return {PrepareText({allow, {}, tell}, slot), ActivateText(slot)};
}
Texts AtOnce(const model::AllowList& allow, Slot slot, bool tell = true) {
  return {RemovalText() + PrepareText({allow, {}, tell}, slot) + ActivateText(slot)};
}
model::AllowList ClosedBoth() {
  model::AllowList list = Closed();
  list.egress.isolated = true;
  return list;
}

class EnforcerTest : public ::testing::Test {
 protected:
  EnforcerTest() {
    auto applier = std::make_unique<FakeApplier>();
    fake_ = applier.get();
    enforcer_ = std::make_unique<Enforcer>(std::move(applier));
  }
  std::vector<EnforceError> Sync(const std::vector<std::pair<model::LocalPod, model::AllowList>>& pods) {
    std::vector<WantedRules> wanted;
    for (const auto& [pod, allow] : pods) wanted.push_back({pod, allow, {}});
    return enforcer_->Sync(wanted);
  }
  FakeApplier* fake_;
  std::unique_ptr<Enforcer> enforcer_;
};

TEST_F(EnforcerTest, AppliesOnceAndSkipsWhatIsUnchanged) {
  EXPECT_TRUE(Sync({{Pod("x"), Closed()}}).empty());
  EXPECT_TRUE(Sync({{Pod("x"), Closed()}}).empty());
  ASSERT_EQ(fake_->calls.size(), 1u);
  EXPECT_EQ(fake_->calls[0].texts, Exchange(Closed(), Slot::kA));
  EXPECT_EQ(enforcer_->GetCounters().unchanged, 1u);
}

TEST_F(EnforcerTest, EveryChangeFillsTheSlotThatIsNotInUse) {
  (void)Sync({{Pod("x"), Closed()}});
  (void)Sync({{Pod("x"), ClosedBoth()}});
  (void)Sync({{Pod("x"), Closed()}});
  ASSERT_EQ(fake_->calls.size(), 3u);
  EXPECT_EQ(fake_->calls[1].texts, Exchange(ClosedBoth(), Slot::kB));
  EXPECT_EQ(fake_->calls[2].texts, Exchange(Closed(), Slot::kA));
  EXPECT_EQ(fake_->listed, 1);
}

TEST_F(EnforcerTest, GoesOnFromWhatAnEarlierAgentLeft) {
  fake_->listing = "table inet vsocket {\n\tchain input {\n\t\tgoto input_a\n\t}\n}\n";
  (void)Sync({{Pod("x"), Closed()}});
  EXPECT_EQ(fake_->calls.back().texts, Exchange(Closed(), Slot::kB));
  fake_->listing = "table inet vsocket {\n\tchain input {\n\t\taccept\n\t}\n}\n";
  (void)Sync({{Pod("x"), Closed()}, {Pod("y"), Closed()}});
  EXPECT_EQ(fake_->calls.back().texts, AtOnce(Closed(), Slot::kA));
}

TEST_F(EnforcerTest, AnOpenPodIsCleanedOnceBecauseAnEarlierAgentMayHaveLeftATable) {
  (void)Sync({{Pod("x"), {}}});
  (void)Sync({{Pod("x"), {}}});
  ASSERT_EQ(fake_->calls.size(), 1u);
  EXPECT_EQ(fake_->calls[0].texts, kRemoval);
  (void)Sync({{Pod("x"), Closed()}});
  EXPECT_EQ(fake_->calls[1].texts, Exchange(Closed(), Slot::kA));
  EXPECT_EQ(fake_->listed, 0);  // it is known that there is none
}

TEST_F(EnforcerTest, AFailureIsReportedAndTriedAgain) {
  fake_->failure = ApplyError{false, "no"};
  const auto errors = Sync({{Pod("x"), Closed()}});
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_EQ(errors[0].pod, "a/x");
  EXPECT_EQ(errors[0].what, "no");
  fake_->failure.reset();
  // In one transaction too, and both without what tells of refused flows.
  ASSERT_EQ(fake_->calls.size(), 4u);
  EXPECT_EQ(fake_->calls[1].texts, AtOnce(Closed(), Slot::kA));
  EXPECT_EQ(fake_->calls[3].texts, AtOnce(Closed(), Slot::kA, false));
  EXPECT_TRUE(Sync({{Pod("x"), Closed()}}).empty());
  EXPECT_EQ(fake_->calls.back().texts, Exchange(Closed(), Slot::kA));
  EXPECT_EQ(enforcer_->GetCounters().failed, 1u);
  EXPECT_EQ(enforcer_->Untold(), "");
}

TEST_F(EnforcerTest, AKernelThatCannotTellOfRefusedFlowsStillHoldsThePodsToTheirPolicy) {
  fake_->failure = ApplyError{false, "no log here"};
  fake_->only_told = true;
  EXPECT_TRUE(Sync({{Pod("x"), Closed()}}).empty());
  EXPECT_EQ(enforcer_->Untold(), "no log here");
  EXPECT_EQ(fake_->calls.back().texts, Exchange(Closed(), Slot::kA, false));
  EXPECT_EQ(fake_->calls.back().texts[0].find("log"), std::string::npos);
  const std::size_t before = fake_->calls.size();
  EXPECT_TRUE(Sync({{Pod("x"), Closed()}, {Pod("y"), Closed()}}).empty());
  EXPECT_EQ(fake_->calls.size(), before + 1);  // not tried again with every pod
}

TEST_F(EnforcerTest, ARemovedPodLosesItsTable) {
  (void)Sync({{Pod("x"), Closed()}, {Pod("y"), Closed()}});
  EXPECT_TRUE(Sync({{Pod("y"), Closed()}}).empty());
  ASSERT_EQ(fake_->calls.size(), 3u);
  EXPECT_EQ(fake_->calls[2].netns, "/run/netns/x");
  EXPECT_EQ(fake_->calls[2].texts, kRemoval);
  EXPECT_TRUE(Sync({{Pod("y"), Closed()}}).empty());
  EXPECT_EQ(fake_->calls.size(), 3u);
}

TEST_F(EnforcerTest, ANamespaceThatIsGoneNeedsNoRemovalAnyOtherFailureIsTriedAgain) {
  (void)Sync({{Pod("x"), Closed()}, {Pod("y"), Closed()}});
  fake_->failure = ApplyError{false, "busy"};
  EXPECT_EQ(Sync({}).size(), 2u);
  fake_->failure = ApplyError{true, "gone"};
  EXPECT_TRUE(Sync({}).empty());
  EXPECT_TRUE(Sync({}).empty());
  EXPECT_EQ(fake_->calls.size(), 6u);
}

TEST_F(EnforcerTest, ANewSandboxOfTheSamePodIsNew) {
  (void)Sync({{Pod("x"), Closed()}});
  model::LocalPod again = Pod("x");
  again.container_id = "box-2";
  again.netns_path = "/run/netns/x2";
  (void)Sync({{again, Closed()}});
  ASSERT_EQ(fake_->calls.size(), 3u);
  EXPECT_EQ(fake_->calls[1].netns, "/run/netns/x2");
  EXPECT_EQ(fake_->calls[1].texts, Exchange(Closed(), Slot::kA));
  EXPECT_EQ(fake_->calls[2].netns, "/run/netns/x");
  EXPECT_EQ(fake_->calls[2].texts, kRemoval);
}

}  // namespace
}  // namespace vsocket::enforce
