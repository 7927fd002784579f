#include "channel/switch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace vsocket::channel {
namespace {

using Outcome = FrameScan::Outcome;
using RxMode = SwitchReceiver::Mode;
using TxMode = SwitchSender::Mode;
using Bytes = std::vector<std::uint8_t>;

constexpr std::uint8_t kMarker = 0x41;

SwitchReceiver ByTcpAt(std::uint64_t position) {
  SwitchReceiver r;
  r.tcp_pos = position;
  return r;
}

// A receiver in generation 1, whose ring began at `start`.
SwitchReceiver OnRing(std::uint64_t start, std::uint8_t marker = kMarker) {
  SwitchReceiver r = ByTcpAt(start);
  EXPECT_TRUE(EnterRing(r, {1, marker, start}));
  return r;
}

// The SWITCH frame as it is on the wire, byte by byte: an independent statement of the format.
Bytes SwitchFrame(std::uint8_t marker, std::uint32_t generation, std::uint64_t resume_at) {
  Bytes frame = {static_cast<std::uint8_t>(marker + 1)};
  for (int i = 0; i < 4; ++i) frame.push_back(static_cast<std::uint8_t>(generation >> (8 * i)));
  for (int i = 0; i < 8; ++i) frame.push_back(static_cast<std::uint8_t>(resume_at >> (8 * i)));
  return frame;
}

FrameScan Scan(SwitchReceiver& r, const Bytes& bytes, std::uint64_t ring_pos, std::uint64_t ring_tail) {
  return ScanFrames(r, bytes.data(), bytes.size(), ring_pos, ring_tail);
}

TEST(SwitchSenderTest, MarkerAndSwitchByteDifferFromTheNextByte) {
  for (int next = 0; next < 256; ++next) {
    SwitchSender s;
    const Proposal proposal = GoUp(s, 5, static_cast<std::uint8_t>(next));
    GoDown(s, 5, 5);
    const std::uint8_t* frame = nullptr;
    ASSERT_EQ(PendingFrame(s, &frame), kSwitchFrameSize);
    EXPECT_NE(proposal.marker, next);
    EXPECT_NE(frame[0], next);
    EXPECT_NE(frame[0], proposal.marker);
  }
}

TEST(SwitchSenderTest, ProposesOnceTheReceiverHasFinished) {
  SwitchSender s;
  EXPECT_TRUE(MayGoUp(s, 0));
  EXPECT_FALSE(MayGoUp(s, 1));  // the peer's word says what cannot be
  const Proposal first = GoUp(s, 1000, 'x');
  EXPECT_EQ(first.generation, 1U);
  EXPECT_EQ(first.start, 1000U);
  EXPECT_FALSE(MayGoUp(s, 0));
  EXPECT_FALSE(MayGoUp(s, 1));  // up already
  GoDown(s, 1010, 1010);
  EXPECT_FALSE(MayGoUp(s, 1));  // SWITCH is still on its way
  SentWhileLeaving(s, kSwitchFrameSize);
  EXPECT_EQ(s.mode, TxMode::kTcp);
  EXPECT_FALSE(MayGoUp(s, 0));
  EXPECT_TRUE(MayGoUp(s, 1));
  EXPECT_EQ(GoUp(s, 2000, 'x').generation, 2U);
}

TEST(SwitchSenderTest, GenerationsSkipZeroWhenTheyWrap) {
  EXPECT_EQ(NextGeneration(0), 1U);
  EXPECT_EQ(NextGeneration(UINT32_MAX - 1), UINT32_MAX);
  EXPECT_EQ(NextGeneration(UINT32_MAX), 1U);
  SwitchSender s;
  s.generation = UINT32_MAX;
  SwitchReceiver r = ByTcpAt(7);
  r.generation = UINT32_MAX;
  EXPECT_FALSE(EnterRing(r, {0, kMarker, 7}));  // 0 is no generation
  EXPECT_TRUE(EnterRing(r, GoUp(s, 7, 'x')));
  EXPECT_EQ(r.generation, 1U);
}

TEST(SwitchSenderTest, SendsTheFrameThenTheReplayInAnyPieces) {
  for (std::size_t piece = 1; piece <= kSwitchFrameSize; ++piece) {
    SwitchSender s;
    const Proposal proposal = GoUp(s, 100, 'x');
    GoDown(s, 150, 180);
    Bytes sent;
    const std::uint8_t* bytes = nullptr;
    while (const std::size_t rest = PendingFrame(s, &bytes)) {
      ASSERT_EQ(s.mode, TxMode::kLeaving);
      const std::size_t size = std::min(piece, rest);
      sent.insert(sent.end(), bytes, bytes + size);
      SentWhileLeaving(s, size);
    }
    EXPECT_EQ(sent, SwitchFrame(proposal.marker, 1, 150));
    EXPECT_EQ(s.mode, TxMode::kLeaving);
    EXPECT_EQ(s.replay_from, 150U);
    SentWhileLeaving(s, 29);
    EXPECT_EQ(s.replay_from, 179U);
    EXPECT_EQ(s.mode, TxMode::kLeaving);
    SentWhileLeaving(s, 1);
    EXPECT_EQ(s.mode, TxMode::kTcp);
  }
}

TEST(SwitchReceiverTest, ProposalBoundsThePayload) {
  const SwitchReceiver r = ByTcpAt(1000);
  constexpr std::uint64_t kNoBound = std::numeric_limits<std::uint64_t>::max();
  EXPECT_EQ(PayloadBound(r, {0, 0, 0}), kNoBound);     // none
  EXPECT_EQ(PayloadBound(r, {1, kMarker, 1000}), 0U);  // frames only
  EXPECT_EQ(PayloadBound(r, {1, kMarker, 1001}), 1U);
  EXPECT_EQ(PayloadBound(r, {1, kMarker, 5000}), 4000U);
  EXPECT_EQ(PayloadBound(r, {1, kMarker, 999}), kNoBound);  // before what has been read: not a proposal an honest sender makes
  EXPECT_EQ(PayloadBound(r, {1, kMarker, 500}), kNoBound);
  EXPECT_EQ(PayloadBound(r, {2, kMarker, 1000}), kNoBound);  // not the next generation
}

TEST(SwitchReceiverTest, EntersTheRingAtItsStartOnly) {
  SwitchReceiver r = ByTcpAt(1000);
  EXPECT_FALSE(EnterRing(r, {0, kMarker, 1000}));
  EXPECT_FALSE(EnterRing(r, {2, kMarker, 1000}));
  EXPECT_FALSE(EnterRing(r, {1, kMarker, 999}));
  EXPECT_FALSE(EnterRing(r, {1, kMarker, 1001}));  // a byte is still to come by TCP
  EXPECT_EQ(r.mode, RxMode::kTcp);
  EXPECT_EQ(r.generation, 0U);
  EXPECT_TRUE(EnterRing(r, {1, kMarker, 1000}));
  EXPECT_EQ(r.mode, RxMode::kRing);
  EXPECT_EQ(r.marker, kMarker);
  EXPECT_EQ(r.generation, 1U);
  EXPECT_FALSE(EnterRing(r, {2, kMarker, 1000}));  // while it is there: no other
  EXPECT_EQ(r.generation, 1U);
}

TEST(SwitchReceiverTest, TheSameGenerationIsEnteredOnce) {
  SwitchReceiver r = OnRing(10);
  ASSERT_EQ(Scan(r, SwitchFrame(kMarker, 1, 10), 10, 10).outcome, Outcome::kSwitch);
  ASSERT_EQ(r.mode, RxMode::kTcp);
  EXPECT_FALSE(EnterRing(r, {1, kMarker, 10}));
  EXPECT_EQ(PayloadBound(r, {1, kMarker, 10}), UINT64_MAX);  // the old proposal still stands in memory
  EXPECT_TRUE(EnterRing(r, {2, kMarker, 10}));
}

TEST(SwitchReceiverTest, CountsBells) {
  SwitchReceiver r = OnRing(10);
  EXPECT_EQ(Scan(r, {}, 10, 10).consumed, 0U);
  const FrameScan scan = Scan(r, Bytes(5, kMarker), 10, 20);
  EXPECT_EQ(scan.outcome, Outcome::kMore);
  EXPECT_EQ(scan.bells, 5U);
  EXPECT_EQ(scan.consumed, 5U);
  EXPECT_EQ(r.mode, RxMode::kRing);
}

TEST(SwitchReceiverTest, ReadsASwitchWhereverReadsCutIt) {
  for (std::size_t bells = 0; bells <= 2; ++bells) {
    for (std::size_t cut = 0; cut <= kSwitchFrameSize; ++cut) {
      SwitchReceiver r = OnRing(1000);
      Bytes queue(bells, kMarker);
      const Bytes frame = SwitchFrame(kMarker, 1, 0x3f8);
      queue.insert(queue.end(), frame.begin(), frame.end());
      queue.insert(queue.end(), {kMarker, 9, 9});  // payload behind it, however it begins
      const Bytes first(queue.begin(), queue.begin() + static_cast<std::ptrdiff_t>(bells + cut));
      FrameScan scan = Scan(r, first, 0x3f8, 0x400);
      EXPECT_EQ(scan.bells, bells);
      if (cut < kSwitchFrameSize) {
        EXPECT_EQ(scan.outcome, Outcome::kMore);
        EXPECT_EQ(scan.consumed, bells);  // what has come of the frame stays until it is whole
        EXPECT_EQ(r.mode, RxMode::kRing);
        queue.erase(queue.begin(), queue.begin() + static_cast<std::ptrdiff_t>(scan.consumed));
        scan = Scan(r, queue, 0x3f8, 0x400);
        EXPECT_EQ(scan.consumed, kSwitchFrameSize);
      }
      EXPECT_EQ(scan.outcome, Outcome::kSwitch);
      EXPECT_EQ(r.mode, RxMode::kDraining);
      EXPECT_EQ(r.tcp_pos, 0x3f8U);
      EXPECT_EQ(r.drain_until, 0x400U);
    }
  }
}

TEST(SwitchReceiverTest, MarkersAtTheEndOfTheByteRangeWrap) {
  for (const std::uint8_t marker : {std::uint8_t{0xfe}, std::uint8_t{0xff}, std::uint8_t{0}}) {
    SwitchReceiver r = OnRing(3, marker);
    Bytes queue = {marker};
    const Bytes frame = SwitchFrame(marker, 1, 3);
    queue.insert(queue.end(), frame.begin(), frame.end());
    EXPECT_EQ(Scan(r, queue, 3, 3).outcome, Outcome::kSwitch) << static_cast<int>(marker);
  }
}

TEST(SwitchReceiverTest, RefusesWhatIsNoFrame) {
  for (int byte = 0; byte < 256; ++byte) {
    if (byte == kMarker || byte == kMarker + 1) continue;
    SwitchReceiver r = OnRing(10);
    const FrameScan scan = Scan(r, {kMarker, static_cast<std::uint8_t>(byte)}, 10, 20);
    EXPECT_EQ(scan.outcome, Outcome::kBroken) << byte;  // by one byte, whatever follows
    EXPECT_EQ(r.mode, RxMode::kRing);
  }
}

TEST(SwitchReceiverTest, RefusesASwitchOfAnotherGenerationOrBeyondTheTail) {
  for (const std::uint32_t generation : {0U, 2U, UINT32_MAX}) {
    SwitchReceiver r = OnRing(10);
    EXPECT_EQ(Scan(r, SwitchFrame(kMarker, generation, 10), 10, 20).outcome, Outcome::kBroken);
    EXPECT_EQ(r.mode, RxMode::kRing);
  }
  for (const std::uint64_t resume_at : {std::uint64_t{21}, std::uint64_t{1} << 63, UINT64_MAX}) {
    SwitchReceiver r = OnRing(10);
    EXPECT_EQ(Scan(r, SwitchFrame(kMarker, 1, resume_at), 10, 20).outcome, Outcome::kBroken) << resume_at;
    EXPECT_EQ(r.mode, RxMode::kRing);
    EXPECT_EQ(r.tcp_pos, 10U);
  }
  SwitchReceiver r = OnRing(10);
  EXPECT_EQ(Scan(r, SwitchFrame(kMarker, 1, 20), 10, 20).outcome, Outcome::kSwitch);  // nothing to replay
}

TEST(SwitchReceiverTest, DrainsToTheLastTailAndSkipsTheReplay) {
  SwitchReceiver r = OnRing(10);
  ASSERT_EQ(Scan(r, SwitchFrame(kMarker, 1, 12), 15, 40).outcome, Outcome::kSwitch);
  EXPECT_EQ(r.mode, RxMode::kDraining);
  EXPECT_FALSE(FinishDraining(r, 15));
  EXPECT_FALSE(FinishDraining(r, 39));
  EXPECT_FALSE(EnterRing(r, {2, kMarker, 12}));  // not before it has read the old ring
  EXPECT_TRUE(FinishDraining(r, 40));
  EXPECT_EQ(r.mode, RxMode::kTcp);
  EXPECT_EQ(r.tcp_pos, 12U);  // TCP goes on here: the reader skips up to its own position
  EXPECT_FALSE(FinishDraining(r, 40));
}

TEST(SwitchReceiverTest, GoesBackAtOnceWhenTheRingIsRead) {
  SwitchReceiver r = OnRing(10);
  ASSERT_EQ(Scan(r, SwitchFrame(kMarker, 1, 30), 40, 40).outcome, Outcome::kSwitch);
  EXPECT_EQ(r.mode, RxMode::kTcp);
  EXPECT_EQ(r.tcp_pos, 30U);
}

TEST(SwitchReceiverTest, AbandonsTheRingForTheReplay) {
  SwitchReceiver r = OnRing(10);
  AbandonRing(r);
  EXPECT_EQ(r.mode, RxMode::kRing);  // there is no replay yet
  ASSERT_EQ(Scan(r, SwitchFrame(kMarker, 1, 12), 15, 40).outcome, Outcome::kSwitch);
  AbandonRing(r);
  EXPECT_EQ(r.mode, RxMode::kTcp);
  EXPECT_EQ(r.tcp_pos, 12U);
}

}  // namespace
}  // namespace vsocket::channel
