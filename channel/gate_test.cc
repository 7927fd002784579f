// The gate's word through every story that gate.h tells, and two threads on it: exactly one of two that disagree wins.
#include "channel/gate.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <thread>

namespace vsocket::channel {
namespace {

constexpr std::uint32_t kGeneration = 7;

GateKind Kind(const Gate& gate) {
  return KindOf(gate.load());
}

// The sender is up, and the receiver reads the ring.
bool Up(Gate& gate) {
  return Take(gate, kGeneration) && Enter(gate) == Entry::kRing;
}

TEST(Gate, UpAndDownAgainOpensIt) {
  Gate gate{0};
  ASSERT_TRUE(Up(gate));
  EXPECT_FALSE(Take(gate, kGeneration + 1)) << "up already";
  EXPECT_EQ(HeldGeneration(gate.load()), kGeneration);
  EXPECT_TRUE(Leave(gate, kGeneration, false)) << "a SWITCH is due";
  EXPECT_EQ(HeldGeneration(gate.load()), kGeneration) << "its SWITCH is on the way";
  EndLeave(gate, kGeneration);
  EXPECT_EQ(Kind(gate), GateKind::kOpen);
  EXPECT_TRUE(Take(gate, kGeneration + 1));
}

TEST(Gate, ShutKeepsTheSenderDownForGood) {
  Gate gate{0};
  EXPECT_EQ(KindOf(Shut(gate)), GateKind::kOpen);
  EXPECT_TRUE(MustLeave(gate));
  EXPECT_FALSE(Take(gate, kGeneration));
  EndLeave(gate, kGeneration);
  EXPECT_FALSE(Take(gate, kGeneration));
  EXPECT_TRUE(HasLeft(gate));
}

TEST(Gate, SenderOnTheRingAnswersWithASwitch) {
  Gate gate{0};
  ASSERT_TRUE(Up(gate));
  EXPECT_EQ(HeldGeneration(Shut(gate)), kGeneration);
  EXPECT_TRUE(MustLeave(gate));
  EXPECT_TRUE(Leave(gate, kGeneration, false));
  EXPECT_EQ(Kind(gate), GateKind::kAnswered);
  EXPECT_FALSE(Go(gate)) << "a SWITCH is on the way to whoever waits for it";
}

TEST(Gate, ReceiverGoesWithoutASenderThatDoesNothing) {
  Gate gate{0};
  ASSERT_TRUE(Up(gate));
  Shut(gate);
  ASSERT_TRUE(Go(gate));
  ASSERT_TRUE(ComeBack(gate, false));
  ASSERT_TRUE(Go(gate));
  EXPECT_FALSE(Leave(gate, kGeneration, false)) << "no SWITCH: the receiver reads TCP already";
  EXPECT_EQ(Kind(gate), GateKind::kResumed);
  EXPECT_FALSE(ComeBack(gate, false)) << "the sender has seen it";
}

// A sender that left by itself, and a receiver that leaves while the replay is still on its way: it must learn that the replay is safe.
TEST(Gate, ReplayBegunBeforeIsAnswered) {
  Gate gate{0};
  ASSERT_TRUE(Up(gate));
  ASSERT_TRUE(Leave(gate, kGeneration, false));
  EXPECT_EQ(KindOf(Shut(gate)), GateKind::kSwitching);
  EXPECT_FALSE(Cut(gate, kGeneration)) << "a FIN must wait for the replay";
  EXPECT_EQ(Kind(gate), GateKind::kShut);
  Answer(gate);
  EXPECT_EQ(Kind(gate), GateKind::kAnswered);
}

TEST(Gate, ReplayThatEndsAfterTheGateIsShutIsAnsweredToo) {
  Gate gate{0};
  ASSERT_TRUE(Up(gate));
  ASSERT_TRUE(Leave(gate, kGeneration, false));
  Shut(gate);
  EndLeave(gate, kGeneration);
  EXPECT_EQ(Kind(gate), GateKind::kAnswered);
}

TEST(Gate, ReplayCutOffByAFinIsSeenByAReceiverThatComesLater) {
  Gate gate{0};
  ASSERT_TRUE(Up(gate));
  ASSERT_TRUE(Leave(gate, kGeneration, false));
  ASSERT_TRUE(Cut(gate, kGeneration));
  EXPECT_FALSE(HasLeft(gate)) << "the receiver is still on the ring, and reads the rest there";
  EXPECT_EQ(KindOf(Shut(gate)), GateKind::kCut);
  EXPECT_EQ(Kind(gate), GateKind::kCut) << "no answer will come";
  EndLeave(gate, kGeneration);
  EXPECT_EQ(Kind(gate), GateKind::kOpen) << "nothing was cut off after all";
}

TEST(Gate, AReceiverThatHasNotEnteredNeedsNoSwitch) {
  Gate gate{0};
  ASSERT_TRUE(Take(gate, kGeneration));
  EXPECT_EQ(HeldGeneration(Shut(gate)), kGeneration);
  EXPECT_TRUE(MustLeave(gate));
  EXPECT_TRUE(HasLeft(gate)) << "a replay is guarded";
  EXPECT_FALSE(Leave(gate, kGeneration, false));
  EXPECT_TRUE(IsAnsweredEarly(gate));
  EXPECT_TRUE(SenderHasLeft(gate));
  EXPECT_EQ(Enter(gate), Entry::kTcp) << "what is in the ring comes by TCP";
  EXPECT_FALSE(Go(gate));
  EndLeave(gate, kGeneration);
  EXPECT_FALSE(Take(gate, kGeneration + 1));
}

TEST(Gate, AFrameBehindPayloadIsFollowedByASwitch) {
  Gate gate{0};
  ASSERT_TRUE(Take(gate, kGeneration));
  Shut(gate);
  EXPECT_TRUE(Leave(gate, kGeneration, true));
  EXPECT_EQ(Kind(gate), GateKind::kAnswered);
  EXPECT_EQ(Enter(gate), Entry::kRing) << "once it has read what is before them";
}

TEST(Gate, AReceiverThatEntersAfterAllNeedsASwitch) {
  Gate gate{0};
  ASSERT_TRUE(Take(gate, kGeneration));
  Shut(gate);
  EXPECT_EQ(Enter(gate), Entry::kRing);
  EXPECT_EQ(Kind(gate), GateKind::kShut);
  EXPECT_TRUE(Leave(gate, kGeneration, false));
  EXPECT_EQ(Kind(gate), GateKind::kAnswered);
}

TEST(Gate, AReceiverThatHasNotEnteredAnEmptyRingGoesAlone) {
  Gate gate{0};
  ASSERT_TRUE(Take(gate, kGeneration));
  Shut(gate);
  ASSERT_TRUE(Go(gate));
  EXPECT_EQ(Enter(gate), Entry::kTcp);
  ASSERT_TRUE(ComeBack(gate, true));
  EXPECT_EQ(Kind(gate), GateKind::kShutEarly);
  EXPECT_FALSE(Leave(gate, kGeneration, false));
}

TEST(Gate, ASenderLeavesSilentlyBeforeTheReceiverEnters) {
  Gate gate{0};
  ASSERT_TRUE(Take(gate, kGeneration));
  EXPECT_FALSE(Announce(gate, kGeneration)) << "not for reasons of its own";
  EXPECT_FALSE(Leave(gate, kGeneration, false));
  EXPECT_FALSE(HasLeft(gate)) << "the receiver is there, and has the ring";
  EXPECT_EQ(Enter(gate), Entry::kDrain) << "the replay may be cut off";
  EXPECT_TRUE(Cut(gate, kGeneration)) << "and a FIN need not wait for it";
  EndLeave(gate, kGeneration);
  EXPECT_EQ(Enter(gate), Entry::kTcp);
  EXPECT_FALSE(HasLeft(gate));
  EXPECT_TRUE(Take(gate, kGeneration + 1));
}

TEST(Gate, ASilentReplayIsAnsweredToAReceiverThatWantsTcp) {
  Gate gate{0};
  ASSERT_TRUE(Take(gate, kGeneration));
  EXPECT_FALSE(Leave(gate, kGeneration, false));
  EXPECT_EQ(KindOf(Shut(gate)), GateKind::kRetreating);
  EXPECT_FALSE(Cut(gate, kGeneration)) << "a FIN must wait for the replay";
  EXPECT_TRUE(IsShutMeanwhile(gate));
  EXPECT_EQ(Enter(gate), Entry::kDrain) << "no SWITCH comes, even if it has read up to the ring";
  EXPECT_FALSE(Go(gate));
  EndLeave(gate, kGeneration);
  EXPECT_TRUE(IsAnsweredEarly(gate));
  EXPECT_EQ(Enter(gate), Entry::kTcp);
}

TEST(Gate, AFrameIsNotFollowedSilently) {
  Gate gate{0};
  ASSERT_TRUE(Take(gate, kGeneration));
  EXPECT_TRUE(Leave(gate, kGeneration, true));
  EXPECT_EQ(Enter(gate), Entry::kRing) << "where the SWITCH is found";
  EndLeave(gate, kGeneration);
  EXPECT_EQ(Kind(gate), GateKind::kOpen);
}

TEST(Gate, ALeaveThatIsAnnouncedMayBeWithdrawn) {
  Gate gate{0};
  ASSERT_TRUE(Up(gate));
  EXPECT_FALSE(SenderHasLeft(gate));
  ASSERT_TRUE(Announce(gate, kGeneration));
  EXPECT_TRUE(SenderHasLeft(gate));
  ASSERT_TRUE(Withdraw(gate, kGeneration));
  EXPECT_EQ(HeldGeneration(gate.load()), kGeneration);
  EXPECT_FALSE(SenderHasLeft(gate));
  ASSERT_TRUE(Announce(gate, kGeneration));
  EXPECT_TRUE(Leave(gate, kGeneration, false)) << "a SWITCH is due";
  EndLeave(gate, kGeneration);
  EXPECT_EQ(Kind(gate), GateKind::kOpen);
}

TEST(Gate, ALeaveThatTheReceiverCountsOnIsNotWithdrawn) {
  Gate gate{0};
  ASSERT_TRUE(Up(gate));
  ASSERT_TRUE(Announce(gate, kGeneration));
  EXPECT_EQ(KindOf(Shut(gate)), GateKind::kSwitching);
  EXPECT_FALSE(Withdraw(gate, kGeneration));
  EXPECT_FALSE(SenderHasLeft(gate)) << "it waits for room as long as it has not answered";
  EXPECT_TRUE(Leave(gate, kGeneration, false));
  EXPECT_EQ(Kind(gate), GateKind::kAnswered);
  EXPECT_TRUE(SenderHasLeft(gate));
}

// Runs `left` and `right` at the same time on a gate in the state that `begin` makes, many times over.
template <typename Begin, typename Left, typename Right, typename Check>
void Race(Begin begin, Left left, Right right, Check check) {
  constexpr int kRounds = 2000;
  Gate gate{0};
  std::atomic<int> round{0};
  std::atomic<int> done{0};
  std::thread other([&] {
    for (int mine = 1; mine <= kRounds; ++mine) {
      while (round.load() < mine) std::this_thread::yield();
      right(gate);
      done.store(mine);
    }
  });
  for (int now = 1; now <= kRounds; ++now) {
    gate.store(0);
    begin(gate);
    round.store(now);
    left(gate);
    while (done.load() < now) std::this_thread::yield();
    check(gate);
  }
  other.join();
}

TEST(Gate, FinAndLeavingReceiverNeverBothGoFirst) {
  bool cut = false;
  GateKind seen = GateKind::kOpen;
  Race([](Gate& gate) { ASSERT_TRUE(Up(gate) && Leave(gate, kGeneration, false)); }, [&](Gate& gate) { cut = Cut(gate, kGeneration); },
       [&](Gate& gate) { seen = KindOf(Shut(gate)); },
       [&](Gate& gate) {
         EXPECT_EQ(cut, seen == GateKind::kCut) << "the receiver knows that the replay was cut off, or the sender that it must not be";
         EXPECT_EQ(Kind(gate), cut ? GateKind::kCut : GateKind::kShut);
       });
}

TEST(Gate, SenderAndReceiverAgreeWhetherTheRingIsEntered) {
  for (const bool shut : {false, true}) {
    bool tell = false;
    Entry entry = Entry::kRing;
    Race(
        [&](Gate& gate) {
          ASSERT_TRUE(Take(gate, kGeneration));
          if (shut) Shut(gate);
        },
        [&](Gate& gate) { tell = Leave(gate, kGeneration, false); }, [&](Gate& gate) { entry = Enter(gate); },
        [&](Gate& gate) {
          EXPECT_EQ(tell, entry == Entry::kRing);
          EXPECT_EQ(HasLeft(gate), shut);
        });
  }
}

TEST(Gate, SenderAndReceiverAgreeWhetherASwitchComes) {
  bool tell = false;
  bool gone = false;
  Race(
      [](Gate& gate) {
        ASSERT_TRUE(Up(gate));
        Shut(gate);
      },
      [&](Gate& gate) { tell = Leave(gate, kGeneration, false); }, [&](Gate& gate) { gone = Go(gate); },
      [&](Gate& gate) {
        EXPECT_NE(tell, gone);
        EXPECT_EQ(Kind(gate), tell ? GateKind::kAnswered : GateKind::kResumed);
      });
}

}  // namespace
}  // namespace vsocket::channel
