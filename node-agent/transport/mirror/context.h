// What the two halves of a connection use of the link that they belong to, and where the connection is.
#pragma once

#include <cstdint>
#include <vector>

#include "channel/layout.h"
#include "channel/wake.h"
#include "node-agent/transport/mirror/counters.h"
#include "node-agent/transport/mirror/host.h"
#include "node-agent/transport/mirror/lane_queue.h"
#include "node-agent/transport/mirror/options.h"
#include "node-agent/transport/mirror/ring_memory.h"
#include "node-agent/transport/mirror/wire.h"

namespace vsocket::transport {

struct ConnectionSpec {
  std::uint16_t number = 0;       // < kMaxConnections; the same at both agents
  std::uint32_t epoch = 0;        // the same at both agents; another one for each use of the number
  RingMemory* memory = nullptr;   // outlives the connection
  std::uint32_t slot = 0;         // < kSlots
  std::uint32_t wake_target = 0;  // the agent's own wake object, one for a region: kFirstWakeFd + i
  std::uint32_t path = 0;         // not 0; another one for each link that the slot's connection has had
  std::uint64_t far_ring = 0;     // the far side's receiving ring, in its agent's addresses
  std::uint32_t far_key = 0;      // ... and the key for it
};

struct LinkContext {
  std::array<LaneQueue*, 2> lanes{};       // small, bulk
  std::vector<Record>* control = nullptr;  // records to be sent
  MirrorHost* host = nullptr;
  MirrorCounters* counters = nullptr;
  const MirrorOptions* options = nullptr;
  std::uint64_t far_board = 0;  // position cells of the far agent, by connection
  std::uint32_t far_board_key = 0;
  std::uint64_t now_ns = 0;
};

// The words of one connection as its agent uses them. Those of `pod` are the pod's, and untrusted; those of `far` are stored here only
// (the pod could, to its own harm).
struct ConnectionWords {
  channel::SideWords* pod = nullptr;
  channel::SideWords* far = nullptr;
};

// Rings the pod if it has armed `word`.
inline void WakeWaiter(LinkContext& link, std::uint16_t connection, std::atomic<std::uint32_t>& word) {
  const std::uint32_t target = channel::TakeWaiter(word);
  if (target == channel::kNobody) return;
  ++link.counters->pod_wakes;
  link.host->WakePod(connection, target);
}

}  // namespace vsocket::transport
