// A TCP connection of a local pod as vsocketctl shows it.
#pragma once

#include <cstdint>
#include <string>

#include "node-agent/model/ip_address.h"

namespace vsocket::model {

enum class ConnectionState : std::uint8_t { kTcp, kUpgrading, kRing };

struct ConnectionInfo {
  std::string pod;  // "ns/name"
  std::string pod_uid;
  std::string program;   // as the shim said in HELLO; empty: unknown
  std::int32_t pid = 0;  // in the agent's pid namespace; 0: unknown
  IpAddress local;
  std::uint16_t local_port = 0;
  IpAddress remote;
  std::uint16_t remote_port = 0;
  std::string remote_pod;    // "ns/name" when it is a pod of this node
  std::uint64_t cookie = 0;  // SO_COOKIE
  ConnectionState state = ConnectionState::kTcp;
  std::uint64_t tcp_sent = 0, tcp_received = 0;    // payload and frame bytes on the kernel path
  std::uint64_t ring_sent = 0, ring_received = 0;  // bytes on rings
  std::string limited_by;                          // "egress-bandwidth 10M" of what this end sends; empty: no limit, or not on a ring
  std::uint16_t reason = 0;                        // channel::Reason when state is not kRing
};

}  // namespace vsocket::model
