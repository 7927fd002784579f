// Waking those who sleep on a connection in other processes of the family: one that takes a bell off a socket shared by fork takes it
// from them too. One eventfd is inherited by all of them; each write to it is an edge in an epoll set of each process's own (epoll(7)),
// so it is never read, and nobody's reading hides it from another.
//
// Thread safety: all of them may be called by any thread at any time.
#pragma once

#include "shim/sock.h"

namespace vsocket::shim {

// Before a fork. Without it (no descriptor to be had) the child's sleepers are not woken by the parent's bells.
void MakeFamily();
// In the child after fork: what belonged to one process is the parent's.
void InheritFamily();

// What a sleeper on `sock` watches for reading besides its own wake object; -1: this process has the connection for itself.
int FamilyWakeFd(const Sock* sock);
// After a sleep in which that was readable: tells everyone who sleeps in this process.
void HearFamily();
// The eventfd itself, for an edge-triggered set of somebody's own; -1: never forked.
int FamilyFd();

// Wakes the sleepers on connections shared by fork, in all processes.
void WakeFamily();

}  // namespace vsocket::shim
