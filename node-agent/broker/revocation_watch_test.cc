// The watch with a fake kernel and a fake clock: what is reported, when, and how often.
#include "node-agent/broker/revocation_watch.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

namespace vsocket::broker {
namespace {

using model::MappingHolder;
using model::SealOutcome;

constexpr std::uint64_t kMs = 1'000'000;

class FakeProbe final : public model::MappingProbe {
 public:
  SealOutcome Seal(int memfd) override {
    ++tries;
    return outcome.contains(memfd) ? outcome[memfd] : SealOutcome::kSealed;
  }
  std::vector<MappingHolder> Holders(int) override { return holders; }
  bool Kill(const MappingHolder& holder, int) override { return std::erase(holders, holder) != 0; }

  std::map<int, SealOutcome> outcome;  // by descriptor; kSealed when it has none
  std::vector<MappingHolder> holders;
  int tries = 0;
};

class RevocationWatchTest : public ::testing::Test {
 protected:
  std::unique_ptr<RevocationWatch> Make(bool strict = false) {
    return std::make_unique<RevocationWatch>(
        RevocationOptions{1000 * kMs, strict}, probe_, [this](const Event& event) { events_.push_back(event); }, [this] { return now_; });
  }
  static ForsakenMemory Memory(const char* pod = "a", std::uint16_t port = 80) {
    ForsakenMemory memory;
    memory.memory = std::make_shared<const UniqueFd>(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    memory.pod = {pod, "b"};
    memory.pid = {11, 12};
    memory.flow.destination_port = port;
    return memory;
  }
  [[nodiscard]] std::size_t Count(const std::string& what) const {
    return static_cast<std::size_t>(std::count_if(events_.begin(), events_.end(), [&](const Event& event) { return event.what == what; }));
  }
  [[nodiscard]] std::string Field(const std::string& name) const {
    for (const auto& [key, value] : events_.back().fields) {
      if (key == name) return value;
    }
    return "none";
  }

  const std::shared_ptr<FakeProbe> probe_ = std::make_shared<FakeProbe>();
  std::uint64_t now_ = 5000 * kMs;
  std::vector<Event> events_;
};

TEST_F(RevocationWatchTest, NobodyIsBotheredBeforeTheDeadline) {
  const auto watch = Make();
  watch->AddRevoked(Memory(), "policy default/x");
  EXPECT_EQ(watch->CheckDue(), now_ + 1000 * kMs);
  EXPECT_EQ(probe_->tries, 0);
  EXPECT_EQ(watch->Stats().watched, 1U);
  now_ += 1000 * kMs;
  EXPECT_EQ(watch->CheckDue(), 0U);
  EXPECT_EQ(watch->Stats().watched, 0U);
  EXPECT_EQ(watch->Stats().unheeded, 0U);
  EXPECT_TRUE(events_.empty());
}

TEST_F(RevocationWatchTest, StillMappedIsReportedOnceWithBothPodsAndTheHolders) {
  const auto watch = Make();
  auto memory = Memory();
  const int memfd = memory.memory->Get();
  probe_->outcome[memfd] = SealOutcome::kInUse;
  probe_->holders = {{42, "thief"}, {43, "friend"}};
  watch->AddRevoked(std::move(memory), "policy default/x");
  now_ += 1000 * kMs;
  std::uint64_t due = watch->CheckDue();
  ASSERT_EQ(events_.size(), 1U);
  EXPECT_EQ(events_[0].what, "revoked memory still mapped");
  EXPECT_EQ(events_[0].level, Event::Level::kError);
  EXPECT_EQ(Field("pod"), "a");
  EXPECT_EQ(Field("peer_pod"), "b");
  EXPECT_EQ(Field("why"), "policy default/x");
  EXPECT_EQ(Field("holders"), "42 (thief), 43 (friend)");
  EXPECT_EQ(watch->Stats().unheeded, 1U);

  std::uint64_t longest = 0;
  for (int i = 0; i < 12; ++i) {
    ASSERT_GT(due, now_);
    longest = std::max(longest, due - now_);
    now_ = due;
    due = watch->CheckDue();
  }
  EXPECT_EQ(longest, 60'000 * kMs) << "ever more seldom, up to a minute";
  EXPECT_EQ(events_.size(), 1U);
  EXPECT_EQ(probe_->holders.size(), 2U) << "not strict: nobody is killed";

  probe_->outcome[memfd] = SealOutcome::kSealed;
  now_ = due;
  EXPECT_EQ(watch->CheckDue(), 0U);
  EXPECT_EQ(Count("revoked memory let go"), 1U);
  EXPECT_EQ(watch->Stats().watched, 0U);
  EXPECT_EQ(watch->Stats().unheeded, 1U);
}

TEST_F(RevocationWatchTest, StrictKillsEachHolderAndLooksAgainSoon) {
  const auto watch = Make(true);
  auto memory = Memory();
  const int memfd = memory.memory->Get();
  probe_->outcome[memfd] = SealOutcome::kInUse;
  probe_->holders = {{42, "thief"}, {43, "friend"}};
  watch->AddRevoked(std::move(memory), "policy default/x");
  now_ += 1000 * kMs;
  EXPECT_EQ(watch->CheckDue(), now_ + 100 * kMs);
  EXPECT_TRUE(probe_->holders.empty());
  EXPECT_EQ(Count("holder of revoked memory killed"), 2U);
  EXPECT_EQ(Field("program"), "friend");
  EXPECT_EQ(watch->Stats().killed, 2U);
  // A child that the first look missed.
  probe_->holders = {{44, "child"}};
  now_ += 100 * kMs;
  watch->CheckDue();
  EXPECT_EQ(watch->Stats().killed, 3U);
  EXPECT_EQ(watch->Stats().unheeded, 1U);
}

TEST_F(RevocationWatchTest, AHolderThatIsNotFoundIsNamedByWhomItWasGrantedTo) {
  const auto watch = Make(true);
  auto memory = Memory();
  probe_->outcome[memory.memory->Get()] = SealOutcome::kInUse;
  watch->AddRevoked(std::move(memory), "policy default/x");
  now_ += 1000 * kMs;
  watch->CheckDue();
  ASSERT_EQ(events_.size(), 1U);
  EXPECT_NE(Field("holders").find("granted to 11 and 12"), std::string::npos) << Field("holders");
  EXPECT_EQ(watch->Stats().killed, 0U);
}

TEST_F(RevocationWatchTest, ABlockedCheckIsReportedAsSuch) {
  const auto watch = Make();
  auto memory = Memory();
  probe_->outcome[memory.memory->Get()] = SealOutcome::kBlocked;
  probe_->holders = {{42, "thief"}};
  watch->AddRevoked(std::move(memory), "policy default/x");
  now_ += 1000 * kMs;
  watch->CheckDue();
  EXPECT_NE(Field("holders").find("sealed the seals"), std::string::npos) << Field("holders");
}

TEST_F(RevocationWatchTest, WhatWasLeftIsReportedOnlyWhenThePolicyForbidsIt) {
  const auto watch = Make();
  auto kept = Memory("a", 80);
  auto forbidden = Memory("c", 81);
  probe_->outcome[kept.memory->Get()] = probe_->outcome[forbidden.memory->Get()] = SealOutcome::kInUse;
  watch->AddLeft(std::move(kept));
  watch->AddLeft(std::move(forbidden));
  watch->AddLeft(Memory("d", 82));
  for (int i = 0; i < 5; ++i) {
    now_ += 60'000 * kMs;
    watch->CheckDue();
  }
  EXPECT_TRUE(events_.empty());
  EXPECT_EQ(watch->Stats().watched, 0U);

  std::vector<std::uint16_t> asked;
  watch->Judge([&](const Tuple&, const model::Flow& flow) -> std::optional<std::string> {
    asked.push_back(flow.destination_port);
    return flow.destination_port == 81 ? std::optional<std::string>("policy default/y") : std::nullopt;
  });
  EXPECT_EQ(asked, (std::vector<std::uint16_t>{80, 81})) << "the third was sealed and forgotten";
  EXPECT_EQ(watch->Stats().watched, 1U);
  now_ += 999 * kMs;
  watch->CheckDue();
  EXPECT_TRUE(events_.empty());
  now_ += 1 * kMs;
  watch->CheckDue();
  ASSERT_EQ(Count("revoked memory still mapped"), 1U);
  EXPECT_EQ(Field("pod"), "c");
  EXPECT_EQ(Field("why"), "policy default/y");

  watch->ForgetLeftBy("a");
  watch->ForgetLeftBy("c");
  asked.clear();
  watch->Judge([&](const Tuple&, const model::Flow& flow) -> std::optional<std::string> {
    asked.push_back(flow.destination_port);
    return std::nullopt;
  });
  EXPECT_TRUE(asked.empty()) << "a's is forgotten, c's is judged already";
  EXPECT_EQ(watch->Stats().watched, 1U) << "revoked stays revoked, without its pod too";
}

TEST_F(RevocationWatchTest, TheOldestOfTooManyIsGivenUpAloud) {
  const auto watch = Make();
  const auto shared = std::make_shared<const UniqueFd>(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  probe_->outcome[shared->Get()] = SealOutcome::kInUse;
  for (std::size_t i = 0; i <= RevocationWatch::kMaxEntries; ++i) {
    ForsakenMemory memory;
    memory.memory = shared;
    memory.pod = {std::to_string(i), "b"};
    watch->AddRevoked(std::move(memory), "policy default/x");
  }
  ASSERT_EQ(events_.size(), 1U);
  EXPECT_EQ(events_[0].what, "memory not watched any more");
  EXPECT_EQ(Field("pod"), "0");
  EXPECT_EQ(watch->Stats().watched, RevocationWatch::kMaxEntries);
}

}  // namespace
}  // namespace vsocket::broker
