#include "shim/start.h"

#include <ctime>

#include "shim/agent_link.h"
#include "shim/config.h"
#include "shim/epoll_set.h"
#include "shim/family.h"
#include "shim/hand_over.h"
#include "shim/log.h"
#include "shim/real.h"
#include "shim/regions.h"
#include "shim/sleepers.h"
#include "shim/sock.h"
#include "shim/stats.h"
#include "shim/sys.h"
#include "shim/wake_fds.h"

namespace vsocket::shim {

void Start() {
  static std::atomic<int> begun{0};
  if (begun.exchange(1, std::memory_order_acq_rel) != 0) {
    while (!ready.load(std::memory_order_acquire)) CpuRelax();  // another thread is at it
    return;
  }
  BindRealCalls();    // first: everything else may be called by way of an interposer
  LoadConfig();       // the environment
  (void)InitSocks();  // without memory nothing is tracked, and every call goes to the kernel
  LoadLog();          // needs the table of own descriptors
  ready.store(true, std::memory_order_release);
}

void AfterForkInChild() {
  ForgetThreadId();  // locks are held by thread ids
  // What belongs to one process, its locks included: another thread of the parent may have held one, and is not here to let it go.
  ForgetAgent();  // the line is the parent's
  ForgetWakeFds();
  ForgetSleepers();
  InheritFamily();
  InheritSets();
  InheritRegions();
  FreeHandOverLock();
  ResetStatsForChild();
}

std::uint64_t MonotonicNs() {
  struct timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000000000 + static_cast<std::uint64_t>(now.tv_nsec);
}

namespace {
__attribute__((constructor)) void OnLoad() {
  (void)Real();
}
__attribute__((destructor)) void OnUnload() {
  WriteStats();
}
}  // namespace

}  // namespace vsocket::shim
