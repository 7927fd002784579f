// The pacer with fake time and senders that behave as the shim's do: publish what they may, ask when they may nothing and are not watched.
#include "node-agent/broker/pacer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace vsocket::broker {
namespace {

constexpr std::uint64_t kMs = 1'000'000;
constexpr std::uint64_t kSecond = 1000 * kMs;
constexpr std::uint64_t kMbit = 1'000'000;

// The words of a direction, and what the kernel says of its socket.
struct Words {
  std::uint64_t granted = 0, published = 0, by_tcp = 0, by_tcp_told = 0;
  std::uint32_t pace_us = 0;
  bool watched = false;
  bool up = true;
  bool socket = true;
  int kernel_looks = 0;
};

class FakeRing final : public PacedRing {
 public:
  explicit FakeRing(Words* words) : words_(words) {}
  std::optional<model::SentPosition> Sent() override {
    if (!words_->up) return std::nullopt;
    return model::SentPosition{words_->published, std::max(words_->published, words_->by_tcp_told)};
  }
  void Grant(std::uint64_t position, std::uint32_t pace_us) override {
    words_->granted = position;
    words_->pace_us = pace_us;
  }
  void Watch(bool watched) override { words_->watched = watched; }
  std::optional<std::uint64_t> TakenByTcp() override {
    ++words_->kernel_looks;
    return words_->socket ? std::optional(words_->by_tcp) : std::nullopt;
  }

 private:
  Words* words_;
};

class PacerTest : public ::testing::Test {
 protected:
  std::size_t Add(const std::string& sender, const std::string& receiver, bool live = false) {
    words_.push_back(std::make_unique<Words>());
    const FlowId id{words_.size(), 0};
    pacer_.Add(id, sender, receiver, std::make_unique<FakeRing>(words_.back().get()), live, now_);
    return words_.size() - 1;
  }
  FlowId Id(std::size_t i) const { return {i + 1, 0}; }
  Words& W(std::size_t i) { return *words_[i]; }

  // Flow i publishes up to `wish` bytes, and asks as a shim does. What it got.
  std::uint64_t Send(std::size_t i, std::uint64_t wish) {
    Words& w = W(i);
    const std::uint64_t may = w.granted > w.published ? w.granted - w.published : 0;
    const std::uint64_t sent = std::min(wish, may);
    w.published += sent;
    if (sent < wish && !w.watched) pacer_.Ask(Id(i), now_);
    return sent;
  }

  // Time passes; rounds happen when they are due, `late` nanoseconds late. Senders look every `step`.
  void Run(std::uint64_t ns, const std::vector<std::size_t>& greedy, std::uint64_t step = kMs, std::uint64_t late = 0) {
    for (const std::uint64_t end = now_ + ns; now_ < end; now_ += step) {
      if (pacer_.NextRound() != 0 && now_ >= pacer_.NextRound() + late) {
        EXPECT_TRUE(pacer_.Round(now_).empty());
      }
      for (const std::size_t i : greedy) Send(i, UINT32_MAX);
    }
  }

  std::uint64_t Sum() const {
    return std::accumulate(words_.begin(), words_.end(), std::uint64_t{0},
                           [](std::uint64_t sum, const auto& w) { return sum + w->published; });
  }
  // Jain's fairness index of what the flows got.
  double Jain(const std::vector<std::size_t>& flows) {
    double sum = 0;
    double squares = 0;
    for (const std::size_t i : flows) {
      const auto x = static_cast<double>(W(i).published);
      sum += x;
      squares += x * x;
    }
    return sum * sum / (static_cast<double>(flows.size()) * squares);
  }
  static double Bits(std::uint64_t bytes, std::uint64_t ns) { return static_cast<double>(bytes) * 8e9 / static_cast<double>(ns); }

  Pacer pacer_;
  std::vector<std::unique_ptr<Words>> words_;
  std::uint64_t now_ = 1000 * kSecond;
};

TEST_F(PacerTest, HoldsTheRateOverLongRuns) {
  for (const std::uint64_t rate : {kMbit / 1000, kMbit / 10, 10 * kMbit, 100 * kMbit, 1000 * kMbit, 100'000 * kMbit}) {
    const std::string pod = std::to_string(rate);
    pacer_.SetLimit(pod, Pacer::Way::kEgress, rate, now_);
    const std::size_t flow = Add(pod, "other");
    const std::uint64_t seconds = rate < kMbit ? 1000 : 60;
    Run(seconds * kSecond, {flow}, 2 * kMs);
    const double got = Bits(W(flow).published, seconds * kSecond);
    const double burst = 8.0 * static_cast<double>(TokenBucket(rate, 0).Burst()) / static_cast<double>(seconds);
    EXPECT_LE(got, static_cast<double>(rate) * 1.001 + burst) << rate;
    EXPECT_GE(got, static_cast<double>(rate) * 0.99) << rate;
    pacer_.Remove(Id(flow));
  }
}

TEST_F(PacerTest, EachSecondIsWithinFivePercent) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 10 * kMbit, now_);
  const std::size_t flow = Add("a", "b");
  std::uint64_t before = 0;
  for (int second = 0; second < 10; ++second) {
    Run(kSecond, {flow});
    EXPECT_NEAR(Bits(W(flow).published - before, kSecond), 10e6, 0.5e6) << "second " << second;
    before = W(flow).published;
  }
}

TEST_F(PacerTest, LateRoundsAndSleepySendersCostNothing) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 100 * kMbit, now_);
  const std::size_t flow = Add("a", "b");
  Run(10 * kSecond, {flow}, kMs, 40 * kMs);
  EXPECT_NEAR(Bits(W(flow).published, 10 * kSecond), 100e6, 5e6);
  const std::uint64_t before = W(flow).published;
  Run(10 * kSecond, {flow}, 8 * kMs);
  EXPECT_NEAR(Bits(W(flow).published - before, 10 * kSecond), 100e6, 5e6);
}

TEST_F(PacerTest, IsFairAmongOneToAHundredConnections) {
  for (const std::size_t count : {1, 2, 3, 10, 33, 100}) {
    const std::string pod = "pod" + std::to_string(count);
    pacer_.SetLimit(pod, Pacer::Way::kEgress, 100 * kMbit, now_);
    std::vector<std::size_t> flows;
    for (std::size_t i = 0; i < count; ++i) flows.push_back(Add(pod, "peer" + std::to_string(i)));
    const std::uint64_t before = Sum();
    Run(5 * kSecond, flows);
    EXPECT_NEAR(Bits(Sum() - before, 5 * kSecond), 100e6, 5e6) << count;
    EXPECT_GT(Jain(flows), 0.99) << count;
    for (const std::size_t i : flows) pacer_.Remove(Id(i));
  }
}

TEST_F(PacerTest, AModestOneGetsWhatItWantsAndTheRestIsShared) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 80 * kMbit, now_);  // 10 bytes a microsecond
  const std::size_t modest = Add("a", "b");
  const std::size_t greedy = Add("a", "b");
  const std::size_t other = Add("a", "b");
  std::uint64_t missed = 0;
  for (int ms = 0; ms < 4000; ++ms) {
    Run(kMs, {greedy, other});
    const std::uint64_t sent = Send(modest, 500);  // 4 Mbit/s
    if (ms > 100) missed += 500 - sent;
  }
  EXPECT_EQ(missed, 0U);
  EXPECT_NEAR(static_cast<double>(W(greedy).published), 19e6, 1e6);
  EXPECT_NEAR(static_cast<double>(W(other).published), 19e6, 1e6);
}

TEST_F(PacerTest, WhereTwoLimitsCrossTheLowerOneHoldsAndNothingIsWasted) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 100 * kMbit, now_);
  pacer_.SetLimit("x", Pacer::Way::kIngress, 10 * kMbit, now_);
  const std::size_t slow = Add("a", "x");
  const std::size_t fast = Add("a", "y");
  const std::size_t into_x = Add("b", "x");
  Run(5 * kSecond, {slow, fast, into_x});
  EXPECT_NEAR(Bits(W(slow).published, 5 * kSecond), 5e6, 0.3e6);
  EXPECT_NEAR(Bits(W(into_x).published, 5 * kSecond), 5e6, 0.3e6);
  EXPECT_NEAR(Bits(W(fast).published, 5 * kSecond), 95e6, 5e6);
}

TEST_F(PacerTest, AnIngressLimitHoldsSendersOfManyPodsTogether) {
  pacer_.SetLimit("x", Pacer::Way::kIngress, 20 * kMbit, now_);
  std::vector<std::size_t> flows;
  for (int i = 0; i < 8; ++i) flows.push_back(Add("pod" + std::to_string(i), "x"));
  Run(4 * kSecond, flows);
  EXPECT_NEAR(Bits(Sum(), 4 * kSecond), 20e6, 1e6);
  EXPECT_GT(Jain(flows), 0.99);
}

TEST_F(PacerTest, AChangedLimitHoldsFromTheChangeOn) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 10 * kMbit, now_);
  const std::size_t flow = Add("a", "b");
  Run(2 * kSecond, {flow});
  std::uint64_t before = W(flow).published;
  pacer_.SetLimit("a", Pacer::Way::kEgress, 50 * kMbit, now_);
  Run(2 * kSecond, {flow});
  EXPECT_NEAR(Bits(W(flow).published - before, 2 * kSecond), 50e6, 2.5e6);
  before = W(flow).published;
  pacer_.SetLimit("a", Pacer::Way::kEgress, kMbit, now_);
  Run(2 * kSecond, {flow});
  EXPECT_NEAR(Bits(W(flow).published - before, 2 * kSecond), 1e6, 0.3e6) << "what was granted before may still be used";
  pacer_.SetLimit("b", Pacer::Way::kIngress, 500'000, now_);
  before = W(flow).published;
  Run(4 * kSecond, {flow});
  EXPECT_NEAR(Bits(W(flow).published - before, 4 * kSecond), 500e3, 25e3);
  pacer_.SetLimit("a", Pacer::Way::kEgress, std::nullopt, now_);
  EXPECT_TRUE(pacer_.IsLimited("a", "b"));
  pacer_.SetLimit("b", Pacer::Way::kIngress, std::nullopt, now_);
  EXPECT_FALSE(pacer_.IsLimited("a", "b"));
}

TEST_F(PacerTest, SleepsWhenNobodySendsAndWakesWhenSomebodyAsks) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 10 * kMbit, now_);
  const std::size_t flow = Add("a", "b");
  EXPECT_EQ(pacer_.NextRound(), 0U);
  EXPECT_FALSE(W(flow).watched);
  Run(kSecond, {flow});
  EXPECT_NE(pacer_.NextRound(), 0U);
  EXPECT_TRUE(W(flow).watched);
  Run(100 * kMs, {});
  EXPECT_EQ(pacer_.NextRound(), 0U);
  EXPECT_FALSE(W(flow).watched);
  EXPECT_GT(W(flow).granted, W(flow).published) << "a credit for a small request";
  EXPECT_LE(W(flow).granted - W(flow).published, 31'250U / 4);
  now_ += 10 * kSecond;
  EXPECT_GT(Send(flow, 100), 0U);
  EXPECT_EQ(pacer_.NextRound(), 0U) << "nobody was asked";
  (void)Send(flow, UINT32_MAX);
  EXPECT_NE(pacer_.NextRound(), 0U);
  EXPECT_LE(pacer_.NextRound(), now_ + kMs);
}

TEST_F(PacerTest, IdleConnectionsDoNotHoardABurst) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 10 * kMbit, now_);
  std::vector<std::size_t> flows;
  for (int i = 0; i < 100; ++i) flows.push_back(Add("a", "b"));
  for (const std::size_t i : flows) {
    (void)Send(i, 10);
    Run(20 * kMs, {});
    (void)Send(i, 10);
    Run(100 * kMs, {});
  }
  now_ += 10 * kSecond;
  const std::uint64_t before = Sum();
  Run(kSecond, flows);
  EXPECT_LE(Bits(Sum() - before, kSecond), 10.5e6) << "all of them at once, after a long rest";
}

TEST_F(PacerTest, WhatWasTakenBackMayStillBeUsedOnceAndCounts) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 10 * kMbit, now_);
  const std::size_t flow = Add("a", "b");
  (void)Send(flow, 10);
  Run(20 * kMs, {});
  (void)Send(flow, 10);
  const std::uint64_t old_grant = W(flow).granted;
  Run(100 * kMs, {});
  ASSERT_LT(W(flow).granted, old_grant);
  W(flow).published = old_grant;  // it had loaded the word before
  EXPECT_TRUE(pacer_.LookAtAll(now_).empty());
  const std::uint64_t before = W(flow).published;
  Run(kSecond, {flow});
  EXPECT_LE(Bits(W(flow).published - before, kSecond), 10.5e6);
}

TEST_F(PacerTest, WhatCameByTcpIsNotHeldAgainstASender) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 10 * kMbit, now_);
  const std::size_t flow = Add("a", "b");
  for (int turn = 0; turn < 5; ++turn) {
    W(flow).by_tcp += 5'000'013;  // payload, and some frames
    W(flow).published += 5'000'000;
    Run(200 * kMs, {flow});
    EXPECT_TRUE(pacer_.LookAtAll(now_).empty());
  }
  const std::uint64_t before = W(flow).published;
  Run(kSecond, {flow});
  EXPECT_NEAR(Bits(W(flow).published - before, kSecond), 10e6, 0.5e6);
  EXPECT_LT(W(flow).kernel_looks, 20) << "the kernel is asked only for what the grant does not explain";
}

TEST_F(PacerTest, ASenderThatIgnoresItsGrantIsReported) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 10 * kMbit, now_);
  const std::size_t honest = Add("a", "b");
  const std::size_t hostile = Add("a", "b");
  Run(100 * kMs, {honest, hostile});
  W(hostile).published = W(hostile).granted + 1;
  const std::vector<FlowId> over = pacer_.Round(now_ += 5 * kMs);
  ASSERT_EQ(over.size(), 1U);
  EXPECT_EQ(over[0], Id(hostile));
  pacer_.Remove(over[0]);
  // One that was left alone, and never asks.
  const std::size_t quiet = Add("a", "b");
  W(quiet).published = 1 << 20;
  EXPECT_EQ(pacer_.LookAtAll(now_), std::vector<FlowId>{Id(quiet)});
  pacer_.Remove(Id(quiet));
  W(honest).by_tcp = 1000;
  const std::uint64_t before = W(honest).published;
  Run(kSecond, {honest});
  EXPECT_NEAR(Bits(W(honest).published - before, kSecond), 10e6, 0.5e6);
}

TEST_F(PacerTest, TcpExplainsAPositionOnce) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 10 * kMbit, now_);
  const std::size_t flow = Add("a", "b");
  W(flow).by_tcp = 100'000;
  W(flow).published = 100'000;
  EXPECT_TRUE(pacer_.LookAtAll(now_).empty());
  (void)pacer_.Round(now_);
  W(flow).published = W(flow).granted + 100'000;
  EXPECT_EQ(pacer_.Round(now_ + kMs).size(), 1U);
}

TEST_F(PacerTest, ImpossiblePositionsHarmNobodyElse) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 10 * kMbit, now_);
  const std::size_t honest = Add("a", "b");
  for (const std::uint64_t position : {UINT64_MAX, UINT64_MAX - 1, std::uint64_t{1} << 63, std::uint64_t{1} << 51}) {
    const std::size_t hostile = Add("a", "b");
    W(hostile).published = position;
    EXPECT_EQ(pacer_.LookAtAll(now_).size(), 1U);
    pacer_.Remove(Id(hostile));
    // With no socket to judge by it is at its end; what it is charged with is bounded.
    const std::size_t ended = Add("a", "b");
    W(ended).published = position;
    W(ended).socket = false;
    EXPECT_TRUE(pacer_.LookAtAll(now_).empty());
    (void)pacer_.Round(now_ += kMs);
    pacer_.Settle(Id(ended), now_);
    pacer_.Remove(Id(ended));
  }
  W(honest).published = 0;
  Run(2 * kSecond, {});
  const std::uint64_t before = W(honest).published;
  Run(kSecond, {honest});
  EXPECT_NEAR(Bits(W(honest).published - before, kSecond), 10e6, 0.5e6);
}

TEST_F(PacerTest, ALimitThatComesOverALiveDirectionForgivesWhatIsOnItsWay) {
  const std::size_t unused = Add("nobody", "nothing");
  (void)unused;
  pacer_.SetLimit("a", Pacer::Way::kEgress, 10 * kMbit, now_);
  words_.push_back(std::make_unique<Words>());
  W(1).published = W(1).by_tcp = 1 << 30;
  pacer_.Add(Id(1), "a", "b", std::make_unique<FakeRing>(words_.back().get()), true, now_);
  EXPECT_EQ(W(1).granted, W(1).published);
  W(1).published += 200'000;  // written before it saw the word
  Run(500 * kMs, {1});
  Run(2 * kSecond, {1});
  const std::uint64_t before = W(1).published;
  Run(kSecond, {1});
  EXPECT_NEAR(Bits(W(1).published - before, kSecond), 10e6, 0.5e6);
  W(1).published = W(1).granted + (5 << 20);
  EXPECT_EQ(pacer_.Round(now_).size(), 1U) << "but only then";
}

TEST_F(PacerTest, OneThatIsOnTcpWhenItIsFirstSeenComesBackInPeace) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 10 * kMbit, now_);
  words_.push_back(std::make_unique<Words>());
  W(0).published = 1'000'000;  // where it left the ring
  W(0).by_tcp_told = W(0).by_tcp = 90'000'000;
  pacer_.Add(Id(0), "a", "b", std::make_unique<FakeRing>(words_.back().get()), true, now_);
  now_ += 10 * kSecond;
  EXPECT_TRUE(pacer_.LookAtAll(now_).empty());
  W(0).by_tcp_told = W(0).by_tcp = 95'000'000;
  W(0).published = 95'000'000;
  Run(kSecond, {0});
  EXPECT_NEAR(Bits(W(0).published - 95'000'000, kSecond), 10e6, 0.5e6);
}

TEST_F(PacerTest, WhoToldOfMoreThanItHadSentIsReported) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 10 * kMbit, now_);
  words_.push_back(std::make_unique<Words>());
  W(0).published = 1ULL << 40;  // at the moment when an agent looks at it for the first time
  pacer_.Add(Id(0), "a", "b", std::make_unique<FakeRing>(words_.back().get()), true, now_);
  W(0).published = 1000;
  EXPECT_EQ(pacer_.LookAtAll(now_).size(), 1U);
}

TEST_F(PacerTest, ConnectionsThatComeAndGoTakeNoMoreThanOthers) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 10 * kMbit, now_);
  std::uint64_t total = 0;
  const std::uint64_t begun = now_;
  for (int i = 0; i < 400; ++i) {
    const std::size_t flow = Add("a", "b");
    Run(10 * kMs, {flow}, kMs);
    (void)Send(flow, UINT32_MAX);
    total += W(flow).published;
    pacer_.Settle(Id(flow), now_);
    pacer_.Remove(Id(flow));
  }
  EXPECT_LE(Bits(total, now_ - begun), 10.5e6);
  EXPECT_GE(Bits(total, now_ - begun), 9.5e6);
  EXPECT_EQ(pacer_.NextRound(), 0U);
  EXPECT_EQ(pacer_.Stats().limited, 0U);
}

TEST_F(PacerTest, ASenderThatIsOftenRefusedSleepsLonger) {
  pacer_.SetLimit("a", Pacer::Way::kEgress, 10 * kMbit, now_);
  const std::size_t alone = Add("a", "b");
  Run(kSecond, {alone});
  EXPECT_EQ(W(alone).pace_us, 5000U);
  std::vector<std::size_t> flows{alone};
  for (int i = 1; i < 100; ++i) flows.push_back(Add("a", "b"));
  Run(kSecond, flows);
  EXPECT_GE(W(alone).pace_us, 50'000U);
  EXPECT_LE(W(alone).pace_us, 64'000U);
}

}  // namespace
}  // namespace vsocket::broker
