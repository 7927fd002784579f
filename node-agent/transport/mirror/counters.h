// What the mirror has done, for status pages and for the costs of a message. Plain sums since the link was made; they only grow.
#pragma once

#include <array>
#include <cstdint>

#include "node-agent/transport/mirror/wire.h"

namespace vsocket::transport {

struct LaneCounters {
  std::uint64_t posts = 0;        // send requests
  std::uint64_t doorbells = 0;    // calls that posted them
  std::uint64_t inlined = 0;      // of the posts: payload was copied into the request
  std::uint64_t signalled = 0;    // of the posts: asked for a completion
  std::uint64_t immediates = 0;   // of the posts: may wake the far agent
  std::uint64_t positions = 0;    // of the posts: a position cell, for a far agent that polls
  std::uint64_t completions = 0;  // of either kind
  std::uint64_t receives = 0;     // receive requests posted
};

struct MirrorCounters {
  std::array<LaneCounters, kLanes> lanes;
  std::uint64_t chunks_sent = 0;      // pieces of a ring that were written with one position
  std::uint64_t bytes_sent = 0;       // payload
  std::uint64_t inline_bytes = 0;     // of them: copied into requests by the processor. Nothing else is copied here
  std::uint64_t chunks_received = 0;  // positions that moved a ring's tail
  std::uint64_t bytes_received = 0;
  std::uint64_t control_sent = 0, control_received = 0;  // messages
  std::uint64_t credits_sent = 0;                        // records that told a head
  std::uint64_t pod_wakes = 0;                           // waiters of local pods that were rung
  std::uint64_t agent_wakes = 0;                         // times this agent was woken out of its sleep
  std::uint64_t polls = 0;                               // turns of the loop
  std::uint64_t proposals = 0, commits = 0, aborts = 0;  // of local senders
  std::uint64_t stalled_by_credit = 0;                   // a reader had no room: that connection alone waited
  std::uint64_t stalled_by_lane = 0;                     // a lane's window was full
  std::uint64_t pings = 0;
};

}  // namespace vsocket::transport
