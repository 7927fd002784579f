// Who opened a connection: a NetworkPolicy judges initiator -> listener, and the kernel does not say which end connected.
//
// In this order, each only when the ones before leave it open:
// 1. An end whose local port has a listener in its namespace is the server.
// 2. tcp_info: tcpi_bytes_acked counts the SYN on the side that sent it. When one side's acknowledged bytes, read first, exceed what the
//    other has received, read later, that side sent the SYN (RFC 9293: both ends count the same stream).
// 3. An end with a local port in the ephemeral range (ip_local_port_range's usual 32768 and up), the other without, is the client.
// 4. The end with the higher port is the client.
// A pod that plays with this reverses the direction of its own flow only; the packet filter in its namespace still judges SYNs.
#pragma once

#include "node-agent/broker/endpoint.h"
#include "node-agent/model/verdict.h"

namespace vsocket::broker {

// What is known of one end.
struct EndEvidence {
  bool listens = false;
  bool counted = false;  // the two byte counts are valid
  std::uint64_t bytes_acked = 0, bytes_received = 0;
};

// `tuple` is that of end `a`; `a` was read before `b`. True: `a` opened the connection.
bool FirstEndOpened(const Tuple& tuple, const EndEvidence& a, const EndEvidence& b);

// The flow that the policy is asked about.
model::Flow FlowOf(const Tuple& tuple, bool local_opened);

}  // namespace vsocket::broker
