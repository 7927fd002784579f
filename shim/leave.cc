// A connection leaves its channel for good: both directions go to TCP, so that whoever has the socket next needs to know nothing of rings.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>

#include "shim/agent_link.h"
#include "shim/epoll_set.h"
#include "shim/sleepers.h"
#include "shim/stream_parts.h"
#include "shim/sys.h"

namespace vsocket::shim {
namespace {

constexpr std::uint64_t kHandOverNs = 10ULL * 1000 * 1000 * 1000;  // how long a hand-over waits for a peer that does not run
constexpr std::uint64_t kLastFramesNs = 20ULL * 1000 * 1000;       // how long a close waits for a frame that is on its way

void SetOption(int fd, int name, int value) {
  Sys(SYS_setsockopt, fd, IPPROTO_TCP, name, &value, sizeof value);
}

// Both locks. The kernel's socket is all there is from here on.
void BackToPlain(Sock* sock, int fd, const Channel& ch, channel::Reason reason) {
  ch.mine->attached.store(channel::kGoneToTcp, std::memory_order_release);
  SetOption(fd, TCP_NODELAY, sock->nodelay.load(std::memory_order_relaxed));
  if (sock->cork.load(std::memory_order_relaxed)) SetOption(fd, TCP_CORK, 1);
  sock->plain_tx.store(sock->out.pos, std::memory_order_relaxed);
  sock->plain_rx.store(sock->in.pos, std::memory_order_relaxed);
  sock->framed.store(0, std::memory_order_relaxed);
  SendRelease(sock, reason);
  sock->phase.store(Phase::kPlain, std::memory_order_release);
  NoteRingChange();
  if (sock->sleepers.load(std::memory_order_relaxed) != 0) WakeSleepers(sock);
  LetGoRegion(sock);
}

// Is there nothing in the ring that this program has not read, and no frame where it could not be taken from?
bool NothingToWaitFor(Sock* sock, const Channel& ch) {
  if (sock->rx.mode == RxMode::kDraining || !channel::RefreshData(sock->in, *ch.theirs)) return false;
  if (sock->rx.mode == RxMode::kRing) return channel::Available(sock->in) == 0;  // bells are next in the TCP queue
  if (sock->rx.tcp_pos != sock->in.pos) return false;  // a replay of what was read from the ring already: not for the next owner
  // Not entered: payload by TCP comes before. Frames behind it would reach the next owner.
  const channel::Proposal proposal = LoadProposal(ch);
  const bool empty = proposal.generation == sock->rx.generation || ch.theirs->tail.load(std::memory_order_acquire) == proposal.start;
  return empty && MissingBells(sock, ch) == 0;
}

// The receiving half leaves without the sender, whose program may be doing something else for a long time (gate.h).
bool GoAlone(Sock* sock, const Channel& ch) {
  if (!NothingToWaitFor(sock, ch)) return false;
  channel::Disarm(ch.mine->data_waiter);
  channel::Disarm(ch.mine->space_waiter);
  const bool early = channel::KindOf(ch.mine->gate.load(std::memory_order_relaxed)) == channel::GateKind::kShutEarly;
  if (!channel::Go(ch.mine->gate)) return false;
  channel::SleepWakeFence();
  return NothingToWaitFor(sock, ch) || !channel::ComeBack(ch.mine->gate, early);
}

// Bells that were sent before the sender could see that we have gone: exactly those, for payload may be right behind them.
bool TakeMissingBells(Sock* sock, int fd, const Channel& ch) {
  const std::uint32_t missing = MissingBells(sock, ch);
  if (missing == 0) return true;
  const long taken = Sys(SYS_recvfrom, fd, nullptr, missing, MSG_TRUNC | MSG_DONTWAIT, nullptr, nullptr);
  if (taken == 0) return true;  // cut off with the rest of the stream
  if (taken < 0 && taken != -EAGAIN) NoteKernelEnd(sock, static_cast<int>(-taken));
  if (taken > 0) sock->bells_seen += static_cast<std::uint32_t>(taken);
  return taken == static_cast<long>(missing);
}

std::uint64_t QueuedByTcp(int fd) {
  int queued = 0;
  Sys(SYS_ioctl, fd, FIONREAD, &queued);
  return static_cast<std::uint64_t>(queued);
}

// What is queued for the next owner stays: with that, only the peer's answer is worth waiting for.
void PollOnce(int fd, short events) {
  const bool readable = QueuedByTcp(fd) != 0;
  struct pollfd item = {fd, static_cast<short>(readable ? events : events | POLLIN), 0};
  const struct timespec patience = {0, (readable ? 1 : 50) * 1000 * 1000};
  Sys(SYS_ppoll, &item, 1, &patience, nullptr, 0);
}

// Is a frame on its way, or a replay of what was read from the ring already?
bool FramesToCome(const Sock* sock, const Channel& ch, bool switch_due) {
  if (MissingBells(sock, ch) != 0) return true;
  const bool switched = sock->rx.mode == RxMode::kTcp && sock->rx.tcp_pos == sock->in.pos;
  return switch_due && sock->rx.mode != RxMode::kDraining && !switched;
}

class Leaving {
 public:
  Leaving(Sock* sock, int fd) : sock_(sock), fd_(fd) {}

  // Both locks. First of all, once: whether or not the peer is on the ring now, it cannot come back to it.
  void Begin(const Channel& ch) {
    (void)ConsiderProposal(sock_, fd_, ch);  // best on the ring, if it is the next to be read
    const std::uint32_t gate = channel::Shut(ch.mine->gate);
    const channel::GateKind kind = channel::KindOf(gate);
    held_ = channel::HeldGeneration(gate);
    guarded_ = channel::IsUp(gate);
    all_out_ = kind == channel::GateKind::kOpen || kind == channel::GateKind::kRetreated;
    const channel::Proposal proposal = LoadProposal(ch);
    if (kind == channel::GateKind::kRetreated && channel::IsNew(sock_->rx, proposal)) channel::PassLeftRing(sock_->rx, proposal);
    gone_ = TryAlone(ch);
    // A SWITCH wakes the peer to see the gate, whatever it waits with; a direction that is on TCP goes up just to send one.
    if (!gone_ && sock_->tx.mode == TxMode::kTcp && held_ != 0) (void)GoUpNow(sock_, ch, 0);
  }

  // Both locks. As far as one can get now.
  void Go(const Channel& ch) {
    if (sock_->tx.mode == TxMode::kRing) (void)StartLeaving(sock_, fd_, ch);
    if (sock_->tx.mode == TxMode::kLeaving) (void)Flush(sock_, fd_, ch);
    if (!gone_) Receive(ch);
    if (!gone_) gone_ = TryAlone(ch);
    bells_taken_ = gone_ && TakeMissingBells(sock_, fd_, ch);
  }

  [[nodiscard]] bool HasSentAll() const { return sock_->tx.mode == TxMode::kTcp || sock_->shut_wr.load(std::memory_order_relaxed) != 0; }
  [[nodiscard]] bool HasReceivedAll(const Channel& ch) const {
    // Without SWITCH: all that comes is payload.
    const bool silently = channel::IsAnsweredEarly(ch.mine->gate) && sock_->rx.mode == RxMode::kTcp && sock_->rx.tcp_pos == sock_->in.pos;
    return bells_taken_ || ReceivedAll(ch) || silently;
  }

 private:
  // A SWITCH that is on its way must come first, or it reaches the next owner. There is none when the sender was up, and can go down by the
  // gate only; and none when all that it ever proposed is over.
  [[nodiscard]] bool TryAlone(const Channel& ch) const {
    const bool settled = sock_->rx.mode == RxMode::kTcp && LoadProposal(ch).generation == sock_->rx.generation && Replayed(ch);
    return (guarded_ || settled) && GoAlone(sock_, ch);
  }

  // What was given up of the ring comes again by TCP: nothing but a reset can cut it off, or all of it is here.
  [[nodiscard]] bool Replayed(const Channel& ch) const {
    const channel::GateKind kind = channel::KindOf(ch.mine->gate.load(std::memory_order_acquire));
    const bool answered = kind == channel::GateKind::kAnswered || kind == channel::GateKind::kAnsweredEarly;
    return guarded_ || all_out_ || answered || sock_->in.pos + QueuedByTcp(fd_) >= sock_->rx.drain_until;
  }

  void Receive(const Channel& ch) {
    (void)ConsiderProposal(sock_, fd_, ch);
    TakeFrames(sock_, fd_, ch);
    if (sock_->rx.mode == RxMode::kDraining) {
      channel::AbandonRing(sock_->rx);
      ConsiderDrained(sock_, ch);
    }
    if (sock_->rx.mode == RxMode::kTcp) (void)PayloadByTcp(sock_, fd_, ch);  // skips what was read from the ring already
  }

  [[nodiscard]] bool ReceivedAll(const Channel& ch) const {
    if (gone_) return false;
    const bool ended = sock_->fin_seen.load(std::memory_order_relaxed) != 0;
    const bool switched = sock_->rx.mode == RxMode::kTcp && sock_->rx.tcp_pos == sock_->in.pos &&
                          LoadProposal(ch).generation == sock_->rx.generation &&
                          (held_ == 0 || channel::GenerationBits(sock_->rx.generation) == held_);
    return Replayed(ch) && (switched || (ended && channel::Available(sock_->in) == 0));
  }

  Sock* sock_;
  int fd_;
  std::uint32_t held_ = 0;    // the generation in which the sender was on the ring
  bool guarded_ = false;      // ... and leaves it for us
  bool all_out_ = false;      // it had left before, and its replay was out
  bool gone_ = false;         // left without the sender
  bool bells_taken_ = false;  // gone, and no frame is left in the queue
};

}  // namespace

void RefuseFrames(Sock* sock, int fd, const Channel& ch) {
  const std::uint32_t gate = channel::Shut(ch.mine->gate);
  // A sender on the ring may leave without a SWITCH. Here that is no loss: what it sends from now on finds a closed socket.
  const bool leaving = channel::KindOf(gate) == channel::GateKind::kSwitching;
  const bool switch_due = leaving || (channel::IsUp(gate) && !channel::Go(ch.mine->gate));
  const std::uint64_t give_up = MonotonicNs() + kLastFramesNs;
  for (;;) {
    if (sock->rx.mode == RxMode::kTcp) (void)ConsiderProposal(sock, fd, ch);
    TakeFrames(sock, fd, ch);
    if (sock->rx.mode == RxMode::kTcp && sock->rx.tcp_pos != sock->in.pos) (void)PayloadByTcp(sock, fd, ch);
    const bool over = sock->fin_seen.load(std::memory_order_relaxed) != 0 || sock->error.load(std::memory_order_relaxed) != 0;
    if (over || !FramesToCome(sock, ch, switch_due) || MonotonicNs() > give_up) return;
    PollOnce(fd, 0);
  }
}

void LeaveForGood(SockRef ref, int fd, channel::Reason reason) {
  Sock* sock = ref.sock;
  const LetGoAtEnd let_go(ref, fd);
  std::uint16_t none = 0;
  sock->pinned.compare_exchange_strong(none, static_cast<std::uint16_t>(reason), std::memory_order_relaxed);
  const std::uint64_t give_up = MonotonicNs() + kHandOverNs;
  Leaving leaving(sock, fd);
  for (bool first = true;; first = false) {
    Holding rx(sock->rx_lock);
    Holding tx(sock->tx_lock);
    Channel ch;
    if (!rx.Held() || !tx.Held() || ref.Stale()) return;
    if (sock->phase.load(std::memory_order_relaxed) != Phase::kAttached) {
      if (first) SendNote(sock, reason);
      return;
    }
    if (!OpenChannel(sock, &ch) || sock->dead.load(std::memory_order_relaxed) != 0) return;
    if (first) leaving.Begin(ch);
    leaving.Go(ch);
    const bool received = leaving.HasReceivedAll(ch);
    if (received && leaving.HasSentAll()) return BackToPlain(sock, fd, ch, reason);
    // What is only in the ring would be lost unseen. (An end of the peer's stream is no hurry for what it has yet to read of ours.)
    const bool ended = sock->fin_seen.load(std::memory_order_relaxed) != 0 && !received;
    if (ended || MonotonicNs() > give_up) return Kill(sock, fd, "no hand-over in time");
    const short events = sock->tx.mode == TxMode::kLeaving ? POLLOUT : 0;
    tx.Unlock();
    rx.Unlock();
    PollOnce(fd, events);
  }
}

}  // namespace vsocket::shim
