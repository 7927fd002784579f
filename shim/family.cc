#include "shim/family.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "shim/own_fds.h"
#include "shim/sleepers.h"
#include "shim/sys.h"

namespace vsocket::shim {
namespace {

std::atomic<int> family_fd{-1};
std::atomic<int> listening_fd{-1};  // this process's epoll set with family_fd in it

int Listen(int family) {
  const long made = Sys(SYS_epoll_create1, EPOLL_CLOEXEC);
  if (made < 0) return -1;
  const int fd = KeepOwnFd(static_cast<int>(made));
  struct epoll_event event = {};
  event.events = EPOLLIN | EPOLLET;
  int none = -1;
  if (Sys(SYS_epoll_ctl, fd, EPOLL_CTL_ADD, family, &event) != 0 ||
      !listening_fd.compare_exchange_strong(none, fd, std::memory_order_acq_rel)) {
    DropOwnFd(fd);
    return none;  // another thread's, or -1
  }
  return fd;
}

}  // namespace

void MakeFamily() {
  if (family_fd.load(std::memory_order_relaxed) >= 0) return;
  const long made = Sys(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (made >= 0) family_fd.store(KeepOwnFd(static_cast<int>(made)), std::memory_order_release);
}

void InheritFamily() {
  const int parents = listening_fd.exchange(-1, std::memory_order_relaxed);
  if (parents >= 0) DropOwnFd(parents);
}

int FamilyWakeFd(const Sock* sock) {
  if (sock->processes.load(std::memory_order_relaxed) <= 1) return -1;
  const int listening = listening_fd.load(std::memory_order_acquire);
  if (listening >= 0) return listening;
  const int family = FamilyFd();
  return family >= 0 ? Listen(family) : -1;
}

void HearFamily() {
  // Taken before all are told: whoever sleeps after this has looked at what it was about.
  struct epoll_event event;
  Sys(SYS_epoll_pwait, listening_fd.load(std::memory_order_acquire), &event, 1, 0, nullptr, 8);
  WakeSleepersHere();
}

int FamilyFd() {
  return family_fd.load(std::memory_order_acquire);
}

void WakeFamily() {
  const std::uint64_t one = 1;
  const int fd = FamilyFd();
  if (fd >= 0) Sys(SYS_write, fd, &one, sizeof one);
}

}  // namespace vsocket::shim
