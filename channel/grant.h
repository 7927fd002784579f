// The grant: how far a sender with a bandwidth limit may publish in its ring. Stream positions, as everywhere; only the agent moves it.
//
//   grant     bytes below this position may be published; stored inverted, so that zeroed memory means: no limit
//   pace_us   how long a sender that has used its grant up does well to sleep before it looks again, while it is watched
//   watched   kWatched: the agent looks at this direction by itself and grants more; kUnwatched: it has to be asked; kNoMore: the
//             sender is to leave the ring for TCP as soon as it has used its grant up, and not to come back while this stands
//
// A sender at its grant has no room, as with a full ring. It sleeps for a time instead of for a bell: a limit is a matter of time, and an
// agent that dies rings nobody. An agent that has seen nothing new for a while stops looking, so that an idle node sleeps:
//
//   sender                                   agent
//   G1 tail = grant              (release)   W1 watched = kUnwatched    (relaxed)
//   G2 SleepWakeFence                        W2 SleepWakeFence
//   G3 granted more? -> go on                W3 tail has moved? -> watched = kWatched, look on
//   G4 watched? -> sleep; else ask, sleep
//
// The fences pair as in wake.h: either W3 sees G1, or G4 sees W1. test/models/grant.pml checks this.
//
// An agent may take back what an idle sender has not used. The sender that has loaded the old grant meanwhile may use it: the agent counts
// that against the limit, and holds it against nobody.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/untrusted.h"

namespace vsocket::channel {

enum GrantWatch : std::uint32_t { kUnwatched = 0, kWatched = 1, kNoMore = 2 };

inline constexpr std::uint32_t kMinPaceUs = 1000;
inline constexpr std::uint32_t kMaxPaceUs = 64000;

// Its own inverse.
constexpr std::uint64_t GrantWord(std::uint64_t position) {
  return ~position;
}

[[nodiscard]] inline bool HasLimit(const std::atomic<std::uint64_t>& grant) {
  return grant.load(std::memory_order_relaxed) != 0;
}

// Bytes that a sender at `pos` may publish now. Relaxed: the word orders nothing.
[[nodiscard]] inline std::uint64_t MayPublish(const std::atomic<std::uint64_t>& grant, std::uint64_t pos) {
  const std::uint64_t granted = GrantWord(grant.load(std::memory_order_relaxed));
  return granted > pos ? granted - pos : 0;
}

// The other end can write the word too: any value is good for a sleep.
[[nodiscard]] inline std::uint64_t PaceNs(const std::atomic<std::uint32_t>& pace_us) {
  return std::uint64_t{LoadUntrusted(pace_us, std::memory_order_relaxed).ClampedTo(kMinPaceUs, kMaxPaceUs)} * 1000;
}

}  // namespace vsocket::channel
