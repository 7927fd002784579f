#include "shim/sleepers.h"

#include <sys/eventfd.h>

#include "shim/epoll_set.h"
#include "shim/family.h"
#include "shim/own_fds.h"
#include "shim/process.h"
#include "shim/sys.h"

namespace vsocket::shim {
namespace {

#define VSOCKET_TLS __attribute__((tls_model("initial-exec"))) thread_local

VSOCKET_TLS int thread_wake_fd = -1;
VSOCKET_TLS std::uint32_t thread_wake_owner = 0;

struct Sleeper {
  std::atomic<std::uint32_t> sock;  // index + 0; 0: free
  std::atomic<int> wake_fd;
};
constexpr int kMaxSleepers = 1024;
Sleeper sleepers[kMaxSleepers];
std::atomic<int> sleepers_end{0};

// `owner` is the thread's number, and above it how often the object has changed hands: a number that the kernel gives out again must not
// let two threads take the same object, one as its heir and one as its namesake.
struct WakeObject {
  std::atomic<std::uint64_t> owner;
  int fd;
};
constexpr int kMaxObjects = 4096;
WakeObject objects[kMaxObjects];
std::atomic<int> objects_end{0};
std::atomic<std::uint32_t> look_from{0};
Lock adding;

bool Take(WakeObject& object, std::uint64_t owner, std::uint32_t me) {
  const std::uint64_t mine = ((owner >> 32) + 1) << 32 | me;
  return object.owner.compare_exchange_strong(owner, mine, std::memory_order_acq_rel);
}

// A thread that ended in the middle of a sleep (pthread_exit from a handler) has left its entry.
void ForgetSleepsOn(int fd) {
  const int end = sleepers_end.load(std::memory_order_acquire);
  for (int i = 0; i < end; ++i) {
    if (sleepers[i].wake_fd.load(std::memory_order_relaxed) != fd) continue;
    sleepers[i].wake_fd.store(-1, std::memory_order_relaxed);
    sleepers[i].sock.store(0, std::memory_order_release);
  }
}

// The object of a thread that has ended; -1: there is none.
int Inherit(std::uint32_t me) {
  const auto end = static_cast<std::uint32_t>(objects_end.load(std::memory_order_acquire));
  for (std::uint32_t i = 0; i < end; ++i) {
    const std::uint64_t owner = objects[i].owner.load(std::memory_order_acquire);
    // This number was another thread's before. Without this look its object would be nobody's as long as this thread lives.
    if (static_cast<std::uint32_t>(owner) == me && Take(objects[i], owner, me)) return objects[i].fd;
  }
  // From where the last one was found: where threads come and go the next one is not far, and each look is a system call.
  const std::uint32_t from = end == 0 ? 0 : look_from.load(std::memory_order_relaxed) % end;
  for (std::uint32_t n = 0; n < end; ++n) {
    const std::uint32_t i = (from + n) % end;
    const std::uint64_t owner = objects[i].owner.load(std::memory_order_acquire);
    if (!ThreadHasEnded(static_cast<std::uint32_t>(owner)) || !Take(objects[i], owner, me)) continue;
    look_from.store(i + 1, std::memory_order_relaxed);
    ForgetSleepsOn(objects[i].fd);
    return objects[i].fd;
  }
  return -1;
}

int Make(std::uint32_t me) {
  const long made = Sys(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (made < 0) return -1;
  const int fd = KeepOwnFd(static_cast<int>(made));
  Holding hold(adding);
  const int end = objects_end.load(std::memory_order_relaxed);
  if (!hold.Held() || end == kMaxObjects) return fd;  // works as well, and stays when the thread has ended
  objects[end].fd = fd;
  objects[end].owner.store(me, std::memory_order_relaxed);
  objects_end.store(end + 1, std::memory_order_release);
  return fd;
}

}  // namespace

int ThreadWakeFd() {
  if (thread_wake_fd >= 0 && thread_wake_owner == ThreadId()) return thread_wake_fd;
  // What a vfork child opens is not open in its parent, whose memory this is; and to the child all of its parent's threads seem gone.
  if (InVforkChild()) return -1;
  const std::uint32_t me = ThreadId();
  int fd = Inherit(me);
  if (fd < 0) fd = Make(me);
  thread_wake_fd = fd;
  thread_wake_owner = me;
  return fd;
}

void DrainWakeFd(int fd) {
  std::uint64_t count = 0;
  Sys(SYS_read, fd, &count, sizeof count);
}

void RegisterSleeper(const Sock* sock, int wake_fd) {
  const std::uint32_t index = IndexOf(sock);
  for (int i = 0; i < kMaxSleepers; ++i) {
    std::uint32_t free = 0;
    if (!sleepers[i].sock.compare_exchange_strong(free, index, std::memory_order_acq_rel)) continue;
    sleepers[i].wake_fd.store(wake_fd, std::memory_order_release);
    int seen = sleepers_end.load(std::memory_order_relaxed);
    while (seen < i + 1 && !sleepers_end.compare_exchange_weak(seen, i + 1)) {
    }
    return;
  }
}

void UnregisterSleeper(const Sock* sock, int wake_fd) {
  const std::uint32_t index = IndexOf(sock);
  const int end = sleepers_end.load(std::memory_order_acquire);
  for (int i = 0; i < end; ++i) {
    if (sleepers[i].wake_fd.load(std::memory_order_relaxed) == wake_fd && sleepers[i].sock.load(std::memory_order_relaxed) == index) {
      sleepers[i].wake_fd.store(-1, std::memory_order_relaxed);
      sleepers[i].sock.store(0, std::memory_order_release);
      return;
    }
  }
}

void WakeSleepers(const Sock* sock) {
  if (sock->processes.load(std::memory_order_relaxed) > 1) WakeFamily();
  if (sock->watched.load(std::memory_order_relaxed) != 0) TellSets(sock);  // the kernel has nothing to tell of it
  const std::uint32_t index = IndexOf(sock);
  const int end = sleepers_end.load(std::memory_order_acquire);
  const std::uint64_t one = 1;
  for (int i = 0; i < end; ++i) {
    if (sleepers[i].sock.load(std::memory_order_acquire) != index) continue;
    const int fd = sleepers[i].wake_fd.load(std::memory_order_acquire);
    if (fd >= 0) Sys(SYS_write, fd, &one, sizeof one);
  }
}

void WakeSleepersHere() {
  const int end = sleepers_end.load(std::memory_order_acquire);
  const std::uint64_t one = 1;
  for (int i = 0; i < end; ++i) {
    const int fd = sleepers[i].wake_fd.load(std::memory_order_acquire);
    if (sleepers[i].sock.load(std::memory_order_acquire) != 0 && fd >= 0) Sys(SYS_write, fd, &one, sizeof one);
  }
}

void ForgetSleepers() {
  for (int i = sleepers_end.exchange(0, std::memory_order_relaxed) - 1; i >= 0; --i) {
    sleepers[i].sock.store(0, std::memory_order_relaxed);
    sleepers[i].wake_fd.store(-1, std::memory_order_relaxed);
  }
  adding.Reset();
  thread_wake_fd = -1;
  // Shared with the parent's threads: whoever reads one takes the ring from the other.
  for (int i = objects_end.exchange(0, std::memory_order_relaxed) - 1; i >= 0; --i) DropOwnFd(objects[i].fd);
}

}  // namespace vsocket::shim
