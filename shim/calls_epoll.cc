// epoll: the kernel's sets, with ring readiness mixed in.
#include <cerrno>
#include <ctime>

#include "shim/epoll_set.h"
#include "shim/errno.h"
#include "shim/real.h"
#include "shim/stream.h"
#include "shim/trim.h"
#include "shim/upgrade.h"
#include "shim/wait.h"

namespace vsocket::shim {
namespace {

constexpr std::uint64_t kKernelLookTicks = 50000;  // about 20 us: how long the kernel's descriptors may wait while rings are busy
constexpr std::uint64_t kForever = UINT64_MAX;

struct Wait {
  int epfd;
  struct epoll_event* events;
  int room;
  const sigset_t* mask;
};

long KernelWait(const Wait& wait, int collected, std::uint64_t ns) {
  // The old call knows milliseconds only; the new one is not everywhere (Linux 5.11). Round up: never return before the time.
  const std::uint64_t ms = ns == kForever ? 0 : (ns + 999999) / 1000000;
  const int timeout = ns == kForever ? -1 : (ms > 0x7fffffff ? 0x7fffffff : static_cast<int>(ms));
  return Sys(SYS_epoll_pwait, wait.epfd, wait.events + collected, wait.room - collected, timeout, wait.mask, 8);
}

// The kernel's news without waiting, after `collected` events of ours. The new total, or -errno.
int MergeKernel(EpollSet* set, const Wait& wait, int collected) {
  if (collected == wait.room) return collected;
  const long got = KernelWait(wait, collected, 0);
  if (got < 0) return collected != 0 ? collected : static_cast<int>(got);
  Holding hold(set->lock, OnlyThread());
  const int total = set->Translate(wait.events, collected, static_cast<int>(got));
  // What was collected before is not to be reported twice: then the news wait for the next call.
  return collected != 0 ? total : total + set->Collect(wait.events + total, wait.room - total);
}

// Spins on the rings, with a look at the kernel now and then. Events, 0 after the budget, or -errno.
int Spin(EpollSet* set, const Wait& wait, std::uint64_t left_ns) {
  SpinBudget& spin = ThreadSpin();
  std::uint64_t budget = set->HasRings() ? BeginSpin(spin) : 0;
  if (left_ns != kForever && budget > left_ns * 2) budget = left_ns * 2;
  if (budget == 0) return 0;
  const std::uint64_t start = Ticks();
  std::uint64_t last = start;
  std::uint64_t looked = start;
  for (;;) {
    for (int i = 0; i < 8; ++i) {
      if (set->AnythingNew()) {
        spin.PaidOff();
        return 0;
      }
      CpuRelax();
    }
    const std::uint64_t now = Ticks();
    if (now - last > 2 * kKernelLookTicks) {
      spin.Preempted();
      return 0;
    }
    if (now - looked > kKernelLookTicks / 4) {
      const int merged = MergeKernel(set, wait, 0);
      looked = Ticks();
      if (merged != 0) {
        spin.PaidOff();
        return merged;
      }
    }
    if (now - start > budget) {
      spin.InVain();
      return 0;
    }
    last = Ticks();
  }
}

int Sleep(EpollSet* set, const Wait& wait, std::uint64_t left_ns) {
  bool quiet;
  {
    Holding hold(set->lock, OnlyThread());
    set->Refresh();
    quiet = set->ArmAll();
  }
  long got = quiet ? SleepAndTrim(left_ns, [&wait](std::uint64_t ns) { return KernelWait(wait, 0, ns); }) : 0;
  Holding hold(set->lock, OnlyThread());
  set->RelaxAll();
  if (got < 0) return static_cast<int>(got);
  return set->Translate(wait.events, 0, static_cast<int>(got));
}

// -errno or the number of events.
int WaitOnRings(EpollSet* set, const Wait& wait, std::uint64_t timeout_ns) {
  static std::atomic<std::uint64_t> looked{0};
  const std::uint64_t deadline = timeout_ns == kForever ? kForever : MonotonicNs() + timeout_ns;
  for (;;) {
    int count;
    {
      Holding hold(set->lock, OnlyThread());
      set->Refresh();
      count = set->Collect(wait.events, wait.room);
    }
    const std::uint64_t ticks = Ticks();
    if (count != 0) {
      if (ticks - looked.load(std::memory_order_relaxed) < kKernelLookTicks) return count;
      looked.store(ticks, std::memory_order_relaxed);
      return MergeKernel(set, wait, count);
    }
    if (timeout_ns == 0) return MergeKernel(set, wait, 0);
    const std::uint64_t now = deadline == kForever ? 0 : MonotonicNs();
    const std::uint64_t left = deadline == kForever ? kForever : (deadline > now ? deadline - now : 0);
    if (left == 0) return MergeKernel(set, wait, 0);
    const int spun = Spin(set, wait, left);
    if (spun != 0) return spun;
    if (set->AnythingNew()) continue;
    const int slept = Sleep(set, wait, left);
    if (slept != 0) return slept;
  }
}

// Back to the program, with a thought for the threads that go on sleeping on the set.
int Leave(EpollSet* set, int result) {
  if (!set->HasSleepers()) return result;
  Holding hold(set->lock, OnlyThread());
  set->WakeOthers();
  return result;
}

template <typename Plain>
int WaitOr(int epfd, struct epoll_event* events, int room, std::uint64_t timeout_ns, const sigset_t* mask, Plain plain) {
  EpollSet* set = room > 0 ? FindSet(epfd) : nullptr;
  if (set == nullptr) return plain();
  bool only_kernel;
  {
    Holding hold(set->lock, OnlyThread());
    set->Refresh();
    only_kernel = !set->HasRings() && !set->HasNested();
    if (only_kernel && !set->ArmAll()) {  // counts this thread: another may bring the set's first ring while it sleeps
      set->RelaxAll();
      only_kernel = false;
    }
  }
  const Wait wait = {epfd, events, room, mask};
  if (!only_kernel) return static_cast<int>(ToProgram(Leave(set, WaitOnRings(set, wait, timeout_ns))));
  const std::uint64_t start = timeout_ns == 0 || timeout_ns == kForever ? 0 : MonotonicNs();
  int got = plain();
  const int saved = errno;
  bool no_news = false;  // the kernel told of a ring, and there is nothing for the program
  {
    Holding hold(set->lock, OnlyThread());
    set->RelaxAll();
    if (got > 0) {
      got = set->Translate(events, 0, got);
      no_news = got == 0;
    }
  }
  if (no_news) {
    const std::uint64_t spent = start == 0 ? 0 : MonotonicNs() - start;
    const std::uint64_t left = timeout_ns == kForever ? kForever : (spent < timeout_ns ? timeout_ns - spent : 0);
    return static_cast<int>(ToProgram(Leave(set, WaitOnRings(set, wait, left))));
  }
  errno = saved;
  return Leave(set, got);
}

std::uint64_t FromMs(int timeout) {
  return timeout < 0 ? kForever : static_cast<std::uint64_t>(timeout) * 1000000;
}

}  // namespace

VSOCKET_INTERPOSE(int, epoll_ctl, int epfd, int op, int fd, struct epoll_event* event) {
  const SockRef ref = FindSock(fd);
  // An inner set is followed before it has connections: they may come later.
  EpollSet* inner = ref ? nullptr : (op == EPOLL_CTL_ADD ? MakeSetIfEpoll(fd) : FindSet(fd));
  if (!ref && inner == nullptr) return Real().epoll_ctl(epfd, op, fd, event);
  EpollSet* set = op == EPOLL_CTL_ADD ? MakeSet(epfd) : FindSet(epfd);
  if (set == nullptr) return Real().epoll_ctl(epfd, op, fd, event);
  Holding hold(set->lock, OnlyThread());
  const int on_ring = set->ControlOnRing(op, fd, event);
  if (on_ring <= 0) return static_cast<int>(ToProgram(on_ring));
  const int result = Real().epoll_ctl(epfd, op, fd, event);
  if (result != 0) return result;
  if (op == EPOLL_CTL_ADD) set->OnAdd(fd, ref, inner != nullptr, *event);
  if (op == EPOLL_CTL_MOD) set->OnModify(fd, *event);
  if (op == EPOLL_CTL_DEL) set->OnDelete(fd, false);
  return result;
}

VSOCKET_INTERPOSE(int, epoll_wait, int epfd, struct epoll_event* events, int room, int timeout) {
  return WaitOr(epfd, events, room, FromMs(timeout), nullptr, [&] { return Real().epoll_wait(epfd, events, room, timeout); });
}

VSOCKET_INTERPOSE(int, epoll_pwait, int epfd, struct epoll_event* events, int room, int timeout, const sigset_t* mask) {
  return WaitOr(epfd, events, room, FromMs(timeout), mask, [&] { return Real().epoll_pwait(epfd, events, room, timeout, mask); });
}

VSOCKET_INTERPOSE(int, epoll_pwait2, int epfd, struct epoll_event* events, int room, const struct timespec* timeout, const sigset_t* mask) {
  const std::uint64_t ns = timeout == nullptr
                               ? kForever
                               : static_cast<std::uint64_t>(timeout->tv_sec) * 1000000000 + static_cast<std::uint64_t>(timeout->tv_nsec);
  return WaitOr(epfd, events, room, ns, mask, [&] { return Real().epoll_pwait2(epfd, events, room, timeout, mask); });
}

}  // namespace vsocket::shim
