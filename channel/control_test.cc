#include "channel/control.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <set>

namespace vsocket::channel {
namespace {

constexpr MessageType kAllTypes[] = {MessageType::kHello,   MessageType::kUpgrade, MessageType::kRelease,   MessageType::kReattach,
                                     MessageType::kCancel,  MessageType::kNote,    MessageType::kWakeOffer, MessageType::kWakeWant,
                                     MessageType::kWelcome, MessageType::kReject,  MessageType::kGrant,     MessageType::kDeny,
                                     MessageType::kWake,    MessageType::kAskGrant};

TEST(ControlTest, EachTypeHasASizeThatFitsAPacket) {
  for (const MessageType type : kAllTypes) {
    EXPECT_GE(MessageSize(type), sizeof(MessageHeader)) << static_cast<int>(type);
    EXPECT_LE(MessageSize(type), kMaxMessage) << static_cast<int>(type);
  }
}

// A receiver takes a packet for nothing when its type is not in the list: no other number may have a size.
TEST(ControlTest, NoOtherNumberHasASize) {
  const std::set<MessageType> known(std::begin(kAllTypes), std::end(kAllTypes));
  for (std::uint32_t number = 0; number <= UINT16_MAX; ++number) {
    const auto type = static_cast<MessageType>(number);
    EXPECT_EQ(MessageSize(type) != 0, known.contains(type)) << number;
  }
}

// What is on the wire, for the numbers that shims and agents of other versions were built with.
TEST(ControlTest, HeaderIsTheWireFormat) {
  const MessageHeader header = HeaderOf(MessageType::kGrant);
  EXPECT_EQ(header.magic, 0x56534341U);
  EXPECT_EQ(header.version, 1U);
  EXPECT_EQ(static_cast<std::uint16_t>(header.type), 66U);
}

}  // namespace
}  // namespace vsocket::channel
