// The receiving half: payload by TCP up to a proposal's start, from the ring after it, frames in between.
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>

#include "shim/sleepers.h"
#include "shim/stream_parts.h"
#include "shim/sys.h"

namespace vsocket::shim {
namespace {

constexpr std::size_t kFrameBatch = 64;

// TCP discards instead of copying when MSG_TRUNC is set (tcp(7)).
long Discard(int fd, std::uint64_t size) {
  return Sys(SYS_recvfrom, fd, nullptr, size, MSG_TRUNC | MSG_DONTWAIT, nullptr, nullptr);
}

// Payload by TCP, with the peer free to propose at any byte: peek, cut at the proposal, then take exactly that much.
ssize_t ReceiveByTcp(Sock* sock, int fd, const Channel& ch, const struct iovec* parts, int count, int flags) {
  channel::SwitchReceiver& rx = sock->rx;
  while (rx.tcp_pos < sock->in.pos) {  // a replay of what was read from the ring
    const long skipped = Discard(fd, sock->in.pos - rx.tcp_pos);
    if (skipped == 0) return 0;
    if (skipped < 0) return skipped;
    rx.tcp_pos += static_cast<std::uint64_t>(skipped);
  }
  struct msghdr message = {};
  message.msg_iov = const_cast<struct iovec*>(parts);
  message.msg_iovlen = static_cast<std::size_t>(count);
  const long seen = Sys(SYS_recvmsg, fd, &message, MSG_PEEK | MSG_DONTWAIT | (flags & MSG_TRUNC));
  if (seen <= 0) return seen;
  const std::uint64_t bound = channel::PayloadBound(rx, LoadProposal(ch));
  std::uint64_t size = static_cast<std::uint64_t>(seen) < bound ? static_cast<std::uint64_t>(seen) : bound;
  if (size == 0) return -EINPROGRESS;  // frames only: the ring begins here
  if (flags & MSG_PEEK) return static_cast<ssize_t>(size);
  const long taken = Discard(fd, size);
  if (taken != static_cast<long>(size)) return taken < 0 ? taken : -EAGAIN;  // somebody else reads this socket behind our back
  rx.tcp_pos += size;
  sock->in.pos += size;
  ch.mine->head.store(sock->in.pos, std::memory_order_release);  // pairs with ConsiderGoingUp
  return static_cast<ssize_t>(size);
}

ssize_t ReceiveByRing(Sock* sock, const Channel& ch, const struct iovec* parts, int count, int flags) {
  channel::ConsumerState& in = sock->in;
  std::uint64_t available = channel::Available(in);
  if (sock->rx.mode == RxMode::kDraining && available > sock->rx.drain_until - in.pos) available = sock->rx.drain_until - in.pos;
  std::uint64_t done = 0;
  for (int i = 0; i < count && done < available; ++i) {
    const std::uint64_t size = parts[i].iov_len < available - done ? parts[i].iov_len : available - done;
    if (!(flags & MSG_TRUNC)) channel::CopyOut(in, ch.in_ring, done, parts[i].iov_base, size);
    done += size;
  }
  if (!(flags & MSG_PEEK)) {
    channel::Consume(in, *ch.mine, done);
    sock->ring_rx += done;
  }
  return static_cast<ssize_t>(done);
}

// The end of the stream, once everything before it has been read.
ssize_t EndOfStream(Sock* sock, int fd, const Channel& ch) {
  const std::uint16_t error = sock->error.exchange(0, std::memory_order_relaxed);
  const int judged = error != 0 ? EndError(sock, fd, ch, error) : 0;
  if (error != 0 && judged == 0) sock->only_fin = true;
  return -static_cast<ssize_t>(judged);
}

}  // namespace

namespace {

bool IsHere(const Sock* sock, int fd, std::uint64_t by_tcp) {
  if (by_tcp <= sock->in.pos) return true;
  if (sock->rx.mode == RxMode::kDraining && by_tcp <= sock->rx.drain_until) return true;  // the ring outlives its writer
  int queued = 0;
  Sys(SYS_ioctl, fd, FIONREAD, &queued);
  return by_tcp <= sock->rx.tcp_pos + static_cast<std::uint64_t>(queued);
}

}  // namespace

bool AllSentIsHere(const Sock* sock, int fd, const Channel& ch) {
  return IsHere(sock, fd, ch.theirs->tcp_sent.load(std::memory_order_acquire));
}

bool AllOfferedIsHere(const Sock* sock, int fd, const Channel& ch) {
  return IsHere(sock, fd, ch.theirs->tcp_offered.load(std::memory_order_acquire));
}

namespace {

int SocketError(int fd) {
  int error = 0;
  int size = sizeof error;
  Sys(SYS_getsockopt, fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

// A sender that died in the middle of a SWITCH: its first bytes stay in the queue, before the end that a look at the queue never meets.
bool EndsWithinFrame(int fd, std::size_t left) {
  struct pollfd item = {fd, POLLRDHUP, 0};
  const struct timespec now = {};
  if (Sys(SYS_ppoll, &item, 1, &now, nullptr, 0) != 1 || (item.revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0) return false;
  int queued = 0;
  return Sys(SYS_ioctl, fd, FIONREAD, &queued) == 0 && queued <= static_cast<int>(left);  // nothing came in between
}

}  // namespace

int JudgeError(SockRef ref, int fd, int error) {
  Sock* sock = ref.sock;
  const LetGoAtEnd let_go(ref, fd);
  Holding rx(sock->rx_lock);
  Channel ch;
  if (!rx.Held() || ref.Stale() || sock->phase.load(std::memory_order_relaxed) != Phase::kAttached || !OpenChannel(sock, &ch)) return error;
  // The kernel's error is of the same cut: the program is told once, by whatever call comes first.
  if (sock->dead.load(std::memory_order_relaxed) == kKilled) return sock->error.exchange(0, std::memory_order_relaxed);
  TakeFrames(sock, fd, ch);
  if (error == 0) error = sock->error.exchange(0, std::memory_order_relaxed);
  if (error == 0) return 0;
  const int judged = EndError(sock, fd, ch, error);
  if (judged == 0) sock->only_fin = true;
  return judged;
}

int EndError(const Sock* sock, int fd, const Channel& ch, int error) {
  if (IsRevoked(sock, ch)) return ECONNRESET;
  if (error != ECONNRESET && error != EPIPE) return error;
  if (sock->dead.load(std::memory_order_relaxed) == kKilled) return error;
  if (ch.mine->proposal_generation.load(std::memory_order_relaxed) == 0) return error;  // no frame of ours was there to be unread
  const std::uint32_t attached = ch.theirs->attached.load(std::memory_order_acquire);
  if (attached == channel::kAborted || attached == channel::kGoneToTcp) return error;
  if (ch.theirs->head.load(std::memory_order_acquire) != PublishedPosition(*ch.mine)) return error;
  return AllSentIsHere(sock, fd, ch) ? 0 : error;
}

void NoteKernelEnd(Sock* sock, int error) {
  if (error != 0) {
    sock->error.store(static_cast<std::uint16_t>(error), std::memory_order_relaxed);
    NoteReset(sock);
  }
  sock->fin_seen.store(1, std::memory_order_release);
  sock->framed.store(0, std::memory_order_relaxed);  // the peer's direction carries no frames any more: it cannot ring us
}

channel::Proposal LoadProposal(const Channel& ch) {
  channel::Proposal proposal;
  // acquire: pairs with the sender's release of the generation, stored after marker and start.
  proposal.generation = ch.theirs->proposal_generation.load(std::memory_order_acquire);
  proposal.marker = static_cast<std::uint8_t>(ch.theirs->proposal_marker.load(std::memory_order_relaxed));
  proposal.start = ch.theirs->proposal_start.load(std::memory_order_relaxed);
  return proposal;
}

bool ConsiderProposal(Sock* sock, int fd, const Channel& ch) {
  if (sock->rx.tcp_pos != sock->in.pos) return false;  // a replay is still to be skipped
  const channel::Proposal proposal = LoadProposal(ch);
  if (!channel::MayEnterRing(sock->rx, proposal)) return false;
  const channel::Entry entry = channel::Enter(ch.mine->gate);
  if (entry == channel::Entry::kTcp) {
    channel::PassLeftRing(sock->rx, proposal);
    ch.mine->finished_generation.store(proposal.generation, std::memory_order_release);  // as in ConsiderDrained
    return false;
  }
  if (entry == channel::Entry::kDrain) {
    sock->in.seen_tail = sock->in.pos;
    if (!channel::RefreshData(sock->in, *ch.theirs)) {  // after the gate: the tail is final
      Kill(sock, fd, "impossible tail");
      return false;
    }
    channel::EnterLeftRing(sock->rx, proposal, sock->in.seen_tail);
    ConsiderDrained(sock, ch);
    return true;
  }
  (void)channel::EnterRing(sock->rx, proposal);
  sock->in.seen_tail = sock->in.pos;
  ch.mine->head.store(sock->in.pos, std::memory_order_release);
  sock->framed.store(sock->fin_seen.load(std::memory_order_relaxed) == 0, std::memory_order_relaxed);
  // The kernel told an edge-triggered waiter of the frames while there was payload before them, and will not tell again: a SWITCH among
  // them, and all payload behind it, would be found by nobody.
  TakeFrames(sock, fd, ch);
  // The other direction follows: the peer needs our frames as soon as its ring is full, and this program may never send.
  if (!sock->tx_lock.HeldByMe() && sock->tx_lock.TryAcquire()) {
    (void)ConsiderGoingUp(sock, ch, 0);
    sock->tx_lock.Release();
  }
  return true;
}

void ConsiderDrained(Sock* sock, const Channel& ch) {
  (void)channel::FinishDraining(sock->rx, sock->in.pos);
  if (sock->rx.mode == RxMode::kTcp) {
    // release: the peer proposes again only after it has seen this, so nothing of the old generation is read any more.
    ch.mine->finished_generation.store(sock->rx.generation, std::memory_order_release);
  }
}

void TakeFrames(Sock* sock, int fd, const Channel& ch) {
  if (sock->fin_seen.load(std::memory_order_relaxed)) return;
  std::uint8_t bytes[kFrameBatch];
  while (sock->rx.mode == RxMode::kRing) {
    const long seen = Sys(SYS_recvfrom, fd, bytes, kFrameBatch, MSG_PEEK | MSG_DONTWAIT, nullptr, nullptr);
    if (seen == -EAGAIN || seen == -EINTR) return;
    // After the kernel's word: what was published before the end is seen.
    if (!channel::RefreshData(sock->in, *ch.theirs)) return Kill(sock, fd, "impossible tail");
    if (seen <= 0) return NoteKernelEnd(sock, static_cast<int>(-seen));
    const channel::FrameScan scan = channel::ScanFrames(sock->rx, bytes, static_cast<std::size_t>(seen), sock->in.pos, sock->in.seen_tail);
    if (scan.outcome == channel::FrameScan::Outcome::kBroken) return Kill(sock, fd, "a frame that is none");
    if (scan.consumed != 0 && Discard(fd, scan.consumed) != static_cast<long>(scan.consumed))
      return Kill(sock, fd, "somebody else reads its frames");
    sock->bells_seen += static_cast<std::uint32_t>(scan.bells);
    if (sock->rx.mode != RxMode::kRing) {
      sock->framed.store(0, std::memory_order_relaxed);
      ConsiderDrained(sock, ch);
    }
    if (scan.consumed < static_cast<std::size_t>(seen) && sock->rx.mode == RxMode::kRing && EndsWithinFrame(fd, seen - scan.consumed)) {
      if (!channel::RefreshData(sock->in, *ch.theirs)) return Kill(sock, fd, "impossible tail");
      return NoteKernelEnd(sock, SocketError(fd));
    }
    if (scan.consumed != 0 && sock->sleepers.load(std::memory_order_relaxed) != 0) WakeSleepers(sock);
    // Until the queue is empty: a FIN right behind a bell came with the same edge of the kernel's, which does not tell of it again.
    if (scan.consumed < static_cast<std::size_t>(seen)) return;
  }
}

ssize_t TryReceive(SockRef ref, int fd, const struct iovec* parts, int count, int flags) {
  Sock* sock = ref.sock;
  const LetGoAtEnd let_go(ref, fd);
  Holding rx(sock->rx_lock, AloneWith(sock));
  if (!rx.Held()) return -EAGAIN;
  Channel ch;
  if (ref.Stale()) return -EBADF;
  if (sock->phase.load(std::memory_order_relaxed) != Phase::kAttached || !OpenChannel(sock, &ch)) return kNotAttached;
  const std::size_t wanted = TotalSize(parts, count);
  if (wanted == 0) return 0;
  if (IsRevoked(sock, ch)) Kill(sock, fd, "the agent revoked the channel");
  channel::ConsumerState& in = sock->in;
  for (int turn = 0; turn < 64; ++turn) {
    if (sock->dead.load(std::memory_order_relaxed) == kKilled) return EndOfStream(sock, fd, ch);
    if (sock->rx.mode == RxMode::kTcp) {
      if (ConsiderProposal(sock, fd, ch)) continue;  // first: what a killed sender put into its ring still counts
      // Also of a connection that is reset: the kernel keeps what came before.
      const ssize_t got = ReceiveByTcp(sock, fd, ch, parts, count, flags);
      if (got == -EINPROGRESS) continue;
      if (got == -EAGAIN && ConsiderProposal(sock, fd, ch)) continue;
      if (got > 0 || got == -EAGAIN || got == -EFAULT || got == -EINVAL || got == -ENOMEM) return got;
      NoteKernelEnd(sock, static_cast<int>(-got));
      if (ConsiderProposal(sock, fd, ch)) continue;  // made before the end
      return EndOfStream(sock, fd, ch);
    }
    if (channel::Available(in) < wanted && !channel::RefreshData(in, *ch.theirs)) {
      Kill(sock, fd, "impossible tail");
      continue;
    }
    if (channel::Available(in) != 0) {
      const ssize_t got = ReceiveByRing(sock, ch, parts, count, flags);
      if (sock->rx.mode == RxMode::kDraining) ConsiderDrained(sock, ch);
      // A peer that has sent its FIN wants no room: if it has closed, a bell would be answered with a reset.
      const bool room_to_tell = sock->rx.mode == RxMode::kRing && !sock->fin_seen.load(std::memory_order_relaxed) &&
                                channel::Available(in) + channel::WritableRoom(in.capacity_log2) <= (1ULL << in.capacity_log2);
      const std::uint32_t waiter =
          room_to_tell ? channel::TakeWaiter(ch.theirs->space_waiter) : static_cast<std::uint32_t>(channel::kNobody);
      // What this side has on its way by TCP would go with it if the process died beside an unread bell.
      const bool by_tcp = sock->tx.mode != channel::SwitchSender::Mode::kRing;
      if (by_tcp && sock->rx.mode == RxMode::kRing && channel::Available(in) == 0 && MissingBells(sock, ch) != 0) TakeFrames(sock, fd, ch);
      rx.Unlock();
      if (waiter != channel::kNobody) RingForRoom(ref, fd, waiter);
      return got;
    }
    if (sock->rx.mode == RxMode::kDraining) {
      ConsiderDrained(sock, ch);
      continue;
    }
    if (sock->fin_seen.load(std::memory_order_acquire)) {  // perhaps noted just now, by a thread that sends: what came before it counts
      if (!channel::RefreshData(in, *ch.theirs)) Kill(sock, fd, "impossible tail");
      if (sock->dead.load(std::memory_order_relaxed) != kKilled && channel::Available(in) != 0) continue;
      return EndOfStream(sock, fd, ch);
    }
    TakeFrames(sock, fd, ch);
    if (sock->rx.mode == RxMode::kRing && channel::Available(in) == 0 && !sock->fin_seen.load(std::memory_order_relaxed)) {
      if (sock->shut_rd.load(std::memory_order_relaxed)) return 0;
      if (!sock->shim_waits.load(std::memory_order_relaxed)) {
        // Whoever waits for this socket next may do so behind our back: leave the bell armed.
        channel::Arm(ch.mine->data_waiter, channel::kTcpBell);
        if (!channel::RefreshData(in, *ch.theirs)) Kill(sock, fd, "impossible tail");
        if (channel::Available(in) != 0) continue;
      }
      return -EAGAIN;
    }
  }
  return -EAGAIN;
}

}  // namespace vsocket::shim
