// Allow entries as the elements of nftables sets: disjoint, because a set of intervals refuses overlaps.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "node-agent/model/allow_list.h"

namespace vsocket::enforce {

struct PortElement {
  model::AddressRange remote;
  model::Protocol protocol = model::Protocol::kTcp;
  std::uint16_t first_port = 0;
  std::uint16_t last_port = 0;
  auto operator<=>(const PortElement&) const = default;
};

// Of one address family.
struct ElementSets {
  std::vector<model::AddressRange> any;  // every protocol and port; sorted, disjoint
  std::vector<PortElement> ports;        // no two cover the same (address, protocol, port)
  bool operator==(const ElementSets&) const = default;
};

// The same permissions as `entries` of that family. Entries that an `any` range covers are left out of `ports`.
ElementSets Disjoint(const std::vector<model::AllowEntry>& entries, bool ipv4);

}  // namespace vsocket::enforce
