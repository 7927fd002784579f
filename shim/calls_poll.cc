// poll and select over kernel descriptors and rings alike.
#include <sys/mman.h>

#include <cerrno>
#include <ctime>

#include "shim/config.h"
#include "shim/epoll_set.h"
#include "shim/errno.h"
#include "shim/family.h"
#include "shim/real.h"
#include "shim/sleepers.h"
#include "shim/stream.h"
#include "shim/trim.h"
#include "shim/upgrade.h"
#include "shim/wait.h"
#include "shim/wake_fds.h"

namespace vsocket::shim {
namespace {

constexpr std::uint64_t kForever = UINT64_MAX;
constexpr std::uint64_t kKernelLookTicks = 20000;  // while spinning, the kernel's descriptors are looked at this often
constexpr short kIn = POLLIN | POLLRDNORM;
constexpr short kOut = POLLOUT | POLLWRNORM;
constexpr short kArmed = 0x4000;  // in our copy: prepared for this sleep. No bit of the kernel's
constexpr nfds_t kOnStack = 256;
constexpr nfds_t kExtra = 3;  // descriptors of ours behind the program's

SockRef OnRing(int fd) {
  const SockRef ref = FindSock(fd);
  if (!ref) return {};
  if (ref.sock->phase.load(std::memory_order_acquire) == Phase::kGranted) ConsiderAttach(ref, fd);
  if (ref.sock->phase.load(std::memory_order_acquire) != Phase::kAttached) return {};
  return ref;
}

// Another thread may attach the connection while this one sleeps on it: Attach then wakes the sleeper (stream_state.cc).
bool MayAttach(SockRef ref) {
  const Phase phase = ref.sock->phase.load(std::memory_order_relaxed);
  return phase >= Phase::kPlain && phase < Phase::kAttached && ref.sock->pinned.load(std::memory_order_relaxed) == 0 &&
         GetConfig().upgrade && SeenOtherThreads();
}

// Must we look at this list at all?
bool AnyRing(const struct pollfd* items, nfds_t count) {
  for (nfds_t i = 0; i < count; ++i) {
    const SockRef ref = FindSock(items[i].fd);
    if (ref && (OnRing(items[i].fd) || MayAttach(ref))) return true;
    EpollSet* set = FindSet(items[i].fd);
    if (set != nullptr && set->NeedsUs()) return true;
  }
  return false;
}

// Memory for the kernel's copy of the list and descriptors of ours; on the stack for all but huge lists.
class Scratch {
 public:
  explicit Scratch(nfds_t count) : bytes_((count + kExtra + count) * sizeof(struct pollfd)) {
    if (count <= kOnStack) return;
    const long at = Sys(SYS_mmap, nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at >= 0 || at < -4095) pages_ = reinterpret_cast<struct pollfd*>(at);
    failed_ = pages_ == nullptr;
  }
  ~Scratch() {
    if (pages_ != nullptr) Sys(SYS_munmap, pages_, bytes_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  [[nodiscard]] struct pollfd* Items() { return pages_ != nullptr ? pages_ : stack_; }
  [[nodiscard]] bool Failed() const { return failed_; }

 private:
  std::size_t bytes_;
  struct pollfd* pages_ = nullptr;
  bool failed_ = false;
  struct pollfd stack_[kOnStack + kExtra];
};

struct Poll {
  struct pollfd* items;
  nfds_t count;
  const sigset_t* mask;
  struct pollfd* copy;
};

long KernelPoll(const Poll& poll, nfds_t count, std::uint64_t ns, const sigset_t* mask) {
  struct timespec limit = {static_cast<time_t>(ns / 1000000000), static_cast<long>(ns % 1000000000)};
  return Sys(SYS_ppoll, poll.copy, count, ns == kForever ? nullptr : &limit, mask, 8);
}

// One descriptor's answer, given what the kernel said of it (0: nothing, or not asked).
short Answer(const struct pollfd& item, short kernel) {
  const SockRef ref = OnRing(item.fd);
  if (!ref) {
    EpollSet* set = FindSet(item.fd);
    if (set == nullptr || !set->NeedsUs()) return kernel;
    Holding hold(set->lock);
    return static_cast<short>(hold.Held() && set->IsReady() ? (item.events & kIn) : 0);
  }
  const Readiness now = Look(ref, item.fd, (kernel & (kIn | POLLHUP | POLLERR | POLLRDHUP)) != 0);
  if (now.only_fin) kernel = static_cast<short>(kernel & ~POLLERR);
  // A FIN alone hangs up only a connection that this side has ended, too (poll(2)).
  if (now.only_fin && ref.sock->shut_wr.load(std::memory_order_relaxed) == 0) kernel = static_cast<short>(kernel & ~POLLHUP);
  short ready = static_cast<short>(kernel & (POLLHUP | POLLERR | POLLRDHUP | POLLPRI | POLLNVAL));
  if (now.in) ready = static_cast<short>(ready | kIn);
  // Also of a connection that was cut here: the kernel has forgotten that it ever had an end.
  if (ref.sock->fin_seen.load(std::memory_order_relaxed) != 0) ready = static_cast<short>(ready | POLLRDHUP);
  if (now.out || (now.out_by_kernel && (kernel & kOut))) ready = static_cast<short>(ready | kOut);
  return static_cast<short>(ready & (item.events | POLLHUP | POLLERR | POLLNVAL));
}

// Asks the kernel about all descriptors without waiting, then the rings. The number of ready ones, or -errno.
int LookAtAll(const Poll& poll) {
  for (nfds_t i = 0; i < poll.count; ++i) {
    poll.copy[i] = poll.items[i];
    if (OnRing(poll.items[i].fd)) poll.copy[i].events = static_cast<short>(poll.items[i].events | POLLIN);
  }
  const long got = KernelPoll(poll, poll.count, 0, nullptr);
  if (got < 0) return static_cast<int>(got);
  int ready = 0;
  for (nfds_t i = 0; i < poll.count; ++i) {
    poll.items[i].revents = Answer(poll.items[i], poll.copy[i].revents);
    ready += poll.items[i].revents != 0;
  }
  return ready;
}

bool RingNews(const Poll& poll) {
  for (nfds_t i = 0; i < poll.count; ++i) {
    const SockRef ref = FindSock(poll.items[i].fd);
    if (!ref || ref.sock->phase.load(std::memory_order_acquire) != Phase::kAttached) continue;
    if ((poll.items[i].events & kIn) && RingHasData(ref.sock)) return true;
    if ((poll.items[i].events & kOut) && RingHasRoom(ref.sock)) return true;
  }
  return false;
}

bool HasRings(const Poll& poll) {
  for (nfds_t i = 0; i < poll.count; ++i) {
    if (OnRing(poll.items[i].fd)) return true;
  }
  return false;
}

// A sleep on a connection that is plain so far. False: it is not any more. AfterSleep either way.
bool PrepareForAttach(SockRef ref) {
  if (ref.Stale()) return false;
  // seq_cst, with Attach's store of the phase and its look at the sleepers: one of the two sees the other.
  ref.sock->sleepers.fetch_add(1, std::memory_order_seq_cst);
  return ref.sock->phase.load(std::memory_order_seq_cst) != Phase::kAttached;
}

// True: something may be ready.
bool SpinOnRings(const Poll& poll, std::uint64_t left_ns) {
  SpinBudget& spin = ThreadSpin();
  std::uint64_t budget = BeginSpin(spin);
  if (left_ns != kForever && budget > left_ns * 2) budget = left_ns * 2;
  if (budget == 0 || !HasRings(poll)) return false;
  const std::uint64_t start = Ticks();
  std::uint64_t last = start;
  std::uint64_t looked = start;
  for (;;) {
    for (int i = 0; i < 8; ++i) {
      if (RingNews(poll)) {
        spin.PaidOff();
        return true;
      }
      CpuRelax();
    }
    const std::uint64_t now = Ticks();
    if (now - last > 100000) {
      spin.Preempted();
      return false;
    }
    if (now - looked > kKernelLookTicks) {
      for (nfds_t i = 0; i < poll.count; ++i) poll.copy[i] = poll.items[i];
      for (nfds_t i = 0; i < poll.count; ++i) {
        if (OnRing(poll.items[i].fd)) poll.copy[i].events = POLLIN;
      }
      if (KernelPoll(poll, poll.count, 0, nullptr) != 0) return true;
      looked = Ticks();
    }
    if (now - start > budget) {
      spin.InVain();
      return false;
    }
    last = Ticks();
  }
}

// Arms the rings and sleeps. 0: look again; -errno.
int SleepOnAll(const Poll& poll, std::uint64_t left_ns) {
  const int wake_fd = ThreadWakeFd();
  nfds_t extra = poll.count;
  nfds_t armed = 0;
  bool quiet = true;
  WakeFd fast;
  int family_fd = -1;
  std::uint64_t fast_region = 0;
  for (; armed < poll.count && quiet; ++armed) {
    const struct pollfd& item = poll.items[armed];
    poll.copy[armed] = item;
    const SockRef ref = OnRing(item.fd);
    if (!ref) {
      const SockRef plain = FindSock(item.fd);
      if (plain && wake_fd >= 0 && MayAttach(plain)) {
        RegisterSleeper(plain.sock, wake_fd);
        quiet = PrepareForAttach(plain);
        poll.copy[armed].events = static_cast<short>(item.events | kArmed);
        continue;
      }
      EpollSet* set = FindSet(item.fd);
      if (set == nullptr || !set->NeedsUs()) continue;
      Holding hold(set->lock);
      if (!hold.Held()) continue;
      quiet = set->ArmAll() && !set->IsReady();
      poll.copy[armed].events = static_cast<short>(item.events | kArmed);
      continue;
    }
    // One fast wake object a sleep: the first region's; the others ring by TCP.
    std::uint32_t target = channel::kTcpBell;
    if (fast_region == 0 || fast_region == ref.sock->region_id) {
      if (fast_region == 0) fast = OwnWakeFd(ref.sock, WaiterOf(ThreadId()));  // once: asking closes what is of no use any more
      fast_region = ref.sock->region_id;
      target = fast.target;
    }
    if (wake_fd >= 0) RegisterSleeper(ref.sock, wake_fd);
    if (family_fd < 0) family_fd = FamilyWakeFd(ref.sock);
    short events = 0;
    quiet = PrepareToSleep(ref, item.fd, item.events & kIn, item.events & kOut, target, &events);
    poll.copy[armed].events = static_cast<short>(events | (item.events & ~(kIn | kOut)) | kArmed);
  }
  long got = 0;
  if (quiet) {
    poll.copy[extra++] = {wake_fd, POLLIN, 0};
    if (fast.fd >= 0) poll.copy[extra++] = {fast.fd, POLLIN, 0};
    if (family_fd >= 0) poll.copy[extra++] = {family_fd, POLLIN, 0};
    got = SleepAndTrim(left_ns, [&](std::uint64_t ns) { return KernelPoll(poll, extra, ns, poll.mask); });
    if (family_fd >= 0 && poll.copy[extra - 1].revents != 0) HearFamily();
  }
  for (nfds_t i = 0; i < armed; ++i) {
    const SockRef ref = FindSock(poll.items[i].fd);
    if (ref && (poll.copy[i].events & kArmed)) {
      if (wake_fd >= 0) UnregisterSleeper(ref.sock, wake_fd);
      AfterSleep(ref);
    }
    EpollSet* set = ref ? nullptr : FindSet(poll.items[i].fd);
    if (set == nullptr || !(poll.copy[i].events & kArmed)) continue;
    Holding hold(set->lock);
    if (hold.Held()) set->RelaxAll();
  }
  if (wake_fd >= 0) DrainWakeFd(wake_fd);
  if (fast.fd >= 0 && !DrainWake(fast.fd)) RetireWakeFd(fast.fd);
  return got < 0 ? static_cast<int>(got) : 0;
}

// -errno or the number of ready descriptors. The caller has found a ring among them.
int PollRings(struct pollfd* items, nfds_t count, std::uint64_t timeout_ns, const sigset_t* mask) {
  Scratch scratch(count);
  if (scratch.Failed()) return -ENOMEM;
  const Poll poll = {items, count, mask, scratch.Items()};
  const std::uint64_t deadline = timeout_ns == kForever ? kForever : MonotonicNs() + timeout_ns;
  for (;;) {
    const int ready = LookAtAll(poll);
    if (ready != 0) return ready;
    const std::uint64_t now = deadline == kForever ? 0 : MonotonicNs();
    if (deadline <= now) return 0;
    const std::uint64_t left = deadline == kForever ? kForever : deadline - now;
    if (SpinOnRings(poll, left)) continue;
    const int slept = SleepOnAll(poll, left);
    if (slept < 0) return slept;
  }
}

std::uint64_t FromTimespec(const struct timespec* timeout) {
  if (timeout == nullptr) return kForever;
  return static_cast<std::uint64_t>(timeout->tv_sec) * 1000000000 + static_cast<std::uint64_t>(timeout->tv_nsec);
}
std::uint64_t FromMs(int timeout) {
  return timeout < 0 ? kForever : static_cast<std::uint64_t>(timeout) * 1000000;
}
bool Valid(const struct timespec* timeout) {
  return timeout == nullptr || (timeout->tv_sec >= 0 && timeout->tv_nsec >= 0 && timeout->tv_nsec < 1000000000);
}

// select's lists as a poll list, and back (select(2): what each set means).
constexpr short kReadEvents = POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR;
constexpr short kWriteEvents = POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR;

bool AnyRingInSets(int count, const fd_set* read, const fd_set* write, const fd_set* except) {
  for (int fd = 0; fd < count; ++fd) {
    const bool named = (read && FD_ISSET(fd, read)) || (write && FD_ISSET(fd, write)) || (except && FD_ISSET(fd, except));
    if (!named) continue;
    const struct pollfd item = {fd, 0, 0};
    if (AnyRing(&item, 1)) return true;
  }
  return false;
}

int SelectRings(int count, fd_set* read, fd_set* write, fd_set* except, std::uint64_t timeout_ns, const sigset_t* mask) {
  struct pollfd items[FD_SETSIZE];
  nfds_t named = 0;
  for (int fd = 0; fd < count && fd < FD_SETSIZE; ++fd) {
    short events = 0;
    if (read && FD_ISSET(fd, read)) events |= POLLIN | POLLRDNORM | POLLRDBAND;
    if (write && FD_ISSET(fd, write)) events |= POLLOUT | POLLWRNORM | POLLWRBAND;
    if (except && FD_ISSET(fd, except)) events |= POLLPRI;
    const bool asked = events != 0;
    if (asked) items[named++] = {fd, events, 0};
  }
  for (nfds_t i = 0; i < named; ++i) {
    if (Sys(SYS_fcntl, items[i].fd, 1 /* F_GETFD */) == -EBADF) return -EBADF;
  }
  const int ready = PollRings(items, named, timeout_ns, mask);
  if (ready < 0) return ready;
  int bits = 0;
  for (nfds_t i = 0; i < named; ++i) {
    const int fd = items[i].fd;
    const short got = items[i].revents;
    const bool in = read && FD_ISSET(fd, read) && (got & kReadEvents);
    const bool out = write && FD_ISSET(fd, write) && (got & kWriteEvents);
    const bool pri = except && FD_ISSET(fd, except) && (got & POLLPRI);
    if (read && !in) FD_CLR(fd, read);
    if (write && !out) FD_CLR(fd, write);
    if (except && !pri) FD_CLR(fd, except);
    bits += in + out + pri;
  }
  return bits;
}

}  // namespace

VSOCKET_INTERPOSE(int, poll, struct pollfd* items, nfds_t count, int timeout) {
  if (items == nullptr || !AnyRing(items, count)) return Real().poll(items, count, timeout);
  return static_cast<int>(ToProgram(PollRings(items, count, FromMs(timeout), nullptr)));
}

VSOCKET_INTERPOSE(int, __poll_chk, struct pollfd* items, nfds_t count, int timeout, size_t room) {
  if (room / sizeof *items < count || !AnyRing(items, count)) return Real().__poll_chk(items, count, timeout, room);
  return static_cast<int>(ToProgram(PollRings(items, count, FromMs(timeout), nullptr)));
}

VSOCKET_INTERPOSE(int, ppoll, struct pollfd* items, nfds_t count, const struct timespec* timeout, const sigset_t* mask) {
  if (items == nullptr || !Valid(timeout) || !AnyRing(items, count)) return Real().ppoll(items, count, timeout, mask);
  return static_cast<int>(ToProgram(PollRings(items, count, FromTimespec(timeout), mask)));
}

VSOCKET_INTERPOSE(int, __ppoll_chk, struct pollfd* items, nfds_t count, const struct timespec* timeout, const sigset_t* mask, size_t room) {
  if (room / sizeof *items < count || !Valid(timeout) || !AnyRing(items, count))
    return Real().__ppoll_chk(items, count, timeout, mask, room);
  return static_cast<int>(ToProgram(PollRings(items, count, FromTimespec(timeout), mask)));
}

VSOCKET_INTERPOSE(int, select, int count, fd_set* read, fd_set* write, fd_set* except, struct timeval* timeout) {
  const bool valid = timeout == nullptr || (timeout->tv_sec >= 0 && timeout->tv_usec >= 0);
  if (!valid || !AnyRingInSets(count, read, write, except)) return Real().select(count, read, write, except, timeout);
  const std::uint64_t ns =
      timeout == nullptr ? kForever
                         : static_cast<std::uint64_t>(timeout->tv_sec) * 1000000000 + static_cast<std::uint64_t>(timeout->tv_usec) * 1000;
  const std::uint64_t start = MonotonicNs();
  const int result = SelectRings(count, read, write, except, ns, nullptr);
  if (timeout != nullptr) {  // Linux tells what is left (select(2))
    const std::uint64_t spent = MonotonicNs() - start;
    const std::uint64_t left = spent < ns ? ns - spent : 0;
    timeout->tv_sec = static_cast<time_t>(left / 1000000000);
    timeout->tv_usec = static_cast<suseconds_t>(left % 1000000000 / 1000);
  }
  return static_cast<int>(ToProgram(result));
}

VSOCKET_INTERPOSE(int, pselect, int count, fd_set* read, fd_set* write, fd_set* except, const struct timespec* timeout,
                  const sigset_t* mask) {
  if (!Valid(timeout) || !AnyRingInSets(count, read, write, except)) return Real().pselect(count, read, write, except, timeout, mask);
  return static_cast<int>(ToProgram(SelectRings(count, read, write, except, FromTimespec(timeout), mask)));
}

}  // namespace vsocket::shim
