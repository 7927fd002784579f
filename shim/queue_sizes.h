// How many bytes wait where, as a program that asks the kernel (FIONREAD, SIOCOUTQ, TCP_INFO) means it: payload, whichever way it goes,
// each byte once, and no frames of ours.
//
// An answer is a moment's: both ends go on. Thread safety: any thread; takes the Sock's locks.
#pragma once

#include <cstdint>

#include "shim/sock.h"

namespace vsocket::shim {

// Bytes that receives would return without waiting. The connection is attached; where it is not any more, the kernel's count.
std::uint64_t ReadableBytes(SockRef ref, int fd);

// Bytes sent and not taken by the peer (SIOCOUTQ), given the kernel's answer for its own queue.
std::uint64_t UntakenBytes(SockRef ref, std::uint64_t in_kernel);

// Stream positions, payload only (tcp(7), struct tcp_info). False: this connection never had a channel; the kernel's counts are right.
struct StreamCounts {
  std::uint64_t sent;      // left this end
  std::uint64_t acked;     // of these, has reached the other end
  std::uint64_t unsent;    // accepted from the program, still here
  std::uint64_t received;  // has reached this end, read or not
};
bool CountStream(SockRef ref, int fd, StreamCounts* counts);

}  // namespace vsocket::shim
