#include "node-agent/enforce/element_sets.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

namespace vsocket::enforce {
namespace {

using model::AllowEntry;
using model::IpAddress;
using model::Protocol;

IpAddress Ip(const std::string& text) {
  return IpAddress::Parse(text).value();
}
AllowEntry Entry(const char* first, const char* last, Protocol protocol, std::uint16_t from, std::uint16_t to) {
  return {{Ip(first), Ip(last)}, protocol, from, to};
}

TEST(ElementSetsTest, SplitsOverlapsAndJoinsNeighbours) {
  const auto sets = Disjoint({Entry("10.0.0.0", "10.0.0.9", Protocol::kTcp, 80, 90), Entry("10.0.0.5", "10.0.0.5", Protocol::kTcp, 85, 100),
                              Entry("10.0.0.10", "10.0.0.10", Protocol::kTcp, 80, 90)},
                             true);
  EXPECT_TRUE(sets.any.empty());
  const std::vector<PortElement> expected = {{{Ip("10.0.0.0"), Ip("10.0.0.4")}, Protocol::kTcp, 80, 90},
                                             {{Ip("10.0.0.5"), Ip("10.0.0.5")}, Protocol::kTcp, 80, 100},
                                             {{Ip("10.0.0.6"), Ip("10.0.0.10")}, Protocol::kTcp, 80, 90}};
  EXPECT_EQ(sets.ports, expected);
}

TEST(ElementSetsTest, WhatIsOpenAnywayNeedsNoPorts) {
  const auto sets =
      Disjoint({AllowEntry{{Ip("10.0.0.0"), Ip("10.0.0.255")}, {}, 0, 65535}, Entry("10.0.0.9", "10.0.1.1", Protocol::kUdp, 53, 53)}, true);
  EXPECT_EQ(sets.any.size(), 1u);
  ASSERT_EQ(sets.ports.size(), 1u);
  EXPECT_EQ(sets.ports[0].remote.first, Ip("10.0.1.0"));
}

TEST(ElementSetsTest, FamiliesApartAndUpToTheEndOfTheSpace) {
  const std::vector<AllowEntry> entries = {Entry("0.0.0.0", "255.255.255.255", Protocol::kTcp, 1, 2),
                                           Entry("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Protocol::kUdp, 3, 4)};
  const auto four = Disjoint(entries, true), six = Disjoint(entries, false);
  ASSERT_EQ(four.ports.size(), 1u);
  EXPECT_EQ(four.ports[0].remote, (model::AddressRange{Ip("0.0.0.0"), Ip("255.255.255.255")}));
  ASSERT_EQ(six.ports.size(), 1u);
  EXPECT_EQ(six.ports[0].remote.last, Ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
}

bool Covers(const ElementSets& sets, const IpAddress& ip, Protocol protocol, unsigned port, int* times) {
  *times = static_cast<int>(std::count_if(sets.ports.begin(), sets.ports.end(), [&](const PortElement& element) {
    return element.remote.Contains(ip) && element.protocol == protocol && element.first_port <= port && port <= element.last_port;
  }));
  return *times > 0 || std::any_of(sets.any.begin(), sets.any.end(), [&](const model::AddressRange& range) { return range.Contains(ip); });
}

// Same permissions, no point covered twice: an nftables interval set refuses overlaps.
TEST(ElementSetsTest, RandomEntriesKeepTheirMeaning) {
  const char* text = std::getenv("VSOCKET_SEED");
  const std::uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 10) : std::random_device()();
  std::mt19937 random(static_cast<std::mt19937::result_type>(seed));
  const auto address = [](bool ipv4, unsigned host) {
    return ipv4 ? IpAddress::V4({255, 255, 255, static_cast<std::uint8_t>(224 + host)}) : Ip("fd00::" + std::to_string(host));
  };
  for (int round = 0; round < 300; ++round) {
    const bool ipv4 = random() % 2 == 0;
    std::vector<AllowEntry> entries(random() % 10);
    for (AllowEntry& entry : entries) {
      const auto a = static_cast<unsigned>(random() % 10), b = static_cast<unsigned>(random() % 10);
      entry.remote = {address(ipv4, std::min(a, b)), address(ipv4, std::max(a, b))};
      if (random() % 8 == 0) continue;
      entry.protocol = static_cast<Protocol>(random() % 3);
      entry.first_port = static_cast<std::uint16_t>(random() % 8);
      entry.last_port = static_cast<std::uint16_t>(entry.first_port + random() % 4);
    }
    const ElementSets sets = Disjoint(entries, ipv4);
    for (unsigned host = 0; host < 11; ++host) {
      for (unsigned port = 0; port < 12; ++port) {
        for (const Protocol protocol : {Protocol::kTcp, Protocol::kUdp, Protocol::kSctp}) {
          const IpAddress ip = address(ipv4, host);
          const bool wanted = std::any_of(entries.begin(), entries.end(), [&](const AllowEntry& entry) {
            return entry.remote.Contains(ip) &&
                   (!entry.protocol || (*entry.protocol == protocol && entry.first_port <= port && port <= entry.last_port));
          });
          int times = 0;
          ASSERT_EQ(Covers(sets, ip, protocol, port, &times), wanted) << "VSOCKET_SEED=" << seed << " round " << round;
          ASSERT_LE(times, 1) << "VSOCKET_SEED=" << seed << " round " << round;
        }
      }
    }
  }
}

}  // namespace
}  // namespace vsocket::enforce
