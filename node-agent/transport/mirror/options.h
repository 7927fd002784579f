// How a link between two agents behaves. Every value has a default that is meant to be left alone.
#pragma once

#include <array>
#include <cstdint>

#include "node-agent/transport/mirror/wire.h"

namespace vsocket::transport {

struct LaneOptions {
  std::uint32_t sends = 256;     // requests that may be posted and not known to be done
  std::uint32_t receives = 256;  // posted here, so that the far side may wake us that often before it hears from us
  std::uint32_t window_bytes = 256 * 1024;
  std::uint32_t quantum = 8 * 1024;  // bytes a connection may post before the next one's turn
};

struct MirrorOptions {
  std::array<LaneOptions, kLanes> lanes = {LaneOptions{256, 256, 128 * 1024, 8 * 1024}, LaneOptions{128, 128, 512 * 1024, 32 * 1024},
                                           LaneOptions{64, 64, 64 * 1024, 0}};
  std::uint32_t inline_bytes = 256;  // payload up to this is copied into the request, if the device can
  std::uint32_t signal_every = 16;   // a completion is asked for at least every so many requests
  std::uint32_t signal_bytes = 32 * 1024;
  std::uint32_t connection_window = 128 * 1024;           // bytes of one connection that may be posted and not known to be done
  std::uint32_t small_limit = 8 * 1024;                   // a connection with more than this to send goes by the bulk lane
  std::uint64_t lazy_credit_ns = 10ULL * 1000 * 1000;     // how long the far side may wait for a head that it hardly needs
  std::uint64_t ping_after_ns = 500ULL * 1000 * 1000;     // of silence behind something that the far agent has to do
  std::uint64_t ping_timeout_ns = 2000ULL * 1000 * 1000;  // then the link is given up
  std::uint64_t keepalive_ns = 2000ULL * 1000 * 1000;     // between two pings, while something is to come from the far side: a slow reader
  std::uint64_t spin_ns = 0;                              // how long the loop polls before it sleeps, at most; 0: never
};

}  // namespace vsocket::transport
