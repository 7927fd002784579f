#include "node-agent/broker/control_parse.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

namespace vsocket::broker {
namespace {

using channel::HeaderOf;
using channel::MessageType;

template <typename T>
Result<ShimMessage, ParseError> Parse(const T& message, std::size_t fds) {
  return ParseShimMessage(std::as_bytes(std::span(&message, 1)), fds);
}

template <typename T>
ParseError ErrorOf(const T& message, std::size_t fds) {
  const auto parsed = Parse(message, fds);
  EXPECT_FALSE(parsed);
  return parsed ? ParseError::kTooShort : parsed.Error();
}

constexpr channel::ChannelRef kRef{7, channel::kSlots - 1, 1, 1, 0};

TEST(ParseShimMessage, TakesEachRequest) {
  EXPECT_TRUE(Parse(channel::Hello{HeaderOf(MessageType::kHello), 1, 2, {}}, 0));
  EXPECT_TRUE(Parse(channel::Upgrade{HeaderOf(MessageType::kUpgrade), 5}, 1));
  EXPECT_TRUE(Parse(channel::Release{HeaderOf(MessageType::kRelease), 5, kRef, 0, {}}, 0));
  EXPECT_TRUE(Parse(channel::Reattach{HeaderOf(MessageType::kReattach), 5, kRef}, 2));
  EXPECT_TRUE(Parse(channel::AskGrant{HeaderOf(MessageType::kAskGrant), 5, kRef}, 0));
  EXPECT_TRUE(Parse(channel::Cancel{HeaderOf(MessageType::kCancel), 5}, 0));
  EXPECT_TRUE(Parse(channel::Note{HeaderOf(MessageType::kNote), 5, 999, {}}, 0)) << "an unknown reason is text only";
  const auto offer = Parse(channel::WakeRef{HeaderOf(MessageType::kWakeOffer), 7, 1, channel::kWakeFdsPerSide - 1}, 1);
  ASSERT_TRUE(offer);
  EXPECT_TRUE(std::holds_alternative<WakeOffer>(offer.Value()));
  const auto want = Parse(channel::WakeRef{HeaderOf(MessageType::kWakeWant), 7, 0, 0}, 0);
  ASSERT_TRUE(want);
  EXPECT_EQ(std::get<WakeWant>(want.Value()).region_id, 7U);
}

TEST(ParseShimMessage, SaysWhatIsWrong) {
  const std::array<std::byte, 7> header_cut{};
  EXPECT_EQ(ParseShimMessage(header_cut, 0).Error(), ParseError::kTooShort);
  EXPECT_EQ(ParseShimMessage({}, 0).Error(), ParseError::kTooShort);
  channel::Cancel cancel{HeaderOf(MessageType::kCancel), 5};
  cancel.header.magic ^= 1;
  EXPECT_EQ(ErrorOf(cancel, 0), ParseError::kMagic);
  cancel = {HeaderOf(MessageType::kCancel), 5};
  cancel.header.version = 2;
  EXPECT_EQ(ErrorOf(cancel, 0), ParseError::kVersion);
  EXPECT_EQ(ErrorOf(channel::Deny{HeaderOf(MessageType::kDeny), 5, 0, 0, 0}, 0), ParseError::kUnknownType) << "the agent's own";
  EXPECT_EQ(ErrorOf(channel::Cancel{HeaderOf(static_cast<MessageType>(10)), 5}, 0), ParseError::kUnknownType);
  EXPECT_EQ(ErrorOf(channel::Cancel{HeaderOf(static_cast<MessageType>(0)), 5}, 0), ParseError::kUnknownType);
  EXPECT_EQ(ErrorOf(channel::Release{HeaderOf(MessageType::kCancel), 5, kRef, 0, {}}, 0), ParseError::kSize);
  EXPECT_EQ(ErrorOf(channel::Cancel{HeaderOf(MessageType::kRelease), 5}, 0), ParseError::kSize);
  EXPECT_EQ(ErrorOf(channel::Upgrade{HeaderOf(MessageType::kUpgrade), 5}, 0), ParseError::kFdCount);
  EXPECT_EQ(ErrorOf(channel::Upgrade{HeaderOf(MessageType::kUpgrade), 5}, 2), ParseError::kFdCount);
  EXPECT_EQ(ErrorOf(channel::Cancel{HeaderOf(MessageType::kCancel), 5}, 1), ParseError::kFdCount);
}

TEST(ParseShimMessage, RefusesIndexesOutOfRange) {
  for (const channel::ChannelRef& ref : {channel::ChannelRef{7, channel::kSlots, 1, 0, 0}, channel::ChannelRef{7, 0, 0, 0, 0},
                                         channel::ChannelRef{7, 0, 1, 2, 0}, channel::ChannelRef{7, ~0U, ~0U, ~0U, 0}}) {
    EXPECT_EQ(ErrorOf(channel::Release{HeaderOf(MessageType::kRelease), 5, ref, 0, {}}, 0), ParseError::kRange);
    EXPECT_EQ(ErrorOf(channel::Reattach{HeaderOf(MessageType::kReattach), 5, ref}, 2), ParseError::kRange);
    EXPECT_EQ(ErrorOf(channel::AskGrant{HeaderOf(MessageType::kAskGrant), 5, ref}, 0), ParseError::kRange);
  }
  EXPECT_EQ(ErrorOf(channel::WakeRef{HeaderOf(MessageType::kWakeWant), 7, 2, 0}, 0), ParseError::kRange);
  EXPECT_EQ(ErrorOf(channel::WakeRef{HeaderOf(MessageType::kWakeOffer), 7, 0, channel::kWakeFdsPerSide}, 1), ParseError::kRange);
}

}  // namespace
}  // namespace vsocket::broker
