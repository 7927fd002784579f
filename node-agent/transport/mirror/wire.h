// What crosses between two agents on their queue pairs: immediate data and control messages. Pure.
//
// The far agent may be anybody, so everything here is parsed as hostile: a message is either well formed in every part or refused as a
// whole, and positions are only ever moved forward and within a ring (Inbound, Outbound bound them further).
//
//   immediate data   32 bits: connection << 20 | low 20 bits of the new tail. It says both whose ring has grown and how far, so that a
//                    message costs one request. A tail is at most a ring (2^18) ahead of what is known; any other is old news.
//   position cell    16 bytes in the far agent's board: the tail and its complement, for connections whose far side polls. Two words,
//                    because nothing promises that a device writes 16 or even 8 bytes in one piece: a cell that does not match is
//                    looked at again.
//   control message  a header and up to 7 records of 32 bytes, host byte order on both sides (x86-64 and arm64 are little endian).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "channel/layout.h"

namespace vsocket::transport {

inline constexpr std::uint32_t kConnectionBits = 12;
inline constexpr std::uint32_t kMaxConnections = 1U << kConnectionBits;  // of a pair of nodes
inline constexpr std::uint32_t kPositionBits = 32 - kConnectionBits;
static_assert(channel::kRingMax < (1ULL << kPositionBits) / 2, "ahead and behind must be told apart");

constexpr std::uint32_t EncodeImmediate(std::uint32_t connection, std::uint64_t position) {
  return connection << kPositionBits | static_cast<std::uint32_t>(position & ((1ULL << kPositionBits) - 1));
}
constexpr std::uint32_t ConnectionOf(std::uint32_t immediate) {
  return immediate >> kPositionBits;
}
// The position that is meant, when `known` is the last one: at most a ring further, or `known` itself.
constexpr std::uint64_t PositionOf(std::uint32_t immediate, std::uint64_t known) {
  constexpr std::uint64_t kMask = (1ULL << kPositionBits) - 1;
  const std::uint64_t ahead = (immediate - known) & kMask;
  return ahead <= channel::kRingMax ? known + ahead : known;
}

struct PositionCell {
  std::uint64_t position;
  std::uint64_t complement;
};
static_assert(sizeof(PositionCell) == 16);

enum class Lane : std::uint8_t { kSmall = 0, kBulk = 1, kControl = 2 };
inline constexpr std::size_t kLanes = 3;

enum class RecordType : std::uint16_t {
  kPropose = 1,    // small[0] generation, small[1] marker | capacity_log2 << 8, large[0] start
  kCommit = 2,     // small[0] generation: the proposal is where the receiver looks
  kState = 3,      // of the direction that comes to the sender of this: small[0] finished, small[1] wants_tcp, large[0] head,
                   // large[1] attached
  kResize = 4,     // small[0] capacity_log2, small[1] generation, large[0] the position from which it holds; everything below is read
  kResized = 5,    // small[0] capacity_log2, small[1] generation
  kQuiet = 6,      // immediate data is not needed: this side polls
  kNotify = 7,     // ... it is
  kAskEnd = 8,     // where does the stream that comes to me end?
  kTellEnd = 9,    // small[0] EofAnswer, small[1] generation, large[0] position
  kWantBell = 10,  // the receiver sleeps where only a byte by TCP wakes it
  kClose = 11,     // nothing more comes for this connection
  kPing = 12,      // small[0] number; connection 0
  kPong = 13,
};
inline constexpr std::uint16_t kLastRecordType = 13;

struct Record {
  RecordType type = RecordType::kPing;
  std::uint16_t connection = 0;  // < kMaxConnections
  std::uint32_t epoch = 0;       // which connection of that number
  std::array<std::uint32_t, 2> small{};
  std::array<std::uint64_t, 2> large{};
};

struct ControlHeader {
  std::uint32_t magic = 0;
  std::uint16_t version = 0;
  std::uint16_t records = 0;
  // Receives of each lane that this side has posted anew after using them, since the beginning; wraps.
  std::array<std::uint32_t, kLanes> reposted{};
  std::uint32_t reserved = 0;
};

inline constexpr std::uint32_t kWireMagic = 0x56534d31;  // "VSM1"
inline constexpr std::uint16_t kWireVersion = 1;
inline constexpr std::size_t kMaxRecords = 7;
inline constexpr std::size_t kControlBytes = sizeof(ControlHeader) + kMaxRecords * sizeof(Record);

static_assert(sizeof(Record) == 32 && offsetof(Record, epoch) == 4 && offsetof(Record, small) == 8 && offsetof(Record, large) == 16);
static_assert(sizeof(ControlHeader) == 24 && offsetof(ControlHeader, reposted) == 8);
static_assert(std::is_trivially_copyable_v<Record> && std::is_trivially_copyable_v<ControlHeader> && kControlBytes == 248);

struct ControlMessage {
  ControlHeader header;
  std::array<Record, kMaxRecords> records;  // the first header.records of them
};

// Into `to`; its size. Requires message.header.records <= kMaxRecords. Fills in magic and version.
std::size_t EncodeControl(ControlMessage& message, std::span<std::byte, kControlBytes> to);
// False: not a message of this version, or a part of it is impossible.
[[nodiscard]] bool DecodeControl(std::span<const std::byte> from, ControlMessage* message);

}  // namespace vsocket::transport
