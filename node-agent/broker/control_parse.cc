#include "node-agent/broker/control_parse.h"

#include <cstring>

#include "base/untrusted.h"

namespace vsocket::broker {
namespace {

using channel::MessageType;

// Descriptors that each request carries.
constexpr std::size_t FdsOf(MessageType type) {
  switch (type) {
    case MessageType::kUpgrade:
    case MessageType::kWakeOffer:
      return 1;
    case MessageType::kReattach:
      return 2;
    default:
      return 0;
  }
}

constexpr bool IsRequest(MessageType type) {
  return type >= MessageType::kHello && type <= MessageType::kAskGrant && channel::MessageSize(type) != 0;
}

template <typename T>
T Copy(std::span<const std::byte> packet) {
  T message;
  std::memcpy(&message, packet.data(), sizeof message);
  return message;
}

bool InRange(const channel::ChannelRef& ref) {
  std::uint32_t ignored = 0;
  return Untrusted(ref.slot).Within(0, channel::kSlots - 1, &ignored) && !Untrusted(ref.epoch).Is(0) &&
         Untrusted(ref.side).Within(0, 1, &ignored);
}
bool InRange(const channel::WakeRef& ref) {
  std::uint32_t ignored = 0;
  return Untrusted(ref.side).Within(0, 1, &ignored) && Untrusted(ref.index).Within(0, channel::kWakeFdsPerSide - 1, &ignored);
}

template <typename Message>
Result<ShimMessage, ParseError> Wake(std::span<const std::byte> packet) {
  Message message;
  static_cast<channel::WakeRef&>(message) = Copy<channel::WakeRef>(packet);
  if (!InRange(message)) return Failure(ParseError::kRange);
  return ShimMessage(message);
}

template <typename Message>
Result<ShimMessage, ParseError> WithChannel(std::span<const std::byte> packet) {
  const auto message = Copy<Message>(packet);
  if (!InRange(message.channel)) return Failure(ParseError::kRange);
  return ShimMessage(message);
}

}  // namespace

const char* ParseErrorText(ParseError error) {
  switch (error) {
    case ParseError::kTooShort:
      return "shorter than a header";
    case ParseError::kMagic:
      return "not a vsocket control message";
    case ParseError::kVersion:
      return "another protocol version";
    case ParseError::kUnknownType:
      return "unknown message type";
    case ParseError::kSize:
      return "wrong size for its type";
    case ParseError::kFdCount:
      return "wrong number of descriptors for its type";
    case ParseError::kRange:
      return "a member is out of range";
  }
  return "malformed";
}

Result<ShimMessage, ParseError> ParseShimMessage(std::span<const std::byte> packet, std::size_t fds) {
  if (packet.size() < sizeof(channel::MessageHeader)) return Failure(ParseError::kTooShort);
  const auto header = Copy<channel::MessageHeader>(packet);
  if (header.magic != channel::kControlMagic) return Failure(ParseError::kMagic);
  // Before type and size: another version may have other ones.
  if (header.version != channel::kControlVersion) return Failure(ParseError::kVersion);
  if (!IsRequest(header.type)) return Failure(ParseError::kUnknownType);
  if (packet.size() != channel::MessageSize(header.type)) return Failure(ParseError::kSize);
  if (fds != FdsOf(header.type)) return Failure(ParseError::kFdCount);
  switch (header.type) {
    case MessageType::kHello:
      return ShimMessage(Copy<channel::Hello>(packet));
    case MessageType::kUpgrade:
      return ShimMessage(Copy<channel::Upgrade>(packet));
    case MessageType::kRelease:
      return WithChannel<channel::Release>(packet);
    case MessageType::kReattach:
      return WithChannel<channel::Reattach>(packet);
    case MessageType::kCancel:
      return ShimMessage(Copy<channel::Cancel>(packet));
    case MessageType::kNote:
      return ShimMessage(Copy<channel::Note>(packet));
    case MessageType::kWakeOffer:
      return Wake<WakeOffer>(packet);
    case MessageType::kWakeWant:
      return Wake<WakeWant>(packet);
    case MessageType::kAskGrant:
      return WithChannel<channel::AskGrant>(packet);
    default:
      return Failure(ParseError::kUnknownType);
  }
}

}  // namespace vsocket::broker
