// The fast doorbell: wake objects that the peer's process rings instead of sending a byte by TCP.
//
// A wake object is a UNIX stream socket pair: the waiter keeps one end, the peer gets the other. Unlike an eventfd, neither end can drain
// the other or, by changing file flags, make a write to it block (every send and receive says MSG_DONTWAIT). A waiter (a thread, or an
// epoll set) has one a region, so one peer never holds another's. It is offered to the agent under an index of this side of the region; a
// peer that finds that index armed asks the agent for it once, and uses the TCP bell until it has it.
#pragma once

#include <cstdint>

#include "shim/sock.h"

namespace vsocket::shim {

struct WakeFd {
  int fd = -1;               // this waiter's end: readable when rung
  std::uint32_t target = 1;  // channel::WakeTarget to arm: kTcpBell when there is no wake object
  bool fresh = false;        // made by this very call: an epoll set has yet to take it in
};

// The waiter's wake object for the Sock's region, made and offered on first use. `waiter` is any number that is this waiter's own.
WakeFd OwnWakeFd(const Sock* sock, std::uint64_t waiter);

// What to arm for a waiter whose wake object was made before; kTcpBell when it has none.
std::uint32_t WakeTargetOf(const Sock* sock, std::uint64_t waiter);

// Takes the rings off; false: the peer closed its end, forget this wake object.
bool DrainWake(int fd);

// Rings the peer's wake object `index`. False: not known here yet; use the TCP bell.
bool RingWakeFd(const Sock* sock, std::uint32_t index);

// The agent's answer: takes ownership of fd; -1: it has none (yet).
void LearnPeerWakeFd(std::uint64_t region_id, std::uint32_t side, std::uint32_t index, int fd);

void RetireWakeFd(int fd);
void RetireWakeFdsOf(std::uint64_t waiter);

// After fork: the parent's indices are not the child's to offer.
void ForgetWakeFds();
void DropWakeFdsOf(std::uint64_t region_id);

}  // namespace vsocket::shim
