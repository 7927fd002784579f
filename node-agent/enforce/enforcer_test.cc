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
  std::string text;
};

class FakeApplier : public RulesetApplier {
 public:
  Result<Applied, ApplyError> Apply(const model::LocalPod& pod, const std::string& text) override {
    calls.push_back({pod.netns_path, text});
    if (failure) return Failure<ApplyError>(*failure);
    return Applied{};
  }
  std::vector<Call> calls;
  std::optional<ApplyError> failure;
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

class EnforcerTest : public ::testing::Test {
 protected:
  EnforcerTest() {
    auto applier = std::make_unique<FakeApplier>();
    fake_ = applier.get();
    enforcer_ = std::make_unique<Enforcer>(std::move(applier));
  }
  FakeApplier* fake_;
  std::unique_ptr<Enforcer> enforcer_;
};

TEST_F(EnforcerTest, AppliesOnceAndSkipsWhatIsUnchanged) {
  EXPECT_TRUE(enforcer_->Sync({{Pod("x"), Closed()}}).empty());
  EXPECT_TRUE(enforcer_->Sync({{Pod("x"), Closed()}}).empty());
  ASSERT_EQ(fake_->calls.size(), 1u);
  EXPECT_EQ(fake_->calls[0].text, RulesetText(Closed()));
  EXPECT_EQ(enforcer_->GetCounters().unchanged, 1u);
}

TEST_F(EnforcerTest, AnOpenPodIsCleanedOnceBecauseAnEarlierAgentMayHaveLeftATable) {
  (void)enforcer_->Sync({{Pod("x"), {}}});
  (void)enforcer_->Sync({{Pod("x"), {}}});
  ASSERT_EQ(fake_->calls.size(), 1u);
  EXPECT_EQ(fake_->calls[0].text, RemovalText());
}

TEST_F(EnforcerTest, AFailureIsReportedAndTriedAgain) {
  fake_->failure = ApplyError{false, "no"};
  const auto errors = enforcer_->Sync({{Pod("x"), Closed()}});
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_EQ(errors[0].pod, "a/x");
  EXPECT_EQ(errors[0].what, "no");
  fake_->failure.reset();
  EXPECT_TRUE(enforcer_->Sync({{Pod("x"), Closed()}}).empty());
  EXPECT_EQ(fake_->calls.size(), 2u);
  EXPECT_EQ(enforcer_->GetCounters().failed, 1u);
}

TEST_F(EnforcerTest, ARemovedPodLosesItsTable) {
  (void)enforcer_->Sync({{Pod("x"), Closed()}, {Pod("y"), Closed()}});
  EXPECT_TRUE(enforcer_->Sync({{Pod("y"), Closed()}}).empty());
  ASSERT_EQ(fake_->calls.size(), 3u);
  EXPECT_EQ(fake_->calls[2].netns, "/run/netns/x");
  EXPECT_EQ(fake_->calls[2].text, RemovalText());
  EXPECT_TRUE(enforcer_->Sync({{Pod("y"), Closed()}}).empty());
  EXPECT_EQ(fake_->calls.size(), 3u);
}

TEST_F(EnforcerTest, ANamespaceThatIsGoneNeedsNoRemovalAnyOtherFailureIsTriedAgain) {
  (void)enforcer_->Sync({{Pod("x"), Closed()}, {Pod("y"), Closed()}});
  fake_->failure = ApplyError{false, "busy"};
  EXPECT_EQ(enforcer_->Sync({}).size(), 2u);
  fake_->failure = ApplyError{true, "gone"};
  EXPECT_TRUE(enforcer_->Sync({}).empty());
  EXPECT_TRUE(enforcer_->Sync({}).empty());
  EXPECT_EQ(fake_->calls.size(), 6u);
}

TEST_F(EnforcerTest, ANewSandboxOfTheSamePodIsNew) {
  (void)enforcer_->Sync({{Pod("x"), Closed()}});
  model::LocalPod again = Pod("x");
  again.container_id = "box-2";
  again.netns_path = "/run/netns/x2";
  (void)enforcer_->Sync({{again, Closed()}});
  ASSERT_EQ(fake_->calls.size(), 3u);
  EXPECT_EQ(fake_->calls[1].netns, "/run/netns/x2");
  EXPECT_EQ(fake_->calls[1].text, RulesetText(Closed()));
  EXPECT_EQ(fake_->calls[2].netns, "/run/netns/x");
  EXPECT_EQ(fake_->calls[2].text, RemovalText());
}

}  // namespace
}  // namespace vsocket::enforce
