// Interposers that make, connect and end sockets. All of it is the kernel's; the shim takes notes.
#include <netinet/in.h>

#include "shim/close.h"
#include "shim/epoll_set.h"
#include "shim/errno.h"
#include "shim/own_fds.h"
#include "shim/process.h"
#include "shim/real.h"
#include "shim/stats.h"
#include "shim/stream.h"
#include "shim/upgrade.h"

namespace vsocket::shim {
namespace {

bool IsTcp(int domain, int type, int protocol) {
  return (domain == AF_INET || domain == AF_INET6) && (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_STREAM &&
         (protocol == 0 || protocol == IPPROTO_TCP);
}

void NoteAccepted(int listener, int fd) {
  if (fd < 0 || !FindSock(listener)) return;
  if (TrackNew(fd, Phase::kPlain, false) != nullptr) CountConnection();
}

}  // namespace

VSOCKET_INTERPOSE(int, socket, int domain, int type, int protocol) {
  const int fd = Real().socket(domain, type, protocol);
  if (fd >= 0 && IsTcp(domain, type, protocol)) (void)TrackNew(fd, Phase::kIdle, false);
  return fd;
}

VSOCKET_INTERPOSE(int, accept, int listener, struct sockaddr* address, socklen_t* length) {
  const int fd = Real().accept(listener, address, length);
  NoteAccepted(listener, fd);
  return fd;
}

VSOCKET_INTERPOSE(int, accept4, int listener, struct sockaddr* address, socklen_t* length, int flags) {
  const int fd = Real().accept4(listener, address, length, flags);
  NoteAccepted(listener, fd);
  return fd;
}

VSOCKET_INTERPOSE(int, connect, int fd, const struct sockaddr* address, socklen_t length) {
  const SockRef ref = FindSock(fd);
  if (!ref) return Real().connect(fd, address, length);
  const bool dissolve = address != nullptr && length >= sizeof address->sa_family && address->sa_family == AF_UNSPEC;
  if (dissolve && ref.sock->phase.load() == Phase::kAttached) {
    LeaveForGood(ref, fd, channel::Reason::kUnsupportedCall);
  } else if (!dissolve && ref.sock->phase.load(std::memory_order_relaxed) == Phase::kIdle) {
    ref.sock->initiator.store(true, std::memory_order_relaxed);
    ref.sock->phase.store(Phase::kPlain, std::memory_order_relaxed);
    CountConnection();
  }
  const int result = Real().connect(fd, address, length);
  if (dissolve && result == 0) {  // a socket like new: its next connection starts at zero
    CountSock(ref.sock);
    ref.sock->ring_tx = ref.sock->ring_rx = 0;
    ref.sock->plain_tx.store(0, std::memory_order_relaxed);
    ref.sock->plain_rx.store(0, std::memory_order_relaxed);
    ref.sock->phase.store(Phase::kIdle, std::memory_order_relaxed);
  }
  return result;
}

VSOCKET_INTERPOSE(int, shutdown, int fd, int how) {
  const SockRef ref = FindSock(fd);
  if (ref && ref.sock->phase.load(std::memory_order_acquire) >= Phase::kPlain) {
    // Noted first: from the kernel's FIN on this direction carries no frame of ours.
    const int settled = SettleBeforeShutdown(ref, fd, how);
    if (settled != 0) return static_cast<int>(ToProgram(settled));
    const int result = Real().shutdown(fd, how);
    if (result == 0) NoteShutdown(ref, how);
    return result;
  }
  return Real().shutdown(fd, how);
}

VSOCKET_INTERPOSE(int, close, int fd) {
  if (IsOwnFd(fd)) return static_cast<int>(ToProgram(-EBADF));
  if (!FindSock(fd)) {
    DropSet(fd);
    return Real().close(fd);
  }
  const Dropped dropped = BeginClose(fd);
  const int result = Real().close(fd);
  EndClose(fd, dropped);
  return result;
}

}  // namespace vsocket::shim
