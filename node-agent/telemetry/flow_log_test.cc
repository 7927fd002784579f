#include "node-agent/telemetry/flow_log.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "node-agent/telemetry/verdict_counts.h"

namespace vsocket::telemetry {
namespace {

using namespace std::chrono_literals;
using model::FlowAction;
using model::FlowEvent;
using model::FlowPath;

FlowEvent Named(const std::string& reason) {
  FlowEvent event;
  event.reason = reason;
  return event;
}

TEST(FlowLog, NumbersFromOneWithATime) {
  FlowLog log;
  EXPECT_EQ(log.NextFlow(), 1U);
  log.Append(Named("a"));
  log.Append(Named("b"));
  const auto batch = log.ReadFlows(0, 10, 0ms);
  ASSERT_EQ(batch.events.size(), 2U);
  EXPECT_EQ(batch.events[0].sequence, 1U);
  EXPECT_EQ(batch.events[1].reason, "b");
  EXPECT_GT(batch.events[1].unix_nanos, 1'600'000'000'000'000'000U);
  EXPECT_EQ(batch.next, 3U);
  EXPECT_EQ(batch.lost, 0U);
  EXPECT_FALSE(batch.over);
}

TEST(FlowLog, AReaderThatWasOvertakenIsToldHowManyItLost) {
  FlowLog log(4);
  for (int i = 0; i < 3; ++i) log.Append(Named("early"));
  const auto first = log.ReadFlows(0, 2, 0ms);
  EXPECT_EQ(first.events.size(), 2U);
  for (int i = 0; i < 10; ++i) log.Append(Named(std::to_string(i)));
  const auto second = log.ReadFlows(first.next, 2, 0ms);
  EXPECT_EQ(second.lost, 7U);  // of the numbers 3 to 13 the last four are left
  ASSERT_EQ(second.events.size(), 2U);
  EXPECT_EQ(second.events[0].sequence, 10U);
  const auto third = log.ReadFlows(second.next, 10, 0ms);
  EXPECT_EQ(third.lost, 0U);
  EXPECT_EQ(first.events.size() + second.lost + second.events.size() + third.events.size(), 13U);
  EXPECT_EQ(log.Lost(), 7U);
}

TEST(FlowLog, WhoBeginsAtTheOldestHasLostNothing) {
  FlowLog log(2);
  for (int i = 0; i < 5; ++i) log.Append(Named("x"));
  const auto batch = log.ReadFlows(0, 10, 0ms);
  EXPECT_EQ(batch.lost, 0U);
  EXPECT_EQ(batch.events.size(), 2U);
}

TEST(FlowLog, ANumberOfAnotherLifeOfTheAgentIsTheEnd) {
  FlowLog log;
  log.Append(Named("x"));
  const auto batch = log.ReadFlows(1000, 10, 0ms);
  EXPECT_TRUE(batch.events.empty());
  EXPECT_EQ(batch.next, 2U);
}

TEST(FlowLog, AWaitingReaderIsWokenByAnEventAndByTheEnd) {
  FlowLog log;
  std::vector<std::string> seen;
  std::thread reader([&] {
    for (std::uint64_t from = 1;;) {
      const auto batch = log.ReadFlows(from, 10, 1h);
      for (const auto& event : batch.events) seen.push_back(event.reason);
      if (batch.over) return;
      from = batch.next;
    }
  });
  log.Append(Named("one"));
  log.Append(Named("two"));
  log.Close();
  reader.join();
  EXPECT_EQ(seen, (std::vector<std::string>{"one", "two"}));
}

TEST(FlowLog, WritersAndReadersTogetherLoseNothingUncounted) {
  FlowLog log(64);
  constexpr int kEach = 5000;
  std::vector<std::thread> writers;
  for (int i = 0; i < 3; ++i) {
    writers.emplace_back([&] {
      for (int n = 0; n < kEach; ++n) log.Append(Named("x"));
    });
  }
  std::uint64_t given = 0, lost = 0, last = 0;
  bool ordered = true;
  std::thread reader([&] {
    for (std::uint64_t from = 1;;) {
      const auto batch = log.ReadFlows(from, 16, 1h);
      for (const auto& event : batch.events) {
        ordered = ordered && event.sequence > last;
        last = event.sequence;
      }
      given += batch.events.size();
      lost += batch.lost;
      if (batch.over) return;
      from = batch.next;
    }
  });
  for (std::thread& writer : writers) writer.join();
  log.Close();
  reader.join();
  EXPECT_TRUE(ordered);
  EXPECT_EQ(given + lost, 3U * kEach);
}

FlowEvent Judged(FlowAction action, FlowPath path, const std::string& policy) {
  FlowEvent event;
  event.action = action;
  event.path = path;
  event.egress.allowed = true;
  event.egress.pod = "a/x";
  event.ingress.pod = "a/y";
  event.ingress.isolated_by = {policy, "a/second"};
  event.ingress.allowed = action == FlowAction::kAllowed;
  if (event.ingress.allowed) event.ingress.policy = "a/second";
  return event;
}

TEST(VerdictCounts, ByDirectionPolicyAndPath) {
  VerdictCounts counts;
  counts.Count(Judged(FlowAction::kAllowed, FlowPath::kRing, "a/first"));
  counts.Count(Judged(FlowAction::kDenied, FlowPath::kKernel, "a/first"));
  counts.Count(Judged(FlowAction::kDenied, FlowPath::kKernel, "a/first"));
  counts.Count(Judged(FlowAction::kCut, FlowPath::kRing, "a/first"));
  const auto taken = counts.Take();
  using Key = VerdictCounts::Key;
  EXPECT_EQ(taken.verdicts.at(Key{true, true, FlowPath::kRing, "a/second"}), 1U);    // the one whose rule matched
  EXPECT_EQ(taken.verdicts.at(Key{true, false, FlowPath::kKernel, "a/first"}), 2U);  // the first that isolates
  EXPECT_EQ(taken.verdicts.at(Key{true, false, FlowPath::kRing, "a/first"}), 1U);
  EXPECT_EQ(taken.verdicts.at(Key{false, true, FlowPath::kRing, VerdictCounts::kNone}), 2U);
  EXPECT_EQ(taken.denied[static_cast<std::size_t>(FlowPath::kKernel)], 2U);
  EXPECT_EQ(taken.denied[static_cast<std::size_t>(FlowPath::kRing)], 0U);
  EXPECT_EQ(taken.cut[static_cast<std::size_t>(FlowPath::kRing)], 1U);
}

TEST(VerdictCounts, AnEndThatIsNoPodHasNoVerdict) {
  VerdictCounts counts;
  FlowEvent event = Judged(FlowAction::kDenied, FlowPath::kKernel, "a/p");
  event.egress.pod.clear();
  counts.Count(event);
  EXPECT_EQ(counts.Take().verdicts.size(), 1U);
}

TEST(VerdictCounts, ManyPoliciesAreBounded) {
  VerdictCounts counts;
  for (int i = 0; i < 2000; ++i) counts.Count(Judged(FlowAction::kDenied, FlowPath::kKernel, "a/p" + std::to_string(i)));
  const auto taken = counts.Take();
  EXPECT_LE(taken.verdicts.size(), VerdictCounts::kMostPolicies + 2);
  EXPECT_EQ(taken.verdicts.at({true, false, FlowPath::kKernel, VerdictCounts::kOther}), 2000U - VerdictCounts::kMostPolicies);
}

}  // namespace
}  // namespace vsocket::telemetry
