#include "shim/lock.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <time.h>

#include <cerrno>

#include "shim/sys.h"

namespace vsocket::shim {
namespace {

__attribute__((tls_model("initial-exec"))) thread_local std::uint32_t thread_id;
std::atomic<std::uint32_t> threads_seen{0};

// A killed process is a zombie until its parent reaps it: gone as far as the lock is concerned. The thread id is this process's pid
// namespace's; processes that share a socket by fork share that too, or are left waiting rather than robbed.
bool IsGone(std::uint32_t tid) {
  char path[32] = "/proc/";
  char digits[12];
  int n = 0;
  for (std::uint32_t rest = tid; rest != 0; rest /= 10) digits[n++] = static_cast<char>('0' + rest % 10);
  int at = 6;
  while (n > 0) path[at++] = digits[--n];
  for (const char* tail = "/stat"; *tail != '\0'; ++tail) path[at++] = *tail;
  path[at] = '\0';
  const long fd = Sys(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Sys(SYS_tkill, tid, 0) == -ESRCH;
  char text[256];
  const long size = Sys(SYS_read, fd, text, sizeof text);
  Sys(SYS_close, fd);
  for (long i = size - 3; i > 0; --i) {
    if (text[i] == ')') return text[i + 2] == 'Z' || text[i + 2] == 'X';
  }
  return false;
}

}  // namespace

std::uint32_t ThreadId() {
  if (thread_id == 0) {
    thread_id = static_cast<std::uint32_t>(Sys(SYS_gettid));
    threads_seen.fetch_add(1, std::memory_order_relaxed);
  }
  return thread_id;
}

bool SeenOtherThreads() {
  (void)ThreadId();
  return threads_seen.load(std::memory_order_relaxed) > 1;
}

bool ThreadHasEnded(std::uint32_t thread) {
  return Sys(SYS_tgkill, Sys(SYS_getpid), thread, 0) == -ESRCH;
}

void ForgetThreadId() {
  thread_id = 0;
  threads_seen.store(0, std::memory_order_relaxed);
}

bool Lock::AcquireSlow(std::uint32_t me) {
  for (int spins = 0; spins < 200; ++spins) {
    std::uint32_t seen = word_.load(std::memory_order_relaxed);
    if ((seen & ~kContended) == me) return false;
    if (seen == 0 && word_.compare_exchange_weak(seen, me, std::memory_order_acquire, std::memory_order_relaxed)) return true;
    CpuRelax();
  }
  for (;;) {
    std::uint32_t seen = word_.load(std::memory_order_relaxed);
    if (seen == 0) {
      // Taken as contended: another waiter may sleep, and only the next release would know.
      if (word_.compare_exchange_weak(seen, me | kContended, std::memory_order_acquire, std::memory_order_relaxed)) return true;
      continue;
    }
    if (!(seen & kContended) && !word_.compare_exchange_weak(seen, seen | kContended, std::memory_order_relaxed)) continue;
    seen |= kContended;
    // Bounded only to look whether the holder still lives: a release always wakes.
    const struct timespec patience = {0, 20 * 1000 * 1000};
    const long result = Sys(SYS_futex, &word_, FUTEX_WAIT, seen, &patience, 0, 0);
    if (result == -ETIMEDOUT && IsGone(seen & ~kContended)) {
      if (word_.compare_exchange_strong(seen, me | kContended, std::memory_order_acquire, std::memory_order_relaxed)) return true;
    }
  }
}

void Lock::WakeOne() {
  Sys(SYS_futex, &word_, FUTEX_WAKE, 1, 0, 0, 0);
}

}  // namespace vsocket::shim
