// A sender with a bandwidth limit that has used up what the agent has granted (channel/grant.h): asks, and sleeps for a time.
//
// A direction without a limit never comes here: the data path compares its position with a word that it has loaded already.
#pragma once

#include "channel/grant.h"
#include "shim/stream.h"

namespace vsocket::shim {

// Bytes that this side may publish now, as far as its limit goes.
[[nodiscard]] inline std::uint64_t MayPublish(const Sock* sock, const Channel& ch) {
  return channel::MayPublish(ch.slot->grant[sock->side & 1], sock->out.pos);
}

[[nodiscard]] inline bool HasLimit(const Sock* sock, const Channel& ch) {
  return channel::HasLimit(ch.slot->grant[sock->side & 1]);
}

// kRing, and the ring is full. Until the receiver can ring this side, a sender with a limit sleeps for a time (SleepForGrant) and looks
// again: TCP, where others go then, would carry it past its limit.
[[nodiscard]] inline bool LooksForRoom(const Sock* sock, const Channel& ch) {
  return HasLimit(sock, ch) && sock->framed.load(std::memory_order_relaxed) == 0 && sock->fin_seen.load(std::memory_order_relaxed) == 0;
}

// tx_lock, kRing, MayPublish is 0. Sees to it that the agent knows, which is asked at most once in some milliseconds.
enum class Grant : std::uint8_t {
  kHere,  // granted meanwhile
  kWait,
  kLeft,  // nobody grants anything any more: the direction leaves the ring, for TCP, where whatever limits the pod's interface holds
};
Grant AwaitGrant(Sock* sock, int fd, const Channel& ch);

// tx_lock, MayPublish is 0. Would anybody grant more on the ring?
[[nodiscard]] bool MayHopeForGrant(const Sock* sock, const Channel& ch);

// No lock, no system call: would a send look for its grant, or for room, from time to time? Spinning would not bring it, nor does anybody
// ring.
[[nodiscard]] bool AwaitsGrant(const Sock* sock);

// tx_lock, kWait or LooksForRoom. The next sleep of this thread is to end in time for another look.
void SleepForGrant(Sock* sock, const Channel& ch);

// How long that sleep may be, once; kNoGrantAwaited: for ever.
inline constexpr std::uint64_t kNoGrantAwaited = UINT64_MAX;
[[nodiscard]] std::uint64_t TakeGrantSleep();

}  // namespace vsocket::shim
