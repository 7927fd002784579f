// The fast doorbell: wake objects that the peer's process rings instead of sending a byte by TCP.
//
// A wake object is a UNIX stream socket pair: the waiter keeps one end, the peer gets the other. Unlike an eventfd, neither end can drain
// the other or, by changing file flags, make a write to it block (every send and receive says MSG_DONTWAIT). A waiter (a thread, or an
// epoll set) has one a region, so one peer never holds another's. It is offered to the agent under an index of this side of the region; a
// peer that finds that index armed asks the agent for it once, and uses the TCP bell until it has it.
//
// A wake object outlives its waiter, for the next one that needs one in this region: the indices are few. A ring that was meant for the
// waiter that is gone makes its heir look around once for nothing.
//
// Regions that were mapped before a fork keep the parent's wake objects: their indices are the parent's to offer, and the agent gives
// theirs to it. On those a forked child is rung by TCP, and rings the objects that its parent knew.
#pragma once

#include <cstdint>

#include "shim/regions.h"
#include "shim/sock.h"

namespace vsocket::shim {

struct WakeFd {
  int fd = -1;               // this waiter's end: readable when rung
  std::uint32_t target = 1;  // channel::WakeTarget to arm: kTcpBell when there is no wake object
  bool fresh = false;        // the waiter's only since this very call: an epoll set has yet to take it in
};

// Names the thread `thread` (ThreadId) as a waiter; any number above UINT32_MAX that is its own names another waiter.
constexpr std::uint64_t WaiterOf(std::uint32_t thread) {
  return thread;
}

// The waiter's wake object for the Sock's region, made and offered (or inherited) on first use. A thread asks while it is not asleep on
// one that it was given before: those of regions that are gone are closed here.
WakeFd OwnWakeFd(const Sock* sock, std::uint64_t waiter);

// What to arm for a waiter whose wake object was made before; kTcpBell when it has none.
std::uint32_t WakeTargetOf(const Sock* sock, std::uint64_t waiter);

// Takes the rings off; false: the peer closed its end, retire this wake object.
bool DrainWake(int fd);
void RetireWakeFd(int fd);

// For a waiter that has many: takes the rings off all of them. And: it is gone, others may have them.
void DrainWakesOf(std::uint64_t waiter);
void GiveBackWakeFdsOf(std::uint64_t waiter);

// tx_lock, and a hold on the region. Rings the peer's wake object `index`, unless that is on its way (wake.h, B4).
enum class Rung : std::uint8_t {
  kNo,  // not known here yet, full or gone: use the TCP bell
  kYes,
  kOnItsWay,  // by somebody else, since the waiter armed its words
};
Rung RingWakeFd(const Sock* sock, const Channel& ch, std::uint32_t index);

// The agent's answer: takes ownership of fd; -1: it has none (yet).
void LearnPeerWakeFd(std::uint64_t region_id, std::uint32_t side, std::uint32_t index, int fd);

// In the child after fork: the parent's wake objects are not the child's to wait on.
void ForgetWakeFds();
// The process unmaps the region.
void DropWakeFdsOf(std::uint64_t region_id);

}  // namespace vsocket::shim
