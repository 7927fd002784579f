#include "node-agent/broker/token_bucket.h"

#include <gtest/gtest.h>

namespace vsocket::broker {
namespace {

constexpr std::uint64_t kMs = 1'000'000;
constexpr std::uint64_t kSecond = 1000 * kMs;

// Bytes that an insatiable taker gets from it in `ns`, looking every `step` nanoseconds.
std::int64_t Drain(TokenBucket* bucket, std::uint64_t* now, std::uint64_t ns, std::uint64_t step) {
  std::int64_t taken = 0;
  const std::uint64_t end = *now + ns;
  while (*now < end) {
    *now += step;
    bucket->Refill(*now, true);
    taken += bucket->Tokens();
    bucket->Take(bucket->Tokens());
  }
  return taken;
}

TEST(TokenBucket, GivesItsRateToTheByteHoweverOftenItIsLookedAt) {
  for (const std::uint64_t rate : {1000ULL, 8001ULL, 10'000'000ULL, 99'999'999ULL, 1'000'000'000'000'000ULL}) {
    for (const std::uint64_t step : {std::uint64_t{333'333}, 5 * kMs, 77 * kMs + 1}) {
      std::uint64_t now = 7;
      TokenBucket bucket(rate, now);
      bucket.Take(bucket.Tokens());
      const std::uint64_t begun = now;
      const std::int64_t taken = Drain(&bucket, &now, 100 * kSecond, step);
      const long double exact = static_cast<long double>(rate) * static_cast<long double>(now - begun) / 8e9L;
      EXPECT_LE(taken, exact) << rate << " by " << step;
      EXPECT_GT(taken, exact - 1) << rate << " by " << step << ": less than a byte is kept back";
    }
  }
}

TEST(TokenBucket, AnIdleOneHoldsOneBurst) {
  std::uint64_t now = 0;
  TokenBucket bucket(80'000'000, now);  // 10 bytes a microsecond
  EXPECT_EQ(bucket.Burst(), 250'000);
  EXPECT_EQ(bucket.Tokens(), 250'000);
  bucket.Refill(now += 1000 * kSecond, false);
  EXPECT_EQ(bucket.Tokens(), 250'000);
}

TEST(TokenBucket, TheSlowestLetsAPacketThrough) {
  TokenBucket bucket(1000, 0);
  EXPECT_EQ(bucket.Tokens(), TokenBucket::kLeastBurst);
}

TEST(TokenBucket, WhoWasKeptWaitingLosesNothingToALateLook) {
  std::uint64_t now = 0;
  TokenBucket bucket(80'000'000, now);
  bucket.Take(bucket.Tokens());
  bucket.Refill(now += 90 * kMs, true);
  EXPECT_EQ(bucket.Tokens(), 900'000);
  bucket.Take(bucket.Tokens());
  bucket.Refill(now += 10 * kSecond, true);
  EXPECT_EQ(bucket.Tokens(), 1'000'000) << "but not without end";
  bucket.Take(bucket.Tokens());
  bucket.Refill(now += 90 * kMs, false);
  EXPECT_EQ(bucket.Tokens(), 250'000) << "nor when nobody waited";
}

TEST(TokenBucket, ADebtIsPaidFirst) {
  std::uint64_t now = 0;
  TokenBucket bucket(8'000'000, now);
  bucket.Take(bucket.Tokens() + 5000);
  EXPECT_EQ(bucket.Tokens(), -5000);
  bucket.Refill(now += 5 * kMs, true);
  EXPECT_EQ(bucket.Tokens(), 0);
}

TEST(TokenBucket, AChangedRateCountsFromTheChangeOn) {
  std::uint64_t now = 0;
  TokenBucket bucket(8'000'000, now);
  bucket.Take(bucket.Tokens());
  bucket.SetRate(80'000'000, now += 10 * kMs);
  EXPECT_EQ(bucket.Tokens(), 10'000);
  bucket.Refill(now += 10 * kMs, false);
  EXPECT_EQ(bucket.Tokens(), 110'000);
  bucket.SetRate(1000, now);
  EXPECT_EQ(bucket.Tokens(), TokenBucket::kLeastBurst) << "no burst of the old rate is left";
}

TEST(TokenBucket, TimeThatStandsStillOrGoesBackGivesNothing) {
  TokenBucket bucket(8'000'000, 100 * kMs);
  bucket.Take(bucket.Tokens());
  bucket.Refill(100 * kMs, true);
  bucket.Refill(1, true);
  EXPECT_EQ(bucket.Tokens(), 0);
}

}  // namespace
}  // namespace vsocket::broker
