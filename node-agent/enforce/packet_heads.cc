#include "node-agent/enforce/packet_heads.h"

#include <netinet/in.h>

#include <algorithm>
#include <array>

namespace vsocket::enforce {
namespace {

constexpr int kMostExtensions = 8;
constexpr std::uint8_t kFragmentHeader = 44;

std::uint8_t Byte(std::span<const std::byte> packet, std::size_t at) {
  return std::to_integer<std::uint8_t>(packet[at]);
}
std::uint16_t Word(std::span<const std::byte> packet, std::size_t at) {
  return static_cast<std::uint16_t>(Byte(packet, at) << 8 | Byte(packet, at + 1));
}

template <std::size_t kSize>
std::array<std::uint8_t, kSize> Bytes(std::span<const std::byte> packet, std::size_t at) {
  std::array<std::uint8_t, kSize> bytes{};
  for (std::size_t i = 0; i < kSize; ++i) bytes[i] = Byte(packet, at + i);
  return bytes;
}

// `rest` begins with the transport's header. All three begin with the two ports (RFC 9293, 768, 9260).
std::optional<PacketHeads> ReadPorts(PacketHeads heads, std::uint8_t protocol, std::span<const std::byte> rest) {
  switch (protocol) {
    case IPPROTO_TCP:
      heads.protocol = model::Protocol::kTcp;
      break;
    case IPPROTO_UDP:
      heads.protocol = model::Protocol::kUdp;
      break;
    case IPPROTO_SCTP:
      heads.protocol = model::Protocol::kSctp;
      break;
    default:
      return std::nullopt;
  }
  if (rest.size() < 4) return std::nullopt;
  heads.source_port = Word(rest, 0);
  heads.destination_port = Word(rest, 2);
  return heads;
}

std::optional<PacketHeads> ReadV4(std::span<const std::byte> packet) {
  if (packet.size() < 20) return std::nullopt;
  const std::size_t header = 4U * (Byte(packet, 0) & 0xFU);
  const bool later_fragment = (Word(packet, 6) & 0x1FFFU) != 0;
  if (header < 20 || header > packet.size() || later_fragment) return std::nullopt;
  PacketHeads heads;
  heads.source = model::IpAddress::V4(Bytes<4>(packet, 12));
  heads.destination = model::IpAddress::V4(Bytes<4>(packet, 16));
  return ReadPorts(heads, Byte(packet, 9), packet.subspan(header));
}

std::optional<PacketHeads> ReadV6(std::span<const std::byte> packet) {
  if (packet.size() < 40) return std::nullopt;
  PacketHeads heads;
  heads.source = model::IpAddress::V6(Bytes<16>(packet, 8));
  heads.destination = model::IpAddress::V6(Bytes<16>(packet, 24));
  std::uint8_t next = Byte(packet, 6);
  std::span<const std::byte> rest = packet.subspan(40);
  for (int i = 0; i <= kMostExtensions; ++i) {
    if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS && next != kFragmentHeader) {
      return ReadPorts(heads, next, rest);
    }
    if (rest.size() < 8) return std::nullopt;
    // The upper 13 bits are the offset.
    if (next == kFragmentHeader && (Word(rest, 2) & 0xFFF8U) != 0) return std::nullopt;
    const std::size_t size = next == kFragmentHeader ? 8 : 8U + 8U * Byte(rest, 1);
    next = Byte(rest, 0);
    if (size > rest.size()) return std::nullopt;
    rest = rest.subspan(size);
  }
  return std::nullopt;
}

}  // namespace

std::optional<PacketHeads> ReadHeads(std::span<const std::byte> packet) {
  if (packet.empty()) return std::nullopt;
  const unsigned version = Byte(packet, 0) >> 4U;
  return version == 4 ? ReadV4(packet) : version == 6 ? ReadV6(packet) : std::nullopt;
}

}  // namespace vsocket::enforce
