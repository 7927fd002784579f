// One direction under random events: sends, ups, downs, bells, deliveries in any pieces, receives, resizes, and at last a close or a death
// in the midst of an operation. The stream must come out byte for byte. Every choice comes from the seed, which a failure names.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "channel/testing/direction_ends.h"

namespace vsocket::channel::testing {
namespace {

struct Dead {};  // thrown where the sending process is killed

// What happened over all seeds; the test asks that each did.
struct Tally {
  std::uint64_t bytes = 0, by_ring = 0, ups = 0, downs = 0, replays = 0, skipped = 0, bells = 0, abandoned = 0, grown = 0, peeks = 0;
  std::uint64_t wrapped = 0, deaths = 0, torn_switches = 0, replays_cut = 0;
};

class Simulation {
 public:
  Simulation(std::uint64_t seed, Tally* tally)
      : random_(seed),
        seed_(seed),
        tally_(tally),
        begin_(Below(4) == 0 ? 0 : random_() >> (1 + Below(30))),
        alphabet_(Below(2) == 0 ? 2 + Below(3) : 256),
        tcp_(1 + Below(4000)),
        ring_(std::make_unique<std::byte[]>(kRingMax)),
        sender_({&sender_words_, &receiver_words_, ring_.get(), &tcp_}, begin_),
        receiver_({&receiver_words_, &sender_words_, ring_.get(), &tcp_}, begin_),
        accepted_(begin_) {
    if (Below(3) == 0) {
      sender_.StartGenerationsAfter(UINT32_MAX - 2);
      receiver_.StartGenerationsAfter(UINT32_MAX - 2);
      near_the_last_generation_ = true;
    }
    // What one end does between two steps of the other. An end is never inside itself: its lock sees to that.
    sender_.interleave = [this] { BetweenSteps(false); };
    receiver_.interleave = [this] { BetweenSteps(true); };
  }

  void Run() {
    const std::uint64_t events = 100 + Below(900);
    deadly_ = Below(2) == 0;
    try {
      for (std::uint64_t i = 0; i < events && !::testing::Test::HasFatalFailure(); ++i) Below(2) == 0 ? SenderEvent() : ReceiverEvent();
    } catch (const Dead&) {
      ++tally_->deaths;
    }
    End();
  }

 private:
  std::uint64_t Below(std::uint64_t n) { return random_() % n; }

  // Few values, often: payload that looks like frames.
  [[nodiscard]] std::uint8_t ByteAt(std::uint64_t position) const {
    std::uint64_t mixed = (position + seed_) * 0x9e3779b97f4a7c15ULL;
    mixed ^= mixed >> 29;
    return static_cast<std::uint8_t>(mixed % alphabet_);
  }

  void BetweenSteps(bool sender_may_act) {
    if (nested_ || ended_) return;
    nested_ = true;
    if (Below(3) == 0) tcp_.Deliver(Below(100));
    if (Below(4) == 0) sender_may_act ? SenderEvent() : ReceiverEvent();
    nested_ = false;
    if (!sender_may_act && deadly_ && Below(400) == 0) throw Dead{};
  }

  void SenderEvent() {
    const std::uint32_t generation = sender_.Switch().generation;
    switch (Below(12)) {
      case 0:
      case 1:
        if (!sender_.GoUp(ByteAt(sender_.Ring().pos))) break;
        ++tally_->ups;
        if (near_the_last_generation_ && sender_.Switch().generation < generation) ++tally_->wrapped;
        break;
      case 2:
        LeaveRing();
        break;
      case 3:
        sender_.Bell();
        break;
      case 4:
        if (Below(4) != 0) break;
        ASSERT_TRUE(sender_.TryResize(kRingMinLog2 + static_cast<std::uint32_t>(Below(kRingMaxLog2 - kRingMinLog2 + 1))));
        if (sender_.Ring().capacity_log2 != kRingMinLog2) ++tally_->grown;
        break;
      case 5:
        sender_.Flush();
        break;
      case 6:
        tcp_.SetRoom(Below(40000) >> Below(15));
        break;
      default:
        SendSome();
    }
  }

  void LeaveRing() {
    if (sender_.Switch().mode != SwitchSender::Mode::kRing) return;
    ++tally_->downs;
    if (Below(2) == 0) tcp_.SetRoom(Below(20));
    ASSERT_TRUE(sender_.GoDown());
    if (sender_.Switch().replay_from != sender_.Switch().replay_end) ++tally_->replays;
  }

  void SendSome() {
    std::vector<std::uint8_t> bytes(1 + (Below(30000) >> Below(15)));
    // The stream goes on where the last call's accepted bytes ended.
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = ByteAt(sender_.Ring().pos + i);
    const auto sent = sender_.Send(bytes);
    ASSERT_TRUE(sent.has_value()) << "the sender calls an honest receiver broken";
    accepted_ += *sent;
    ASSERT_EQ(accepted_, sender_.Ring().pos);
    if (sender_.Switch().mode == SwitchSender::Mode::kRing) tally_->by_ring += *sent;
  }

  void ReceiverEvent() {
    switch (Below(7)) {
      case 0:
        ASSERT_TRUE(receiver_.TakeFrames(kSwitchFrameSize + Below(52))) << "the receiver calls an honest sender broken";
        break;
      case 1:
        tcp_.Deliver(Below(3) == 0 ? 1 + Below(8) : Below(3000));
        break;
      case 2:
        // As an owner does who hands the connection on: once the whole replay is on its way.
        if (receiver_.Switch().mode != SwitchReceiver::Mode::kDraining || sender_.Switch().mode != SwitchSender::Mode::kTcp) break;
        if (receiver_.Ring().pos < receiver_.Switch().drain_until) ++tally_->abandoned;
        receiver_.Abandon();
        break;
      default:
        (void)ReceiveSome();
    }
  }

  ReceiverEnd::Outcome ReceiveSome() {
    std::vector<std::uint8_t> into(1 + (Below(30000) >> Below(15)));
    const std::uint64_t from = receiver_.Ring().pos;
    const bool peek = Below(8) == 0;
    const ReceiverEnd::Received got = receiver_.Receive(into, kSwitchFrameSize + Below(52), peek);
    Check(got, into, from, peek);
    return got.outcome;
  }

  void Check(const ReceiverEnd::Received& got, const std::vector<std::uint8_t>& into, std::uint64_t from, bool peek) {
    ASSERT_NE(got.outcome, ReceiverEnd::Outcome::kBroken) << "the receiver calls an honest sender broken";
    ASSERT_TRUE(ended_ || got.outcome != ReceiverEnd::Outcome::kEnd) << "an end that nobody began";
    if (got.outcome != ReceiverEnd::Outcome::kBytes) return;
    ASSERT_GT(got.size, 0U);
    ASSERT_LE(got.size, into.size());
    for (std::size_t i = 0; i < got.size; ++i) {
      ASSERT_EQ(into[i], ByteAt(from + i)) << "at stream position " << from + i << ", " << from + i - begin_ << " after the first";
    }
    ASSERT_EQ(receiver_.Ring().pos, peek ? from : from + got.size);
    if (peek) ++tally_->peeks;
  }

  // The sender is gone; what it had accepted arrives, then the end.
  void End() {
    if (::testing::Test::HasFatalFailure()) return;
    const auto& tx = sender_.Switch();
    if (tx.mode == SwitchSender::Mode::kLeaving) {
      if (tx.frame_sent != 0 && tx.frame_sent != kSwitchFrameSize) ++tally_->torn_switches;
      if (tx.frame_sent == kSwitchFrameSize && tx.replay_from != tx.replay_end) ++tally_->replays_cut;
    }
    ended_ = true;
    tcp_.Close();
    ReceiverEnd::Outcome outcome = ReceiverEnd::Outcome::kNothing;
    for (int turn = 0; outcome != ReceiverEnd::Outcome::kEnd && !::testing::Test::HasFatalFailure(); ++turn) {
      ASSERT_LT(turn, 100000) << "no end";
      tcp_.Deliver(1 + Below(2000));
      outcome = ReceiveSome();
    }
    // A death between publishing and returning leaves bytes that the program does not know to be accepted: they may arrive.
    EXPECT_GE(receiver_.Ring().pos, accepted_);
    EXPECT_LE(receiver_.Ring().pos, sender_.Ring().pos);
    tally_->bytes += receiver_.Ring().pos - begin_;
    tally_->skipped += receiver_.Skipped();
    tally_->bells += receiver_.Bells();
  }

  SideWords sender_words_{};
  SideWords receiver_words_{};
  std::mt19937_64 random_;
  std::uint64_t seed_;
  Tally* tally_;
  std::uint64_t begin_;
  std::uint64_t alphabet_;
  TcpQueue tcp_;
  std::unique_ptr<std::byte[]> ring_;
  SenderEnd sender_;
  ReceiverEnd receiver_;
  std::uint64_t accepted_;  // stream position behind what Send said it took
  bool near_the_last_generation_ = false;
  bool deadly_ = false;
  bool nested_ = false;
  bool ended_ = false;
};

TEST(SwitchSimulationTest, TheStreamComesOutByteForByte) {
  Tally tally;
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Simulation(seed, &tally).Run();
    if (HasFailure()) return;
  }
  // A simulation in which something never happened has not tested it.
  EXPECT_GT(tally.bytes, 1000000U);
  EXPECT_GT(tally.by_ring, 1000000U);
  for (const std::uint64_t count : {tally.ups, tally.downs, tally.replays, tally.skipped, tally.bells, tally.abandoned, tally.grown,
                                    tally.peeks, tally.wrapped, tally.deaths, tally.torn_switches, tally.replays_cut}) {
    EXPECT_GT(count, 0U);
  }
  std::printf("%llu bytes, %llu by ring, %llu ups, %llu downs, %llu with a replay, %llu bytes skipped, %llu bells, %llu rings abandoned\n",
              static_cast<unsigned long long>(tally.bytes), static_cast<unsigned long long>(tally.by_ring),
              static_cast<unsigned long long>(tally.ups), static_cast<unsigned long long>(tally.downs),
              static_cast<unsigned long long>(tally.replays), static_cast<unsigned long long>(tally.skipped),
              static_cast<unsigned long long>(tally.bells), static_cast<unsigned long long>(tally.abandoned));
}

}  // namespace
}  // namespace vsocket::channel::testing
