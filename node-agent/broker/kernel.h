// The kernel as the broker asks it: seams, so that tests can answer in its place.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "node-agent/broker/endpoint.h"

namespace vsocket::broker {

enum class ProbeError : std::uint8_t {
  kNotTcp,        // not a TCP socket (MPTCP and everything else included)
  kNotConnected,  // a TCP socket without a peer
};

// Reads what a descriptor is. Never changes the socket and never blocks: the descriptor comes from a pod.
class SocketProbe {
 public:
  virtual ~SocketProbe() = default;
  virtual Result<TcpSocket, ProbeError> Read(int fd) = 0;
  // True for a UNIX stream socket, whose sends can be told never to block, and nothing else.
  virtual bool IsWakeSocket(int fd) = 0;
};

// The TCP sockets of one network namespace by sock_diag(7). Thread safety: none.
class PodSockets {
 public:
  virtual ~PodSockets() = default;
  // Every connected TCP socket that is not on its way out (IsLive), of IPv4 and IPv6. Empty when the kernel fails the request.
  virtual std::vector<TcpSocket> Connections() = 0;
  // The socket with exactly this tuple and cookie; nullopt when there is none (any more).
  virtual std::optional<TcpSocket> Find(const Tuple& tuple, std::uint64_t cookie) = 0;
  virtual bool Listens(const Endpoint& local) = 0;
  // SOCK_DESTROY: the program sees ECONNABORTED, the other end a RST. False when there was no such socket or the kernel cannot.
  virtual bool Destroy(const Tuple& tuple, std::uint64_t cookie) = 0;
};

// The product implementation of SocketProbe.
std::unique_ptr<SocketProbe> MakeSocketProbe();

}  // namespace vsocket::broker
