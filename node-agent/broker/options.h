// What bounds the broker, and what it asks others. All values are per node agent, set once at start.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "channel/layout.h"
#include "node-agent/broker/event.h"
#include "node-agent/model/flow_event.h"
#include "node-agent/model/mapping_probe.h"
#include "node-agent/model/region_memory.h"
#include "node-agent/model/verdict.h"

namespace vsocket::broker {

// What one channel is charged for at each of its two pods: both rings at their largest and the slot's words. What it really costs is
// the pages it touches; the reservation bounds that.
inline constexpr std::uint64_t kChannelBytes = 2 * channel::kRingMax + sizeof(channel::SlotHeader);

struct Quota {
  std::uint32_t channels = 4096;     // of one pod, at the same time
  std::uint64_t bytes = 4ULL << 30;  // of kChannelBytes each
};

// Against floods. A well-behaved shim never meets them.
struct Limits {
  std::uint32_t processes_per_pod = 1024;    // control connections
  std::uint32_t pending_per_process = 4096;  // UPGRADEs without an answer
  std::uint32_t pending_per_pod = 16384;
  std::uint32_t notes_per_process = 4096;  // remembered reasons
  std::uint32_t wake_fds_per_pod = 4096;
  std::uint32_t unsent_per_process = 8192;  // answers that a shim has not read
};

// Against RELEASEs that got lost on the way (a shim does not wait for room in the socket's buffer).
struct SweepOptions {
  std::uint32_t channels_a_second = 32;  // looked at: each end is one question to the kernel
  // How long the kernel must not know the socket of a living process before its end is taken back. A program may hold a closed socket,
  // which the kernel does not list, and read what is left on the ring: nothing of it is touched, but the agent does not answer for it.
  std::uint64_t missing_ns = 30'000'000'000;
};

struct RevocationOptions {
  std::uint64_t deadline_ns = 1'000'000'000;  // from the cut until revoked memory must be unmapped by everybody
  bool strict = false;                        // kill who still maps it then
};

using VerdictFunction = std::function<model::Verdict(const model::Flow&)>;

struct BrokerOptions {
  Quota quota;
  Limits limits;
  std::uint64_t lease_ns = 10'000'000'000;
  SweepOptions sweep;
  RevocationOptions revocation;
  std::shared_ptr<model::RegionSource> regions = model::MakeSharedMemory();   // not null
  std::shared_ptr<model::MappingProbe> mappings = model::MakeMappingProbe();  // not null
  VerdictFunction verdict;                                                    // called on the broker's thread
  EventSink events;
  model::FlowRecorder flows;  // what a verdict let on a ring, kept off one, or cut; may be empty
};

}  // namespace vsocket::broker
