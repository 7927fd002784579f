#include "shim/process.h"

#include <sys/mman.h>
#include <sys/socket.h>

#include "shim/epoll_set.h"
#include "shim/family.h"
#include "shim/lock.h"
#include "shim/sleepers.h"
#include "shim/sock.h"
#include "shim/start.h"
#include "shim/stats.h"
#include "shim/stream.h"
#include "shim/sys.h"

namespace vsocket::shim {
namespace {

struct Owner {
  std::atomic<long> pid;  // 0: a copy that a fork made, not claimed yet
};

Owner unwiped;  // where the kernel has no MADV_WIPEONFORK (before 4.14): forks announce themselves
std::atomic<Owner*> owner{nullptr};
std::atomic<bool> ended{false};
std::atomic<bool> announced{false};  // the fork under way has shared the connections
Lock fork_lock;                      // one fork at a time: what it shares is noted once

Owner* MakeOwner() {
  const long page = Sys(SYS_mmap, nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page < 0 && page > -4096) return &unwiped;
  if (Sys(SYS_madvise, page, 4096, MADV_WIPEONFORK) == 0) return reinterpret_cast<Owner*>(page);
  Sys(SYS_munmap, page, 4096);
  return &unwiped;
}

Owner* TheOwner() {
  Owner* known = owner.load(std::memory_order_acquire);
  if (known != nullptr) return known;
  Owner* made = MakeOwner();
  made->pid.store(Sys(SYS_getpid), std::memory_order_relaxed);
  if (owner.compare_exchange_strong(known, made, std::memory_order_acq_rel)) return made;
  if (made != &unwiped) Sys(SYS_munmap, made, 4096);
  return known;
}

void Claim() {
  TheOwner()->pid.store(Sys(SYS_getpid), std::memory_order_relaxed);
  ended.store(false, std::memory_order_relaxed);
  HoldAfterFork(announced.exchange(false, std::memory_order_relaxed));  // not announced: whoever forked us could not
  fork_lock.Reset();
  AfterForkInChild();
}

void TakeLastFrames(int fd, SockRef ref, void* context) {
  if (ref.sock->phase.load(std::memory_order_acquire) != Phase::kAttached || ref.sock->processes.load(std::memory_order_relaxed) > 1)
    return;
  (void)Look(ref, fd, true);
  SettleBeforeClose(ref, fd);
  const bool exits = *static_cast<Ending*>(context) == Ending::kExit;
  if (!exits || ref.sock->shut_rd.load(std::memory_order_relaxed) || UnreadOnRing(ref) == 0) return;
  const struct linger reset = {1, 0};
  Sys(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
}

__attribute__((constructor)) void NoteProcess() {
  (void)TheOwner();
}
__attribute__((destructor)) void OnExit() {
  BeforeEnd(Ending::kExit);
}

}  // namespace

bool InVforkChild() {
  const long known = TheOwner()->pid.load(std::memory_order_relaxed);
  if (known == Sys(SYS_getpid)) return false;
  if (known != 0) return true;
  Claim();
  return false;
}

void BeforeFork() {
  if (!fork_lock.Acquire()) return;  // a signal handler forks in the middle of a fork
  ForEachHeld([](Sock* sock) {
    if (sock->phase.load(std::memory_order_relaxed) >= Phase::kGranted) MakeFamily();
  });
  ShareForFork();
  // Those who sleep now do not listen to the family yet.
  ForEachHeld([](Sock* sock) {
    if (sock->sleepers.load(std::memory_order_relaxed) != 0) WakeSleepers(sock);
  });
  WakeSleepingSets();
  announced.store(true, std::memory_order_relaxed);
}

void AfterFork(long result) {
  if (result == 0) {
    if (announced.load(std::memory_order_relaxed)) Claim();  // else a handler of pthread_atfork came here first
    return;
  }
  if (!fork_lock.HeldByMe()) return;
  announced.store(false, std::memory_order_relaxed);
  if (result < 0) UnshareAfterFailedFork();
  fork_lock.Release();
}

NoFork::NoFork() : held_(fork_lock.TryAcquire()) {
  constexpr std::uint64_t kPatienceNs = 100ULL * 1000 * 1000;
  const std::uint64_t give_up = held_ || fork_lock.HeldByMe() ? 0 : MonotonicNs() + kPatienceNs;
  while (!held_ && MonotonicNs() < give_up) {
    Sys(SYS_sched_yield);
    held_ = fork_lock.TryAcquire();
  }
}

NoFork::~NoFork() {
  if (held_) fork_lock.Release();
}

void TakeOver() {
  Claim();
}

void BeforeEnd(Ending ending) {
  if (InVforkChild() || ended.exchange(true, std::memory_order_acq_rel)) return;
  ForEachSock(TakeLastFrames, &ending);
  WriteStats(ending == Ending::kExit);  // a shell forks and execs all day, and has no connection to speak of
  DropAllHolds();
}

void AfterFailedExec() {
  if (InVforkChild() || !ended.exchange(false, std::memory_order_acq_rel)) return;
  TakeAllHolds();
  ResetStatsForChild();
}

}  // namespace vsocket::shim
