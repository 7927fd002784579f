// Addresses and ports of a packet that a rule has told of. The packet is a pod's or a stranger's, and cut short: nothing in it is trusted.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "node-agent/model/cluster.h"
#include "node-agent/model/ip_address.h"

namespace vsocket::enforce {

struct PacketHeads {
  model::IpAddress source, destination;
  std::uint16_t source_port = 0, destination_port = 0;
  model::Protocol protocol = model::Protocol::kTcp;
};

// `packet` begins with the IP header (RFC 791, RFC 8200). Nothing for other protocols than TCP, UDP and SCTP, for later fragments, for more
// than 8 extension headers, and for what is too short to tell.
std::optional<PacketHeads> ReadHeads(std::span<const std::byte> packet);

}  // namespace vsocket::enforce
