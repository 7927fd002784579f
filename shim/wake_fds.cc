#include "shim/wake_fds.h"

#include <sys/socket.h>

#include <cerrno>

#include "channel/control.h"
#include "shim/agent_link.h"
#include "shim/own_fds.h"
#include "shim/sys.h"

namespace vsocket::shim {
namespace {

struct Own {
  std::uint64_t region_id;
  std::uint64_t waiter;
  std::uint32_t side;
  std::uint32_t index;  // by which the peer names it; never used again in this region
  int fd;
};
struct Peer {
  std::uint64_t region_id;
  std::uint32_t side;
  std::atomic<int> fd[channel::kWakeFdsPerSide];  // fd + 1; 0: not known; -1: asked for
};

constexpr int kMaxOwn = 2048;
constexpr int kMaxPeers = 1024;
Own own[kMaxOwn];
Peer peers[kMaxPeers];
std::atomic<int> own_end{0}, peers_end{0};
Lock table_lock;
bool inherited = false;  // regions mapped before a fork: their indices belong to the parent

Peer* FindPeer(std::uint64_t region_id, std::uint32_t side) {
  const int end = peers_end.load(std::memory_order_acquire);
  for (int i = 0; i < end; ++i) {
    if (peers[i].region_id == region_id && peers[i].side == side) return &peers[i];
  }
  return nullptr;
}

}  // namespace

WakeFd OwnWakeFd(const Sock* sock, std::uint64_t waiter) {
  if (inherited) return {};
  Holding hold(table_lock);
  if (!hold.Held()) return {};
  std::uint32_t index = 0;
  int free = -1;
  const int end = own_end.load(std::memory_order_relaxed);
  for (int i = 0; i < end; ++i) {
    if (own[i].region_id == 0) {
      free = i;
      continue;
    }
    if (own[i].region_id != sock->region_id || own[i].side != sock->side) continue;
    if (own[i].waiter == waiter) return {own[i].fd, channel::kFirstWakeFd + own[i].index, false};
    if (own[i].index >= index) index = own[i].index + 1;
  }
  if (free < 0) free = end;
  if (free == kMaxOwn || index == channel::kWakeFdsPerSide) return {};
  int ends[2];
  if (Sys(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) return {};
  const int fd = KeepOwnFd(ends[0]);
  const bool offered = SendWakeRef(channel::MessageType::kWakeOffer, sock->region_id, sock->side, index, ends[1]);
  Sys(SYS_close, ends[1]);
  if (!offered) {
    DropOwnFd(fd);
    return {};
  }
  own[free] = {sock->region_id, waiter, sock->side, index, fd};
  if (free == end) own_end.store(end + 1, std::memory_order_release);
  return {fd, channel::kFirstWakeFd + index, true};
}

bool RingWakeFd(const Sock* sock, std::uint32_t index) {
  if (index >= channel::kWakeFdsPerSide) return false;
  const std::uint32_t side = 1 - sock->side;
  Peer* peer = FindPeer(sock->region_id, side);
  if (peer == nullptr) {
    Holding hold(table_lock);
    const int end = peers_end.load(std::memory_order_relaxed);
    if (!hold.Held() || end == kMaxPeers) return false;
    peer = &peers[end];
    peer->region_id = sock->region_id;
    peer->side = side;
    peers_end.store(end + 1, std::memory_order_release);
  }
  int known = peer->fd[index].load(std::memory_order_acquire);
  if (known > 0) {
    const char ring = 1;
    return Sys(SYS_sendto, known - 1, &ring, 1, MSG_DONTWAIT | MSG_NOSIGNAL, nullptr, 0) == 1;
  }
  if (known == 0 && peer->fd[index].compare_exchange_strong(known, -1, std::memory_order_relaxed)) {
    if (!SendWakeRef(channel::MessageType::kWakeWant, sock->region_id, side, index, -1))
      peer->fd[index].store(0, std::memory_order_relaxed);
  }
  return false;
}

void LearnPeerWakeFd(std::uint64_t region_id, std::uint32_t side, std::uint32_t index, int fd) {
  Peer* peer = index < channel::kWakeFdsPerSide ? FindPeer(region_id, side) : nullptr;
  int asked = -1;
  if (peer == nullptr || !peer->fd[index].compare_exchange_strong(asked, 0, std::memory_order_relaxed)) {
    if (fd >= 0) Sys(SYS_close, fd);
    return;
  }
  if (fd < 0) return;  // not offered yet: the next ring asks again
  peer->fd[index].store(KeepOwnFd(fd) + 1, std::memory_order_release);
}

std::uint32_t WakeTargetOf(const Sock* sock, std::uint64_t waiter) {
  Holding hold(table_lock);
  const int end = own_end.load(std::memory_order_relaxed);
  for (int i = 0; i < end && hold.Held(); ++i) {
    if (own[i].region_id == 0 || own[i].region_id != sock->region_id || own[i].side != sock->side) continue;
    if (own[i].waiter == waiter) return channel::kFirstWakeFd + own[i].index;
  }
  return channel::kTcpBell;
}

bool DrainWake(int fd) {
  char rings[256];
  const long got = Sys(SYS_recvfrom, fd, rings, sizeof rings, MSG_DONTWAIT, nullptr, nullptr);
  return got > 0 || got == -EAGAIN || got == -EINTR;
}

void RetireWakeFd(int fd) {
  Holding hold(table_lock);
  const int end = own_end.load(std::memory_order_relaxed);
  for (int i = 0; i < end; ++i) {
    if (own[i].region_id == 0 || own[i].fd != fd) continue;
    own[i].waiter = 0;  // the index stays taken: the peer may still name it
    own[i].fd = -1;
    DropOwnFd(fd);
  }
}

void RetireWakeFdsOf(std::uint64_t waiter) {
  Holding hold(table_lock);
  const int end = own_end.load(std::memory_order_relaxed);
  for (int i = 0; i < end; ++i) {
    if (own[i].region_id == 0 || own[i].waiter != waiter) continue;
    own[i].waiter = 0;
    if (own[i].fd >= 0) DropOwnFd(own[i].fd);
    own[i].fd = -1;
  }
}

void ForgetWakeFds() {
  table_lock.Reset();
  inherited = true;
}

void DropWakeFdsOf(std::uint64_t region_id) {
  Holding hold(table_lock);
  const int end = own_end.load(std::memory_order_relaxed);
  for (int i = 0; i < end; ++i) {
    if (own[i].region_id != region_id) continue;
    own[i].region_id = 0;
    if (own[i].fd >= 0) DropOwnFd(own[i].fd);
  }
  const int peers_count = peers_end.load(std::memory_order_relaxed);
  for (int i = 0; i < peers_count; ++i) {
    if (peers[i].region_id != region_id) continue;
    for (auto& slot : peers[i].fd) {
      const int fd = slot.exchange(0, std::memory_order_relaxed);
      if (fd > 0) DropOwnFd(fd - 1);
    }
    peers[i].region_id = 0;
  }
}

}  // namespace vsocket::shim
