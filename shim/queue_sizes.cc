#include "shim/queue_sizes.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "shim/stream_parts.h"
#include "shim/sys.h"

namespace vsocket::shim {
namespace {

std::uint64_t KernelQueue(int fd, unsigned long request) {
  int size = 0;
  return Sys(SYS_ioctl, fd, request, &size) == 0 && size > 0 ? static_cast<std::uint64_t>(size) : 0;
}

std::uint64_t Above(std::uint64_t position, std::uint64_t floor) {
  return position > floor ? position - floor : 0;
}

// rx_lock, attached.
std::uint64_t ReadableLocked(Sock* sock, int fd, const Channel& ch) {
  const channel::SwitchReceiver& rx = sock->rx;
  if (rx.mode == RxMode::kRing) return channel::RefreshData(sock->in, *ch.theirs) ? channel::Available(sock->in) : 0;
  const std::uint64_t queued = KernelQueue(fd, FIONREAD);
  if (rx.mode == RxMode::kDraining) {
    // The ring up to its last tail, and the stream by TCP, of which the front repeats the ring's end.
    const std::uint64_t by_tcp = rx.tcp_pos + queued;
    return Above(by_tcp > rx.drain_until ? by_tcp : rx.drain_until, sock->in.pos);
  }
  const channel::Proposal proposal = LoadProposal(ch);
  const std::uint64_t bound = channel::PayloadBound(rx, proposal);
  if (queued < bound) return Above(rx.tcp_pos + queued, sock->in.pos);
  // All payload up to a proposal is here: what is beyond it is in the ring, and the rest of the queue are frames.
  std::uint64_t tail = 0;
  if (!LoadUntrusted(ch.theirs->tail, std::memory_order_acquire).Within(proposal.start, proposal.start + channel::kRingMax, &tail)) {
    tail = proposal.start;
  }
  return Above(tail, sock->in.pos);
}

// tx_lock, attached: bytes that a SWITCH has called back and TCP has not taken yet.
std::uint64_t UnsentReplay(const Sock* sock) {
  return sock->tx.mode == TxMode::kLeaving ? sock->tx.replay_end - sock->tx.replay_from : 0;
}

// A lock of `sock` is held.
bool IsOpen(SockRef ref, Channel* ch) {
  return !ref.Stale() && ref.sock->phase.load(std::memory_order_relaxed) == Phase::kAttached && OpenChannel(ref.sock, ch);
}

}  // namespace

std::uint64_t ReadableBytes(SockRef ref, int fd) {
  (void)Look(ref, fd, true);  // takes frames and mode changes that wait in the queue into account
  Holding rx(ref.sock->rx_lock);
  Channel ch;
  if (!rx.Held() || !IsOpen(ref, &ch)) return KernelQueue(fd, FIONREAD);
  return ReadableLocked(ref.sock, fd, ch);
}

std::uint64_t UntakenBytes(SockRef ref, std::uint64_t in_kernel) {
  Holding tx(ref.sock->tx_lock);
  Channel ch;
  if (!tx.Held() || !IsOpen(ref, &ch)) return in_kernel;
  std::uint64_t queued = in_kernel + UnsentReplay(ref.sock);
  if (ref.sock->tx.mode == TxMode::kRing && channel::RefreshRoom(ref.sock->out, *ch.theirs))
    queued += ref.sock->out.pos - ref.sock->out.seen_head;
  // The kernel's queue may hold frames as well: no more than what the peer has not read, by its own word.
  const std::uint64_t unread = Above(ref.sock->out.pos, ch.theirs->head.load(std::memory_order_acquire));
  return channel::HasLeft(ch.theirs->gate) || queued < unread ? queued : unread;
}

bool CountStream(SockRef ref, int fd, StreamCounts* counts) {
  Sock* sock = ref.sock;
  const bool attached = sock->phase.load(std::memory_order_acquire) == Phase::kAttached;
  if (attached) (void)Look(ref, fd, true);
  Holding rx(sock->rx_lock);
  Holding tx(sock->tx_lock);
  if (!rx.Held() || !tx.Held() || ref.Stale() || sock->epoch == 0) return false;
  Channel ch;
  std::uint64_t unacked = KernelQueue(fd, SIOCOUTQ);
  counts->unsent = KernelQueue(fd, SIOCOUTQNSD);
  std::uint64_t end;
  if (IsOpen(ref, &ch)) {
    end = sock->out.pos;
    counts->received = sock->in.pos + ReadableLocked(sock, fd, ch);
    if (sock->tx.mode == TxMode::kRing) unacked = counts->unsent = 0;  // what is in the ring is there; the kernel's queue are frames
    unacked += UnsentReplay(sock);
    counts->unsent += UnsentReplay(sock);
  } else {
    if (sock->phase.load(std::memory_order_relaxed) < Phase::kPlain) return false;
    end = sock->plain_tx.load(std::memory_order_relaxed);
    counts->received = sock->plain_rx.load(std::memory_order_relaxed) + KernelQueue(fd, FIONREAD);
  }
  counts->sent = Above(end, counts->unsent);
  counts->acked = Above(end, unacked);
  return true;
}

}  // namespace vsocket::shim
