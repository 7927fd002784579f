// What one pod may exchange with whom, flattened to addresses: policy/ computes it from a snapshot, enforce/ turns it into nftables rules.
// It says no more and no less than the evaluator does for that pod's own side; the other end's side is judged where that pod runs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/model/address_range.h"
#include "node-agent/model/cluster.h"

namespace vsocket::model {

// One permission. Ports are the destination's: the pod's own for ingress, the remote's for egress. Inclusive.
struct AllowEntry {
  AddressRange remote;
  std::optional<Protocol> protocol;  // nothing: every protocol and port, and first_port..last_port is 0..65535
  std::uint16_t first_port = 0;
  std::uint16_t last_port = 65535;
  auto operator<=>(const AllowEntry&) const = default;
};

struct DirectionAllowList {
  bool isolated = false;            // false: everything is allowed and `entries` is empty
  std::vector<AllowEntry> entries;  // sorted, without duplicates; they may overlap
  bool operator==(const DirectionAllowList&) const = default;
};

struct AllowList {
  std::string pod;  // "ns/name"
  DirectionAllowList ingress;
  DirectionAllowList egress;
  std::vector<IpAddress> node_addresses;  // always allowed in (kubelet probes); sorted
  bool operator==(const AllowList&) const = default;
};

}  // namespace vsocket::model
