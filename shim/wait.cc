#include "shim/wait.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "shim/close.h"
#include "shim/config.h"
#include "shim/epoll_set.h"
#include "shim/family.h"
#include "shim/grant.h"
#include "shim/sleepers.h"
#include "shim/stream.h"
#include "shim/sys.h"
#include "shim/trim.h"
#include "shim/wake_fds.h"

namespace vsocket::shim {
namespace {

#define VSOCKET_TLS __attribute__((tls_model("initial-exec"))) thread_local

constexpr std::uint64_t kForever = UINT64_MAX;
constexpr std::uint64_t kTicksPerUs = 2000;        // the order of magnitude is enough
constexpr std::uint64_t kPreemptedTicks = 100000;  // a gap of this size between two looks: the CPU was somebody else's

VSOCKET_TLS SpinBudget thread_spin;

std::atomic<std::uint64_t> handlers_with_restart{0};
std::atomic<std::uint64_t> handlers_without_restart{0};

std::uint64_t TimeoutOf(int fd, int option) {
  struct timeval limit = {};
  int size = sizeof limit;
  if (Sys(SYS_getsockopt, fd, SOL_SOCKET, option, &limit, &size) != 0) return kForever;
  const std::uint64_t ns = static_cast<std::uint64_t>(limit.tv_sec) * 1000000000 + static_cast<std::uint64_t>(limit.tv_usec) * 1000;
  return ns == 0 ? kForever : MonotonicNs() + ns;
}

// ThreadSanitizer keeps a signal back until the thread makes a call that it knows. The system calls of the shim it does not know.
void LetHandlersRun() {
#if defined(__SANITIZE_THREAD__)
  usleep(0);
#endif
}

bool MayWait(int fd, int flags) {
  if (flags & MSG_DONTWAIT) return false;
  const long mode = Sys(SYS_fcntl, fd, F_GETFL);
  return mode >= 0 && !(mode & O_NONBLOCK);
}

bool SpinFor(const Sock* sock, bool in) {
  if (!in && AwaitsGrant(sock)) return false;
  SpinBudget& spin = ThreadSpin();
  const std::uint64_t budget = BeginSpin(spin);
  if (budget == 0) return false;
  const std::uint64_t start = Ticks();
  std::uint64_t last = start;
  for (;;) {
    for (int i = 0; i < 16; ++i) {
      if (in ? RingHasData(sock) : RingHasRoom(sock)) {
        spin.PaidOff();
        return true;
      }
      CpuRelax();
    }
    const std::uint64_t now = Ticks();
    if (now - last > kPreemptedTicks) {
      spin.Preempted();
      return false;
    }
    last = now;
    if (now - start > budget) {
      spin.InVain();
      return false;
    }
  }
}

// Waits until a receive (or send) is worth trying. 0, -EINTR, or -EAGAIN when the deadline passes.
ssize_t WaitFor(SockRef ref, int fd, bool in, std::uint64_t* deadline) {
  if (SpinFor(ref.sock, in)) return 0;
  if (*deadline == 0) *deadline = TimeoutOf(fd, in ? SO_RCVTIMEO : SO_SNDTIMEO);
  const int wake_fd = ThreadWakeFd();
  if (wake_fd >= 0) RegisterSleeper(ref.sock, wake_fd);
  const WakeFd fast = OwnWakeFd(ref.sock, WaiterOf(ThreadId()));
  const int family_fd = FamilyWakeFd(ref.sock);
  struct pollfd items[4] = {{fd, 0, 0}, {wake_fd, POLLIN, 0}, {fast.fd, POLLIN, 0}, {family_fd, POLLIN, 0}};
  ssize_t result = 0;
  if (PrepareToSleep(ref, fd, in, !in, fast.target, &items[0].events)) {
    const std::uint64_t now = *deadline == kForever ? 0 : MonotonicNs();
    const std::uint64_t left = *deadline == kForever ? kForever : (*deadline > now ? *deadline - now : 0);
    const long woken = SleepAndTrim(left, [&items](std::uint64_t ns) {
      const struct timespec limit = {static_cast<time_t>(ns / 1000000000), static_cast<long>(ns % 1000000000)};
      return Sys(SYS_ppoll, items, 4, ns == kForever ? nullptr : &limit, nullptr, 0);
    });
    if (woken == 0 && *deadline != kForever && MonotonicNs() >= *deadline) result = -EAGAIN;
    if (woken == -EINTR) LetHandlersRun();
    if (woken == -EINTR && SignalMeansEintr()) result = -EINTR;
  }
  AfterSleep(ref);
  if (!in && items[0].revents != 0) (void)Look(ref, fd, true);  // takes the bell off, or learns that the peer is gone
  if (wake_fd >= 0) {
    UnregisterSleeper(ref.sock, wake_fd);
    if (items[1].revents) DrainWakeFd(wake_fd);
  }
  if (items[2].revents && !DrainWake(fast.fd)) RetireWakeFd(fast.fd);
  if (items[3].revents) HearFamily();
  return result;
}

// Read without the lock: it only decides whether to look once more.
bool AtSeam(const Sock* sock) {
  return sock->rx.mode != channel::SwitchReceiver::Mode::kRing;
}

ssize_t AnswerNow(SockRef ref, std::size_t done, ssize_t error) {
  KeepForNextCall(ref, error);
  return static_cast<ssize_t>(done);
}

// Closed behind our back, by a system call of the program's own, and the number is something else now.
ssize_t NoSocketAnyMore(int fd, std::size_t done) {
  ForgetReplaced(fd);
  return done != 0 ? static_cast<ssize_t>(done) : kNotAttached;
}

bool StillAttached(SockRef ref) {
  return !ref.Stale() && ref.sock->phase.load(std::memory_order_acquire) == Phase::kAttached;
}

}  // namespace

int Rest(const struct iovec* parts, int count, std::size_t done, struct iovec* rest) {
  int n = 0;
  for (int i = 0; i < count && n < kParts; ++i) {
    if (done >= parts[i].iov_len) {
      done -= parts[i].iov_len;
      continue;
    }
    rest[n].iov_base = static_cast<char*>(parts[i].iov_base) + done;
    rest[n].iov_len = parts[i].iov_len - done;
    done = 0;
    ++n;
  }
  return n;
}

void KeepForNextCall(SockRef ref, ssize_t error) {
  if (!ref || (error != -ECONNRESET && error != -ETIMEDOUT && error != -ECONNABORTED)) return;
  if (ref.sock->phase.load(std::memory_order_relaxed) != Phase::kAttached) return;
  ref.sock->error.store(static_cast<std::uint16_t>(-error), std::memory_order_relaxed);
  NoteReset(ref.sock);
}

ssize_t Receive(SockRef ref, int fd, const struct iovec* parts, int count, int flags, std::size_t* progress) {
  std::size_t total = 0;
  for (int i = 0; i < count; ++i) total += parts[i].iov_len;
  const bool whole = (flags & MSG_WAITALL) && !(flags & MSG_PEEK);
  std::size_t& done = *progress;
  std::uint64_t deadline = 0;
  bool checked = false;
  for (;;) {
    struct iovec rest[kParts];
    const struct iovec* now = parts;
    int n = count;
    if (done != 0) {
      n = Rest(parts, count, done, rest);
      now = rest;
    }
    const ssize_t got = StillAttached(ref) ? TryReceive(ref, fd, now, n, flags) : kNotAttached;
    if (got == -ENOTSOCK) return NoSocketAnyMore(fd, done);
    if (got == kNotAttached) return done != 0 && !whole ? static_cast<ssize_t>(done) : got;
    if (got > 0) done += static_cast<std::size_t>(got);
    if (done == total && total != 0) return static_cast<ssize_t>(done);
    if (got > 0 && !whole) {
      // At the seam of ring and TCP there may be more behind what this attempt could reach: one receive spans it, as FIONREAD promises.
      if ((flags & MSG_PEEK) || !AtSeam(ref.sock)) return static_cast<ssize_t>(done);
      continue;
    }
    if (got == -EAGAIN && done != 0 && !whole) return static_cast<ssize_t>(done);
    if (got <= 0 && got != -EAGAIN) return done != 0 ? AnswerNow(ref, done, got) : got;
    if (total == 0) return 0;
    if (!checked && !MayWait(fd, flags)) return done != 0 ? static_cast<ssize_t>(done) : (got > 0 ? got : -EAGAIN);
    checked = true;
    if (got > 0) continue;
    const ssize_t waited = WaitFor(ref, fd, true, &deadline);
    if (waited < 0) return done != 0 ? static_cast<ssize_t>(done) : waited;
  }
}

ssize_t Send(SockRef ref, int fd, const struct iovec* parts, int count, int flags, std::size_t* progress) {
  std::size_t total = 0;
  for (int i = 0; i < count; ++i) total += parts[i].iov_len;
  std::size_t& done = *progress;
  std::uint64_t deadline = 0;
  bool checked = false;
  for (;;) {
    struct iovec rest[kParts];
    const struct iovec* now = parts;
    int n = count;
    if (done != 0) {
      n = Rest(parts, count, done, rest);
      now = rest;
    }
    if (!StillAttached(ref)) return kNotAttached;
    const ssize_t sent = TrySend(ref, fd, now, n, flags);
    if (sent == kNotAttached) continue;
    if (sent == -ENOTSOCK) return NoSocketAnyMore(fd, done);
    if (sent > 0) done += static_cast<std::size_t>(sent);
    if (done == total && sent >= 0) return static_cast<ssize_t>(done);
    if (sent < 0 && sent != -EAGAIN) return done != 0 ? AnswerNow(ref, done, sent) : sent;
    if (!checked && !MayWait(fd, flags)) {
      if (sent > 0) continue;  // a ring may grow, or the direction change, between two attempts; only EAGAIN is the end
      if (RoomAfterAll(ref)) continue;
      return done != 0 ? static_cast<ssize_t>(done) : -EAGAIN;
    }
    checked = true;
    if (sent > 0) continue;
    const ssize_t waited = WaitFor(ref, fd, false, &deadline);
    if (waited < 0) return done != 0 ? static_cast<ssize_t>(done) : waited;
  }
}

ssize_t SendFile(SockRef ref, int fd, int in_fd, off_t* offset, size_t size, std::size_t* progress) {
  std::size_t& done = *progress;
  std::uint64_t deadline = 0;
  bool checked = false;
  while (done < size) {
    if (!StillAttached(ref)) return kNotAttached;
    const ssize_t sent = TrySendFile(ref, fd, in_fd, offset, size - done);
    if (sent == kNotAttached) continue;
    if (sent > 0) done += static_cast<std::size_t>(sent);
    if (sent == 0) break;
    if (sent < 0 && sent != -EAGAIN) return done != 0 ? AnswerNow(ref, done, sent) : sent;
    if (sent > 0) continue;
    if (!checked && !MayWait(fd, 0)) {
      if (RoomAfterAll(ref)) continue;
      return done != 0 ? static_cast<ssize_t>(done) : -EAGAIN;
    }
    checked = true;
    const ssize_t waited = WaitFor(ref, fd, false, &deadline);
    if (waited < 0) return done != 0 ? static_cast<ssize_t>(done) : waited;
  }
  return static_cast<ssize_t>(done);
}

SpinBudget& ThreadSpin() {
  return thread_spin;
}

std::uint64_t BeginSpin(SpinBudget& budget) {
  const std::uint64_t most = GetConfig().spin_us * kTicksPerUs;
  if (!budget.started_) {
    budget.started_ = true;
    budget.ticks_ = most;
  }
  if (budget.ticks_ != 0) return budget.ticks_;
  // Spinning has not paid off: try again now and then, in case the load has changed. For long enough that a peer which is asleep can wake
  // up and answer, or two that both sleep would never find out how soon each could.
  if (++budget.skip_ % 64 == 0) return most;
  return 0;
}

void SpinBudget::PaidOff() {
  const std::uint64_t most = GetConfig().spin_us * kTicksPerUs;
  ticks_ = ticks_ == 0 || ticks_ > most - ticks_ / 4 ? most : ticks_ + ticks_ / 4;
}

void SpinBudget::InVain() {
  ticks_ -= ticks_ / 4;
  if (ticks_ < kTicksPerUs) ticks_ = 0;
}

void SpinBudget::Preempted() {
  ticks_ = 0;
}

bool SignalMeansEintr() {
  return handlers_without_restart.load(std::memory_order_relaxed) != 0;
}

void NoteSignalHandler(int signal, bool handled, bool restarts) {
  if (signal < 1 || signal > 64) return;
  const std::uint64_t bit = 1ULL << (signal - 1);
  handlers_with_restart.fetch_and(~bit, std::memory_order_relaxed);
  handlers_without_restart.fetch_and(~bit, std::memory_order_relaxed);
  if (handled) (restarts ? handlers_with_restart : handlers_without_restart).fetch_or(bit, std::memory_order_relaxed);
}

}  // namespace vsocket::shim
