#include "channel/grant.h"

#include <gtest/gtest.h>

#include "channel/layout.h"

namespace vsocket::channel {
namespace {

TEST(Grant, ZeroedMemoryIsNoLimit) {
  const SlotHeader slot{};
  EXPECT_FALSE(HasLimit(slot.grant[0]));
  EXPECT_EQ(MayPublish(slot.grant[0], 0), UINT64_MAX);
  EXPECT_GT(MayPublish(slot.grant[1], 1ULL << 62), 1ULL << 62);
}

TEST(Grant, IsAPositionAndNoMore) {
  std::atomic<std::uint64_t> word{GrantWord(1000)};
  EXPECT_TRUE(HasLimit(word));
  EXPECT_EQ(MayPublish(word, 0), 1000U);
  EXPECT_EQ(MayPublish(word, 999), 1U);
  EXPECT_EQ(MayPublish(word, 1000), 0U);
  EXPECT_EQ(MayPublish(word, 5000), 0U) << "one that was taken back, or came by TCP";
  word = GrantWord(0);
  EXPECT_TRUE(HasLimit(word));
  EXPECT_EQ(MayPublish(word, 0), 0U);
}

TEST(Grant, APaceOfTheOtherEndsChoiceIsGoodForASleep) {
  std::atomic<std::uint32_t> pace{0};
  EXPECT_EQ(PaceNs(pace), 1'000'000U);
  pace = 5000;
  EXPECT_EQ(PaceNs(pace), 5'000'000U);
  pace = UINT32_MAX;
  EXPECT_EQ(PaceNs(pace), 64'000'000U);
}

}  // namespace
}  // namespace vsocket::channel
