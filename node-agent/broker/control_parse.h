// Bytes from a pod into a message, or the reason why not. A pure function: what hostile input can do ends here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>

#include "base/result.h"
#include "channel/control.h"
#include "channel/layout.h"

namespace vsocket::broker {

enum class ParseError : std::uint8_t {
  kTooShort,     // not even a header
  kMagic,        // not of this protocol
  kVersion,      // of this protocol, another version
  kUnknownType,  // or one that only the agent may send
  kSize,         // not the type's exact size
  kFdCount,      // not the type's number of descriptors
  kRange,        // a member outside its bounds
};

const char* ParseErrorText(ParseError error);

struct WakeOffer : channel::WakeRef {};
struct WakeWant : channel::WakeRef {};

// Every index inside has been checked: slot < kSlots, epoch != 0, side < 2, index < kWakeFdsPerSide. Cookies and ids are only names to
// compare with what the kernel says.
using ShimMessage = std::variant<channel::Hello, channel::Upgrade, channel::Release, channel::Reattach, channel::Cancel, channel::Note,
                                 WakeOffer, WakeWant, channel::AskGrant>;

// `packet` is one SOCK_SEQPACKET packet, `fds` the number of descriptors that came with it.
Result<ShimMessage, ParseError> ParseShimMessage(std::span<const std::byte> packet, std::size_t fds);

}  // namespace vsocket::broker
