#include "shim/own_fds.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <atomic>

#include "shim/sys.h"

namespace vsocket::shim {
namespace {

constexpr int kMax = 4096;
constexpr int kHeadroom = 4096;  // below the limit: high enough that programs which count on the lowest free number never meet one of ours
std::atomic<int> own[kMax];      // fd + 1; 0: free
std::atomic<int> end{0};

}  // namespace

int KeepOwnFd(int fd) {
  struct rlimit limit = {1024, 1024};
  Sys(SYS_prlimit64, 0, RLIMIT_NOFILE, nullptr, &limit);
  const unsigned long ceiling = limit.rlim_cur < (1u << 20) ? limit.rlim_cur : (1u << 20);
  long from = static_cast<long>(ceiling > 2 * kHeadroom ? ceiling - kHeadroom : ceiling - ceiling / 4);
  const long high = Sys(SYS_fcntl, fd, F_DUPFD_CLOEXEC, from);
  if (high >= 0) {
    Sys(SYS_close, fd);
    fd = static_cast<int>(high);
  }
  for (int i = 0; i < kMax; ++i) {
    int free = 0;
    if (!own[i].compare_exchange_strong(free, fd + 1, std::memory_order_release)) continue;
    int seen = end.load(std::memory_order_relaxed);
    while (seen < i + 1 && !end.compare_exchange_weak(seen, i + 1, std::memory_order_release)) {
    }
    return fd;
  }
  return fd;
}

void DropOwnFd(int fd) {
  const int count = end.load(std::memory_order_acquire);
  for (int i = 0; i < count; ++i) {
    if (own[i].load(std::memory_order_relaxed) == fd + 1) own[i].store(0, std::memory_order_release);
  }
  Sys(SYS_close, fd);
}

bool IsOwnFd(int fd) {
  return fd >= 0 && NextOwnFd(fd) == fd;
}

int NextOwnFd(int from) {
  const int count = end.load(std::memory_order_acquire);
  int lowest = -1;
  for (int i = 0; i < count; ++i) {
    const int fd = own[i].load(std::memory_order_acquire) - 1;
    if (fd >= from && (lowest < 0 || fd < lowest)) lowest = fd;
  }
  return lowest;
}

}  // namespace vsocket::shim
