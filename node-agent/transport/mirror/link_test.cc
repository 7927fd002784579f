// What the link promises about costs, fairness and reach, one situation at a time.
#include "node-agent/transport/mirror/link.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "node-agent/transport/mirror/runner.h"
#include "node-agent/transport/mirror/testing/two_nodes.h"

namespace vsocket::transport::testing {
namespace {

constexpr std::size_t kSmall = 0;
constexpr std::size_t kBulk = 1;
constexpr std::uint64_t kRing = channel::kRemoteRingMax;

TEST(LinkTest, AMessageCostsOnePostAndOneDoorbell) {
  TwoNodes two(1);
  ASSERT_TRUE(two.BringUp());
  const LaneCounters before = two.nodes[0].link->Counters().lanes[kSmall];
  constexpr std::uint64_t kMessages = 200;
  for (std::uint64_t i = 0; i < kMessages; ++i) {
    ASSERT_EQ(two.Send(0, 0, 60), 60U);
    for (int turn = 0; turn < 20; ++turn) two.Turn();
    ASSERT_EQ(two.Receive(1, 0), 60U);
  }
  const LaneCounters& after = two.nodes[0].link->Counters().lanes[kSmall];
  EXPECT_EQ(after.posts - before.posts, kMessages);
  EXPECT_EQ(after.doorbells - before.doorbells, kMessages);
  EXPECT_EQ(after.immediates - before.immediates, kMessages);
  EXPECT_EQ(after.inlined - before.inlined, kMessages);
  EXPECT_LE(after.signalled - before.signalled, kMessages / 15);
}

TEST(LinkTest, ManyConnectionsShareOneDoorbell) {
  TwoNodes two(64);
  ASSERT_TRUE(two.BringUp());
  const LaneCounters before = two.nodes[0].link->Counters().lanes[kSmall];
  for (std::size_t i = 0; i < 64; ++i) ASSERT_EQ(two.Send(0, i, 30), 30U);
  two.Turn();
  const LaneCounters& after = two.nodes[0].link->Counters().lanes[kSmall];
  EXPECT_EQ(after.posts - before.posts, 64U);
  EXPECT_EQ(after.doorbells - before.doorbells, 1U);
}

TEST(LinkTest, ThreeQueuePairsHoweverManyConnections) {
  for (const std::uint32_t connections : {1U, 1000U}) {
    TwoNodes two(connections);
    EXPECT_EQ(two.nodes[0].device->QueuePairs(), kLanes);
    ASSERT_TRUE(two.BringUp());
    EXPECT_EQ(two.nodes[0].device->QueuePairs(), kLanes);
    // Registered by block, not by connection: the link's own two, and two a block of slots.
    EXPECT_EQ(two.nodes[0].device->Registrations(), 2 + 2 * ((connections + kBlockSlots - 1) / kBlockSlots));
    ASSERT_EQ(two.Send(0, connections - 1, 10), 10U);
    ASSERT_TRUE(two.Settle());
    EXPECT_EQ(two.Receive(1, connections - 1), 10U);
  }
}

TEST(LinkTest, AnIdleAgentSleepsForEver) {
  TwoNodes two(100);
  ASSERT_TRUE(two.BringUp());
  two.Send(0, 3, 1000);
  ASSERT_TRUE(two.Settle());
  two.Receive(1, 3);
  ASSERT_TRUE(two.Settle());
  two.network.Advance(3ULL * 1000 * 1000 * 1000);  // past the last look whether something is still to come
  ASSERT_TRUE(two.Settle());
  const std::uint64_t polls = two.nodes[0].link->Counters().polls;
  two.network.Advance(3600ULL * 1000 * 1000 * 1000);
  EXPECT_FALSE(two.network.Step()) << "nothing moves";
  EXPECT_FALSE(two.nodes[0].device->Notified());
  EXPECT_EQ(two.nodes[0].link->NextDeadline(), kNoDeadline);
  EXPECT_EQ(two.nodes[0].link->Counters().polls, polls);
  // And wakes: the pod rings it, the far one is notified.
  const std::uint32_t rings = two.nodes[0].rings;
  two.Send(0, 3, 10);
  EXPECT_EQ(two.nodes[0].rings, rings + 1);
  (void)two.nodes[0].link->Poll(two.network.Now());
  while (two.network.Step()) {
  }
  EXPECT_TRUE(two.nodes[1].device->Notified());
}

TEST(LinkTest, APodThatSleepsIsRungAndOneThatIsAwakeIsNot) {
  TwoNodes two(2);
  ASSERT_TRUE(two.BringUp());
  ASSERT_TRUE(two.nodes[1].ends[0]->Arm(TwoNodes::kPodObject, false));
  two.Send(0, 0, 10);
  two.Send(0, 1, 10);
  for (int i = 0; i < 30; ++i) two.Turn();
  EXPECT_EQ(two.nodes[1].wakes[0], 1U);
  EXPECT_EQ(two.nodes[1].wakes[1], 0U);
}

TEST(LinkTest, WhoCanBeWokenByTcpOnlyIsToldToTheSender) {
  TwoNodes two(1);
  ASSERT_TRUE(two.BringUp());
  ASSERT_TRUE(two.nodes[1].ends[0]->Arm(channel::kTcpBell, false));
  two.Send(0, 0, 10);
  ASSERT_TRUE(two.Settle());
  EXPECT_EQ(two.nodes[0].bells_wanted, 1U);
}

TEST(LinkTest, WhileTheFarAgentPollsNobodyIsWoken) {
  MirrorOptions options;
  options.spin_ns = 1000 * 1000;
  TwoNodes two(1, options);
  ASSERT_TRUE(two.BringUp());
  const auto burst = [&](int messages) {
    for (int i = 0; i < messages; ++i) {
      ASSERT_EQ(two.Send(0, 0, 100), 100U);
      for (int turn = 0; turn < 20; ++turn) two.Turn();
      ASSERT_EQ(two.Receive(1, 0), 100U);
    }
  };
  burst(50);  // its readers were awake each time
  const LaneCounters before = two.nodes[0].link->Counters().lanes[kSmall];
  burst(50);
  const LaneCounters& after = two.nodes[0].link->Counters().lanes[kSmall];
  EXPECT_EQ(after.immediates, before.immediates);
  EXPECT_EQ(after.positions - before.positions, 50U);
  // It goes to sleep, and what comes then wakes it.
  ASSERT_TRUE(two.Settle());
  two.Send(0, 0, 100);
  ASSERT_TRUE(two.Settle());
  EXPECT_GT(two.nodes[0].link->Counters().lanes[kSmall].immediates, after.positions == 0 ? 0 : before.immediates);
  EXPECT_EQ(two.Receive(1, 0), 100U);
}

TEST(LinkTest, ASlowReaderStopsOnlyItself) {
  TwoNodes two(8);
  ASSERT_TRUE(two.BringUp());
  std::vector<std::uint64_t> received(8);
  for (int round = 0; round < 4000; ++round) {
    for (std::size_t i = 0; i < 8; ++i) {
      two.Send(0, i, kRing);
      if (i != 5) received[i] += two.Receive(1, i);  // the sixth never reads
    }
    two.Turn();
  }
  EXPECT_EQ(two.nodes[1].ends[5]->Received(), 0U);
  EXPECT_EQ(two.nodes[0].ends[5]->Sent(), kRing) << "its ring is full, and no more";
  for (std::size_t i = 0; i < 8; ++i) {
    if (i == 5) continue;
    EXPECT_GT(received[i], 20 * kRing) << i;
    EXPECT_TRUE(two.nodes[1].ends[i]->Right());
  }
  // And it goes on where it was.
  EXPECT_GT(two.Receive(1, 5), 0U);
  ASSERT_TRUE(two.Settle());
  EXPECT_GT(two.Send(0, 5, kRing), 0U);
}

TEST(LinkTest, BulkConnectionsShareTheirLaneByBytes) {
  TwoNodes two(6);
  ASSERT_TRUE(two.BringUp());
  // The first wants much at a time, the others less: all more than a quantum.
  for (int round = 0; round < 3000; ++round) {
    for (std::size_t i = 0; i < 6; ++i) {
      two.Send(0, i, i == 0 ? kRing : kRing / 2);
      two.Receive(1, i);
    }
    two.Turn();
  }
  std::uint64_t least = UINT64_MAX;
  std::uint64_t most = 0;
  for (const auto& end : two.nodes[1].ends) {
    least = std::min(least, end->Received());
    most = std::max(most, end->Received());
  }
  EXPECT_GT(least, 10 * kRing);
  EXPECT_LT(most, least * 3 / 2);
}

TEST(LinkTest, SmallMessagesDoNotQueueBehindBulk) {
  TwoNodes two(9);
  ASSERT_TRUE(two.BringUp());
  std::uint64_t answered = 0;
  for (int round = 0; round < 3000; ++round) {
    for (std::size_t i = 0; i < 8; ++i) {
      two.Send(0, i, kRing);
      two.Receive(1, i);
    }
    if (two.nodes[1].ends[8]->Received() == two.nodes[0].ends[8]->Sent()) two.Send(0, 8, 40);
    answered += two.Receive(1, 8) / 40;
    two.Turn();
  }
  EXPECT_GT(answered, 200U);
  EXPECT_GT(two.nodes[0].link->Counters().lanes[kSmall].posts, 200U);
  EXPECT_GT(two.nodes[0].link->Counters().lanes[kBulk].posts, 200U);
}

TEST(LinkTest, TheFarKeyReachesReceivingRingsOnly) {
  TwoNodes two(1);
  const RingMemory& memory = *two.nodes[1].memories[0];
  const auto rings = two.nodes[1].memories[0]->Use(0);
  ASSERT_TRUE(rings);
  auto completions = two.nodes[0].device->CreateCompletionQueue(16);
  auto far_completions = two.nodes[1].device->CreateCompletionQueue(16);
  ASSERT_TRUE(completions && far_completions);
  const auto refused = [&](const void* target) {
    auto pair = two.nodes[0].device->CreateQueuePair(*completions.Value(), {4, 4, 16});
    auto far = two.nodes[1].device->CreateQueuePair(*far_completions.Value(), {4, 4, 16});
    EXPECT_TRUE(pair && far && pair.Value()->Connect(far.Value()->Address()) && far.Value()->Connect(pair.Value()->Address()));
    std::uint64_t word = 0;
    SendRequest request;
    request.inlined = request.signalled = true;
    request.length = sizeof word;
    request.local_address = reinterpret_cast<std::uint64_t>(&word);
    request.remote_address = reinterpret_cast<std::uint64_t>(target);
    request.remote_key = rings.Value().in_remote_key;
    EXPECT_TRUE(pair.Value()->PostSend(std::span(&request, 1)));
    while (two.network.Step()) {
    }
    Completion completion;
    EXPECT_EQ(completions.Value()->Poll(std::span(&completion, 1)), 1);
    return completion.status == CompletionStatus::kRemoteRefused;
  };
  EXPECT_FALSE(refused(rings.Value().in));
  EXPECT_FALSE(refused(rings.Value().in + kRing - 8));
  EXPECT_TRUE(refused(rings.Value().in - 1));
  EXPECT_TRUE(refused(rings.Value().in + kBlockSlots * kRing)) << "a block that no connection uses";
  EXPECT_TRUE(refused(rings.Value().out));
  EXPECT_TRUE(refused(&memory.Slot(0)));
  EXPECT_TRUE(refused(&memory.Header()));
}

// An immediate of the last generation, a multiple of 2^20 later, would be taken for news.
TEST(LinkTest, AProposalWaitsUntilTheWritesBeforeItAreDone) {
  TwoNodes two(1);
  ASSERT_TRUE(two.BringUp());
  two.Send(0, 0, 100);
  (void)two.nodes[0].link->Poll(two.network.Now());  // posted, and not carried out
  channel::SideWords& pod = reinterpret_cast<channel::SlotHeader*>(two.nodes[0].maps[0] + channel::SlotOffset(0))->side[0];
  const channel::SideWords& copy = reinterpret_cast<channel::SlotHeader*>(two.nodes[1].maps[0] + channel::SlotOffset(0))->side[0];
  const std::uint32_t generation = pod.proposal_generation.load() + 1;
  pod.proposal_start.store(1ULL << 20);
  pod.tail.store(1ULL << 20);
  pod.commit.store(channel::CommitWord(channel::Commit::kProposed, generation));
  pod.proposal_generation.store(generation);
  two.nodes[0].link->Rung(*two.nodes[0].memories[0]);
  const std::uint64_t proposals = two.nodes[0].link->Counters().proposals;
  for (int i = 0; i < 5; ++i) (void)two.nodes[0].link->Poll(two.network.Now());
  EXPECT_EQ(two.nodes[0].link->Counters().proposals, proposals);
  ASSERT_TRUE(two.Settle());
  EXPECT_EQ(two.nodes[0].link->Counters().proposals, proposals + 1);
  EXPECT_EQ(copy.proposal_generation.load(), generation);
  EXPECT_EQ(copy.tail.load(), 1ULL << 20);
  EXPECT_EQ(pod.commit.load(), channel::CommitWord(channel::Commit::kCommitted, generation));
}

TEST(LinkTest, AClosedNumberIsFreeWhenBothSidesAreDone) {
  TwoNodes two(2);
  ASSERT_TRUE(two.BringUp());
  two.Send(0, 1, 5000);
  two.nodes[0].link->Close(1);
  EXPECT_TRUE(two.nodes[0].closed.empty()) << "the far side may still write";
  ASSERT_TRUE(two.Settle());
  EXPECT_EQ(two.nodes[1].lost, std::vector<std::uint16_t>{1});
  EXPECT_TRUE(two.nodes[0].closed.empty());
  two.nodes[1].link->Close(1);
  ASSERT_TRUE(two.Settle());
  EXPECT_EQ(two.nodes[0].closed, std::vector<std::uint16_t>{1});
  EXPECT_EQ(two.nodes[1].closed, std::vector<std::uint16_t>{1});
  EXPECT_TRUE(two.nodes[1].link->IsOpen(0));
}

TEST(LinkTest, AnyErrorTakesAllConnectionsDownAndSaysWhatIsKnown) {
  TwoNodes two(3);
  ASSERT_TRUE(two.BringUp());
  two.Send(0, 0, 3000);
  ASSERT_TRUE(two.Settle());
  ASSERT_EQ(two.Receive(1, 0, 1000), 1000U);
  ASSERT_TRUE(two.Settle());
  two.network.Cut(0);
  two.Send(0, 0, 500);
  two.Turn();
  PathReport report = two.nodes[0].link->Report(0);
  EXPECT_TRUE(report.sending_on_ring);
  EXPECT_EQ(report.known_consumed, 1000U);
  EXPECT_EQ(report.written, 3500U);
  two.network.Advance(10ULL * 1000 * 1000 * 1000);
  for (int i = 0; i < 20; ++i) two.Turn();
  EXPECT_TRUE(two.nodes[0].link->Failed());
  EXPECT_EQ(two.nodes[0].lost.size(), 3U);
  report = two.nodes[1].link->Report(0);
  EXPECT_EQ(report.received, 3000U);
  for (std::uint16_t i = 0; i < 3; ++i) two.nodes[0].link->Close(i);
  EXPECT_EQ(two.nodes[0].closed.size(), 3U);
}

TEST(LinkTest, AFarAgentThatIsStoppedIsNoticedThoughItsDeviceAnswers) {
  TwoNodes two(1);
  ASSERT_TRUE(two.BringUp());
  two.Send(0, 0, 100);
  for (int i = 0; i < 100 && !two.nodes[0].link->Failed(); ++i) {
    (void)two.nodes[0].link->Poll(two.network.Now());
    while (two.network.Step()) {
    }
    two.network.Advance(100ULL * 1000 * 1000);
  }
  EXPECT_TRUE(two.nodes[0].link->Failed());
  EXPECT_EQ(two.nodes[0].link->Why(), "the far agent is silent");
}

// The far agent has given the link up, and no request of ours is under way that would fail for it: a sender whose ring is full waits.
TEST(LinkTest, WhoWaitsForAReaderAsksWhetherItsAgentIsThere) {
  TwoNodes two(1);
  ASSERT_TRUE(two.BringUp());
  two.Send(0, 0, kRing);
  ASSERT_TRUE(two.Settle());
  ASSERT_NE(two.nodes[0].link->NextDeadline(), kNoDeadline);
  two.nodes[1].link->Fail("a fault of its own");
  for (int i = 0; i < 200 && !two.nodes[0].link->Failed(); ++i) {
    two.network.Advance(100ULL * 1000 * 1000);
    two.Turn();
  }
  EXPECT_TRUE(two.nodes[0].link->Failed());
  EXPECT_EQ(two.nodes[0].lost.size(), 1U);
}

TEST(LinkTest, AnImpossiblePodHurtsItsOwnConnectionOnly) {
  TwoNodes two(2);
  ASSERT_TRUE(two.BringUp());
  auto* slot = reinterpret_cast<channel::SlotHeader*>(two.nodes[0].maps[0] + channel::SlotOffset(0));
  slot->side[0].tail.store(kRing + 1);
  two.nodes[0].link->Rung(*two.nodes[0].memories[0]);
  two.Send(0, 1, 100);  // an honest one, and the ring that makes the agent look
  for (int i = 0; i < 30; ++i) two.Turn();
  // Should it sleep already: it has rung nobody, which a pod does to itself. When it rings, it is seen.
  slot->side[1].data_waiter.store(channel::kNobody);
  two.nodes[0].link->Rung(*two.nodes[0].memories[0]);
  for (int i = 0; i < 30; ++i) two.Turn();
  EXPECT_EQ(two.nodes[0].lost, (std::vector<std::uint16_t>{0}));
  EXPECT_FALSE(two.nodes[0].link->Failed());
  EXPECT_EQ(two.Receive(1, 1), 100U);
}

TEST(AdaptiveSpinTest, GrowsWhenItPaysAndShrinksWhenItDoesNot) {
  TwoNodes two(1);
  MirrorOptions options;
  options.spin_ns = 64000;
  Runner runner(*two.nodes[0].device, options);
  AdaptiveSpin spin(64000);
  for (int i = 0; i < 10; ++i) spin.Slept();
  EXPECT_EQ(spin.BudgetNs(), 1000U);
  AdaptiveSpin never(0);
  never.Worked(5);
  EXPECT_TRUE(never.IsOver(5));
}

}  // namespace
}  // namespace vsocket::transport::testing
