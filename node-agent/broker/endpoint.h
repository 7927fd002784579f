// TCP 4-tuples as values, and what the kernel says about one socket.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

#include "node-agent/model/ip_address.h"

namespace vsocket::broker {

struct Endpoint {
  model::IpAddress address;
  std::uint16_t port = 0;  // host byte order
  auto operator<=>(const Endpoint&) const = default;
  [[nodiscard]] std::string ToString() const {
    const std::string host = address.ToString();
    return (address.IsV4() ? host : "[" + host + "]") + ":" + std::to_string(port);
  }
};

struct Tuple {
  Endpoint local, remote;
  auto operator<=>(const Tuple&) const = default;
  [[nodiscard]] Tuple Mirror() const { return {remote, local}; }
  // Both ends have the same address, or loopback ones: the connection never leaves its network namespace.
  [[nodiscard]] bool StaysInNamespace() const { return local.address == remote.address || local.address.IsLoopback(); }
  [[nodiscard]] std::string ToString() const { return local.ToString() + " -> " + remote.ToString(); }
};

// Which two sockets are one connection: equal for the tuple of one end and the mirrored tuple of the other. A connection that stays in
// its namespace is told apart by the namespace, because 127.0.0.1 is in each of them.
struct FlowKey {
  Tuple tuple;
  std::uint64_t netns_cookie = 0;  // 0 when the tuple is unique on the node
  auto operator<=>(const FlowKey&) const = default;

  static FlowKey Of(const Tuple& tuple, std::uint64_t netns_cookie) { return {tuple, tuple.StaysInNamespace() ? netns_cookie : 0}; }
};

// tcp_states.h of the kernel (not in its UAPI); the same numbers as enum in <netinet/tcp.h>.
enum TcpState : std::uint8_t {
  kEstablished = 1,
  kFinWait1 = 4,
  kFinWait2 = 5,
  kCloseWait = 8,
  kLastAck = 9,
  kListen = 10,
  kClosing = 11,
};

// A process can still hold this end and move bytes on it.
constexpr bool IsLive(std::uint8_t state) {
  return state == kEstablished || state == kFinWait1 || state == kFinWait2 || state == kCloseWait;
}

struct TcpSocket {
  Tuple tuple;
  std::uint64_t cookie = 0;        // SO_COOKIE
  std::uint64_t netns_cookie = 0;  // SO_NETNS_COOKIE; 0 when read by sock_diag
  std::uint32_t inode = 0;         // by sock_diag only; 0: no process holds it any more
  std::uint8_t state = 0;          // TcpState
  std::uint64_t bytes_acked = 0;   // tcp_info; counts the SYN on the side that sent it
  std::uint64_t bytes_received = 0;
  std::uint32_t unacked = 0;  // by sock_diag only: bytes that the kernel has taken from the program and not delivered yet
};

}  // namespace vsocket::broker
