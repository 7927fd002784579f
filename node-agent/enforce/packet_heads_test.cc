#include "node-agent/enforce/packet_heads.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <vector>

namespace vsocket::enforce {
namespace {

using Packet = std::vector<std::byte>;

Packet Of(std::initializer_list<int> bytes) {
  Packet packet;
  for (const int byte : bytes) packet.push_back(static_cast<std::byte>(byte));
  return packet;
}
void Append(Packet& packet, const Packet& more) {
  packet.insert(packet.end(), more.begin(), more.end());
}

// 10.0.0.1 -> 10.0.0.2, without ports.
Packet V4(int protocol, int words = 5, int fragment = 0) {
  Packet packet = Of({0x40 + words, 0, 0, 40, 0, 0, fragment >> 8, fragment & 0xFF, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2});
  packet.resize(static_cast<std::size_t>(words) * 4);
  return packet;
}
// fd00::1 -> fd00::2
Packet V6(int next) {
  Packet packet = Of({0x60, 0, 0, 0, 0, 20, next, 64});
  for (const int last : {1, 2}) Append(packet, Of({0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last}));
  return packet;
}
const Packet kPorts = Of({0x9C, 0x40, 0x18, 0xEB});  // 40000 -> 6379

std::string Read(Packet packet, const Packet& more = {}) {
  Append(packet, more);
  const auto heads = ReadHeads(packet);
  if (!heads) return "nothing";
  const char* protocol = heads->protocol == model::Protocol::kTcp ? "tcp" : heads->protocol == model::Protocol::kUdp ? "udp" : "sctp";
  return heads->source.ToString() + " " + std::to_string(heads->source_port) + " " + heads->destination.ToString() + " " +
         std::to_string(heads->destination_port) + " " + protocol;
}

TEST(PacketHeads, BothFamiliesAndTheThreeProtocols) {
  EXPECT_EQ(Read(V4(6), kPorts), "10.0.0.1 40000 10.0.0.2 6379 tcp");
  EXPECT_EQ(Read(V4(17), kPorts), "10.0.0.1 40000 10.0.0.2 6379 udp");
  EXPECT_EQ(Read(V4(132), kPorts), "10.0.0.1 40000 10.0.0.2 6379 sctp");
  EXPECT_EQ(Read(V6(6), kPorts), "fd00::1 40000 fd00::2 6379 tcp");
  EXPECT_EQ(Read(V4(1), kPorts), "nothing");
  EXPECT_EQ(Read(V6(58), kPorts), "nothing");
}

TEST(PacketHeads, OptionsAreSkipped) {
  EXPECT_EQ(Read(V4(6, 15), kPorts), "10.0.0.1 40000 10.0.0.2 6379 tcp");
  EXPECT_EQ(Read(V4(6, 4), kPorts), "nothing");  // a header shorter than a header
}

TEST(PacketHeads, ExtensionHeadersAreSkippedUpToABound) {
  const Packet options = Of({60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});  // 16 bytes, then destination options
  Packet last = options;
  last[0] = static_cast<std::byte>(17);
  Packet packet = V6(0);
  Append(packet, options);
  Append(packet, last);
  EXPECT_EQ(Read(packet, kPorts), "fd00::1 40000 fd00::2 6379 udp");
  Packet many = V6(60);
  for (int i = 0; i < 30; ++i) Append(many, options);
  Append(many, last);
  EXPECT_EQ(Read(many, kPorts), "nothing");
}

TEST(PacketHeads, OnlyTheFirstFragmentHasPorts) {
  EXPECT_EQ(Read(V4(17, 5, 0x2000), kPorts), "10.0.0.1 40000 10.0.0.2 6379 udp");  // more follow
  EXPECT_EQ(Read(V4(17, 5, 0x0001), kPorts), "nothing");
  Packet first = V6(44);
  Append(first, Of({17, 0, 0, 1, 0, 0, 0, 0}));
  EXPECT_EQ(Read(first, kPorts), "fd00::1 40000 fd00::2 6379 udp");
  Packet later = V6(44);
  Append(later, Of({17, 0, 0, 8, 0, 0, 0, 0}));
  EXPECT_EQ(Read(later, kPorts), "nothing");
}

TEST(PacketHeads, NothingIsReadBehindTheEnd) {
  for (const Packet& whole : {V4(6, 6), V6(6)}) {
    Packet packet = whole;
    Append(packet, kPorts);
    for (std::size_t size = 0; size < packet.size(); ++size) EXPECT_FALSE(ReadHeads({packet.data(), size})) << size;
    EXPECT_TRUE(ReadHeads(packet));
  }
}

}  // namespace
}  // namespace vsocket::enforce
