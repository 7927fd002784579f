#include "shim/wake_fds.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>

#include "channel/control.h"
#include "shim/agent_link.h"
#include "shim/own_fds.h"
#include "shim/process.h"
#include "shim/sys.h"

namespace vsocket::shim {
namespace {

#define VSOCKET_TLS __attribute__((tls_model("initial-exec"))) thread_local

constexpr std::uint64_t kNoRegion = 0;              // a free place
constexpr std::uint64_t kGoneRegion = UINT64_MAX;   // the region is unmapped; the waiter may be asleep on the object, and will close it
constexpr std::uint64_t kNobodysNow = 0;            // a waiter: the object may be taken over
constexpr std::uint64_t kTryAgainTicks = 20000000;  // about 10 ms

struct Own {
  std::uint64_t region_id;
  std::uint64_t waiter;
  std::uint32_t side;
  std::uint32_t index;  // by which the peer names it; it gets no other object in this region
  int fd;               // -1: the peer has closed its end, the index is spent
};
struct Peer {
  std::atomic<std::uint64_t> region_id;
  Relaxed<std::uint32_t> side;                    // published by region_id
  std::atomic<int> fd[channel::kWakeFdsPerSide];  // fd + 1; 0: not known
  std::atomic<bool> asked[channel::kWakeFdsPerSide];
  Lock ringing;
};

constexpr int kMaxOwn = 2048;
constexpr int kMaxPeers = 1024;
Own own[kMaxOwn];
Peer peers[kMaxPeers];
std::atomic<int> own_end{0}, peers_end{0};
Lock table_lock;

// A thread that found every index of a region taken does not look who is still alive each time it sleeps.
VSOCKET_TLS std::uint64_t full_region;
VSOCKET_TLS std::uint64_t full_until;

Peer* FindPeer(std::uint64_t region_id, std::uint32_t side) {
  const int end = peers_end.load(std::memory_order_acquire);
  for (int i = 0; i < end; ++i) {
    if (peers[i].region_id.load(std::memory_order_acquire) == region_id && peers[i].side == side) return &peers[i];
  }
  return nullptr;
}

// table_lock
Peer* AddPeer(std::uint64_t region_id, std::uint32_t side) {
  const int end = peers_end.load(std::memory_order_relaxed);
  int at = 0;
  while (at < end && peers[at].region_id.load(std::memory_order_relaxed) != kNoRegion) ++at;
  if (at == kMaxPeers) return nullptr;
  peers[at].side = side;
  peers[at].region_id.store(region_id, std::memory_order_release);
  if (at == end) peers_end.store(end + 1, std::memory_order_release);
  return &peers[at];
}

bool IsThread(std::uint64_t waiter) {
  return waiter <= UINT32_MAX;
}

bool IsFree(const Own& entry) {
  return entry.waiter == kNobodysNow || (IsThread(entry.waiter) && ThreadHasEnded(static_cast<std::uint32_t>(entry.waiter)));
}

bool IsOf(const Own& entry, const Sock* sock) {
  return entry.region_id == sock->region_id && entry.side == sock->side;
}

WakeFd Known(const Own& entry, bool fresh) {
  return {entry.fd, channel::kFirstWakeFd + entry.index, fresh};
}

// table_lock
Own* FindOwn(const Sock* sock, std::uint64_t waiter) {
  const int end = own_end.load(std::memory_order_relaxed);
  for (int i = 0; i < end; ++i) {
    if (IsOf(own[i], sock) && own[i].waiter == waiter) return &own[i];
  }
  return nullptr;
}

// The region may come again, and the index with it for another object: what the peer, or a forked child that has not yet closed its copy,
// still knows as this one must not take a ring.
void RefuseRings(int fd) {
  Sys(SYS_shutdown, fd, SHUT_RDWR);
}

// table_lock
void CloseOwn(Own& entry) {
  if (entry.fd >= 0) {
    RefuseRings(entry.fd);
    DropOwnFd(entry.fd);
  }
  entry = {};
}

// table_lock. Of regions that are gone: this waiter's, which does not sleep now, and those of threads that have ended.
void CloseGone(std::uint64_t waiter) {
  const int end = own_end.load(std::memory_order_relaxed);
  for (int i = 0; i < end; ++i) {
    if (own[i].region_id == kGoneRegion && (own[i].waiter == waiter || IsFree(own[i]))) CloseOwn(own[i]);
  }
}

// table_lock
WakeFd MakeOwn(const Sock* sock, std::uint64_t waiter) {
  std::uint32_t index = 0;
  const int end = own_end.load(std::memory_order_relaxed);
  int free = end;
  for (int i = end - 1; i >= 0; --i) {
    if (own[i].region_id == kNoRegion) free = i;
    if (IsOf(own[i], sock) && own[i].index >= index) index = own[i].index + 1;
  }
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
  return Known(own[free], true);
}

}  // namespace

WakeFd OwnWakeFd(const Sock* sock, std::uint64_t waiter) {
  if (IsThread(waiter) && full_region == sock->region_id && Ticks() < full_until) return {};
  {
    Holding hold(table_lock);
    if (!hold.Held()) return {};
    if (const Own* known = FindOwn(sock, waiter)) return Known(*known, false);
  }
  // A vfork child opens what its parent, whose table this is, has not open; and to the child all of its parent's threads seem gone.
  if (MappedBeforeFork(sock) || InVforkChild()) return {};
  Holding hold(table_lock);
  if (!hold.Held()) return {};
  CloseGone(waiter);
  const int end = own_end.load(std::memory_order_relaxed);
  for (int i = 0; i < end; ++i) {
    if (!IsOf(own[i], sock) || own[i].fd < 0 || !IsFree(own[i])) continue;
    own[i].waiter = waiter;
    return Known(own[i], true);
  }
  const WakeFd made = MakeOwn(sock, waiter);
  if (made.fd < 0) {
    full_region = sock->region_id;
    full_until = Ticks() + kTryAgainTicks;
  }
  return made;
}

std::uint32_t WakeTargetOf(const Sock* sock, std::uint64_t waiter) {
  Holding hold(table_lock);
  const Own* known = hold.Held() ? FindOwn(sock, waiter) : nullptr;
  return known != nullptr ? Known(*known, false).target : static_cast<std::uint32_t>(channel::kTcpBell);
}

bool DrainWake(int fd) {
  char rings[256];
  const long got = Sys(SYS_recvfrom, fd, rings, sizeof rings, MSG_DONTWAIT, nullptr, nullptr);
  return got > 0 || got == -EAGAIN || got == -EINTR;
}

void RetireWakeFd(int fd) {
  Holding hold(table_lock);
  const int end = own_end.load(std::memory_order_relaxed);
  for (int i = 0; hold.Held() && i < end; ++i) {
    if (own[i].region_id == kNoRegion || own[i].fd != fd) continue;
    if (own[i].region_id == kGoneRegion) return CloseOwn(own[i]);
    own[i].waiter = kNobodysNow;
    own[i].fd = -1;
    return DropOwnFd(fd);
  }
}

void DrainWakesOf(std::uint64_t waiter) {
  Holding hold(table_lock);
  const int end = own_end.load(std::memory_order_relaxed);
  for (int i = 0; hold.Held() && i < end; ++i) {
    if (own[i].region_id != kNoRegion && own[i].waiter == waiter && own[i].fd >= 0) (void)DrainWake(own[i].fd);
  }
}

void GiveBackWakeFdsOf(std::uint64_t waiter) {
  Holding hold(table_lock);
  const int end = own_end.load(std::memory_order_relaxed);
  for (int i = 0; hold.Held() && i < end; ++i) {
    if (own[i].region_id == kNoRegion || own[i].waiter != waiter) continue;
    own[i].waiter = kNobodysNow;
    if (own[i].region_id == kGoneRegion) CloseOwn(own[i]);
  }
}

Rung RingWakeFd(const Sock* sock, const Channel& ch, std::uint32_t index) {
  if (index >= channel::kWakeFdsPerSide) return Rung::kNo;
  const std::uint32_t side = 1 - sock->side;
  Peer* peer = FindPeer(sock->region_id, side);
  if (peer == nullptr) {
    Holding hold(table_lock);
    if (!hold.Held()) return Rung::kNo;
    peer = FindPeer(sock->region_id, side);  // another connection of the region has been here meanwhile
    if (peer == nullptr) peer = AddPeer(sock->region_id, side);
    if (peer == nullptr) return Rung::kNo;
  }
  // A process that shares these connections and is killed before it has rung does not take them along, as this one would: so only the
  // process whose region it is leaves a ring to another of its threads.
  const bool inherited = MappedBeforeFork(sock);
  Holding ringing(peer->ringing);
  std::atomic<std::uint32_t>* rung = ringing.Held() && !inherited ? &ch.region->rung[side].object[index] : nullptr;
  const int known = peer->fd[index].load(std::memory_order_acquire);
  if (known > 0 && rung != nullptr) {
    if (rung->load(std::memory_order_relaxed) != 0) return Rung::kOnItsWay;
    rung->store(1, std::memory_order_relaxed);
  }
  const char ring = 1;
  const long sent = known > 0 ? Sys(SYS_sendto, known - 1, &ring, 1, MSG_DONTWAIT | MSG_NOSIGNAL, nullptr, 0) : -EPIPE;
  if (sent == 1) return Rung::kYes;
  if (rung != nullptr) rung->store(0, std::memory_order_relaxed);
  // EPIPE: the peer has let go of the region meanwhile, and what it calls by this index now is another object.
  if (sent == -EPIPE && !inherited && !peer->asked[index].exchange(true, std::memory_order_relaxed)) {
    if (!SendWakeRef(channel::MessageType::kWakeWant, sock->region_id, side, index, -1))
      peer->asked[index].store(false, std::memory_order_relaxed);
  }
  return Rung::kNo;
}

void LearnPeerWakeFd(std::uint64_t region_id, std::uint32_t side, std::uint32_t index, int fd) {
  Holding hold(table_lock);  // or the place could be another region's by the time the descriptor is in it
  Peer* peer = hold.Held() && index < channel::kWakeFdsPerSide ? FindPeer(region_id, side) : nullptr;
  const bool asked = peer != nullptr && peer->asked[index].exchange(false, std::memory_order_relaxed);
  if (fd < 0) return;  // not offered yet: the next ring asks again
  if (!asked) {
    Sys(SYS_close, fd);
    return;
  }
  const int known = peer->fd[index].load(std::memory_order_relaxed);
  if (known <= 0) return peer->fd[index].store(KeepOwnFd(fd) + 1, std::memory_order_release);
  Sys(SYS_dup3, fd, known - 1, O_CLOEXEC);  // the same number: another thread may be ringing it
  Sys(SYS_close, fd);
}

void ForgetWakeFds() {
  table_lock.Reset();
  // Another thread of the parent may have been changing the table: what it had not finished is at most one descriptor too many here.
  for (int i = own_end.exchange(0, std::memory_order_relaxed) - 1; i >= 0; --i) {
    if (own[i].fd >= 0) DropOwnFd(own[i].fd);  // the parent's go on
    own[i] = {};
  }
  for (int i = peers_end.load(std::memory_order_relaxed) - 1; i >= 0; --i) peers[i].ringing.Reset();
  full_region = kNoRegion;
}

void DropWakeFdsOf(std::uint64_t region_id) {
  Holding hold(table_lock);
  const int end = own_end.load(std::memory_order_relaxed);
  for (int i = 0; hold.Held() && i < end; ++i) {
    if (own[i].region_id != region_id) continue;
    // Another thread may be asleep on it, and would empty whatever has the number by then.
    const bool in_use = IsThread(own[i].waiter) && own[i].waiter != WaiterOf(ThreadId()) && own[i].fd >= 0 && !IsFree(own[i]);
    own[i].region_id = kGoneRegion;
    in_use ? RefuseRings(own[i].fd) : CloseOwn(own[i]);
  }
  const int peers_count = peers_end.load(std::memory_order_relaxed);
  for (int i = 0; hold.Held() && i < peers_count; ++i) {
    if (peers[i].region_id.load(std::memory_order_relaxed) != region_id) continue;
    for (auto& slot : peers[i].fd) {
      const int fd = slot.exchange(0, std::memory_order_relaxed);
      if (fd > 0) DropOwnFd(fd - 1);
    }
    for (auto& asked : peers[i].asked) asked.store(false, std::memory_order_relaxed);
    peers[i].region_id.store(kNoRegion, std::memory_order_release);
  }
}

}  // namespace vsocket::shim
