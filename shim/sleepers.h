// A thread's own wake object, and which thread sleeps on which connection: one that takes a bell off a socket tells the others of its
// process that sleep there.
//
// A wake object is an eventfd(2). It outlives its thread, for the next thread that needs one: there are never more than the process had
// threads at once, whatever it starts and ends. A ring for a thread that is gone reaches its heir, which looks around once for nothing.
//
// Thread safety: any thread at any time, signal handlers included.
#pragma once

#include "shim/sock.h"

namespace vsocket::shim {

// This thread's wake object; -1: none could be had. To be drained after each sleep on it.
int ThreadWakeFd();
void DrainWakeFd(int fd);

// Between these a drained bell wakes this thread too: others of the process may take the one that was meant for it.
void RegisterSleeper(const Sock* sock, int wake_fd);
void UnregisterSleeper(const Sock* sock, int wake_fd);
void WakeSleepers(const Sock* sock);
void WakeSleepersHere();  // of this process, on whatever connection

// In the child after fork: the sleepers, and the objects they sleep on, are the parent's.
void ForgetSleepers();

}  // namespace vsocket::shim
