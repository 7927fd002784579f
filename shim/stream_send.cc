// The sending half: by TCP until the ring may be entered, by the ring after it, and the way back.
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "shim/agent_link.h"
#include "shim/config.h"
#include "shim/grant.h"
#include "shim/sleepers.h"
#include "shim/stats.h"
#include "shim/stream_parts.h"
#include "shim/sys.h"
#include "shim/trim.h"
#include "shim/wake_fds.h"

namespace vsocket::shim {
namespace {

constexpr std::uint16_t kPatientAttempts = 64;
constexpr std::uint64_t kProvenReader = 1 << 20;     // bytes
constexpr std::uint64_t kLookAroundTicks = 2000000;  // about a millisecond
constexpr std::uint64_t kAcknowledgeNs = 1000ULL * 1000 * 1000;
constexpr std::uint64_t kFinishNs = 10ULL * 1000 * 1000 * 1000;

long SendNow(int fd, const void* bytes, std::size_t size, int flags) {
  return Sys(SYS_sendto, fd, bytes, size, flags | MSG_DONTWAIT | MSG_NOSIGNAL, nullptr, 0);
}

std::uint32_t Bigger(std::uint32_t capacity_log2) {
  return capacity_log2 + 2 < channel::kRingMaxLog2 ? capacity_log2 + 2 : static_cast<std::uint32_t>(channel::kRingMaxLog2);
}

// Bigger when the program has more to say than fits. Only an empty ring may change.
void AdjustCapacity(Sock* sock, const Channel& ch, std::uint64_t size) {
  channel::ProducerState& out = sock->out;
  std::uint32_t capacity_log2 = out.capacity_log2;
  if (!channel::IsDrained(out)) return;
  while (size >= (1ULL << capacity_log2) && capacity_log2 < channel::kRingMaxLog2) capacity_log2 = Bigger(capacity_log2);
  if (capacity_log2 == out.capacity_log2) return;
  channel::SetCapacity(out, *ch.mine, capacity_log2);
  NoteGrown(sock);
}

// Bytes that TCP has taken and not sent yet, for want of window.
bool MoreToDeliver(int fd) {
  int unsent = 0;
  return Sys(SYS_ioctl, fd, SIOCOUTQNSD, &unsent) == 0 && unsent > 0;
}

// The buffer is full of what the peer has, perhaps has read, and not acknowledged: it may be asleep, and no byte on the way to it. Its
// kernel acknowledges within 40 ms or so (delayed ACK, RFC 1122 4.2.3.2), and that is how long a send may be held up here.
long SendWhenAcknowledged(int fd, std::uint8_t byte) {
  const std::uint64_t give_up = MonotonicNs() + kAcknowledgeNs;
  for (;;) {
    struct pollfd item = {fd, POLLOUT, 0};
    const struct timespec patience = {0, 10 * 1000 * 1000};
    Sys(SYS_ppoll, &item, 1, &patience, nullptr, 0);
    const long sent = SendNow(fd, &byte, 1, 0);
    if (sent != -EAGAIN || MonotonicNs() > give_up) return sent;
  }
}

// A frame could not be sent. That has taken the error off the kernel's socket: the program is to see it.
int NoteSendError(Sock* sock, long result) {
  if (result == -EAGAIN || result == -EINTR) return static_cast<int>(result);
  if (result != -EPIPE) sock->error.store(static_cast<std::uint16_t>(-result), std::memory_order_relaxed);
  NoteReset(sock);
  return static_cast<int>(result);
}

int ErrorForSender(Sock* sock) {
  const std::uint16_t error = sock->error.exchange(0, std::memory_order_relaxed);
  return error != 0 ? -static_cast<int>(error) : -EPIPE;
}

// What was sent by TCP and is not delivered yet goes with a process that dies beside an unread frame: its kernel resets. So payload goes by
// TCP only when no frame is unread or on its way. The peer, before it sends one that no payload of its own comes with, looks whether ours
// is on the way (LeaveIfAllIsHere, RingForRoom); we have told of ours before we look here, and one of the two sees the other. A frame that
// is announced comes at once, unless its sender is off the CPU: that is not waited for.
void TakeFramesBeforePayload(Sock* sock, int fd, const Channel& ch) {
  constexpr int kLooks = 64;
  channel::SleepWakeFence();
  if (!sock->rx_lock.TryAcquire()) return;  // who receives takes them
  (void)ConsiderProposal(sock, fd, ch);
  for (int look = 0; look < kLooks && sock->rx.mode == RxMode::kRing && sock->fin_seen.load(std::memory_order_relaxed) == 0; ++look) {
    if (MissingBells(sock, ch) == 0 && !channel::SenderHasLeft(ch.mine->gate)) break;
    if (look != 0) Sys(SYS_sched_yield);
    TakeFrames(sock, fd, ch);
  }
  sock->rx_lock.Release();
}

ssize_t SendByTcp(Sock* sock, int fd, const Channel& ch, const struct iovec* parts, int count, int flags) {
  struct msghdr message = {};
  message.msg_iov = const_cast<struct iovec*>(parts);
  message.msg_iovlen = static_cast<std::size_t>(count);
  ch.mine->tcp_offered.store(sock->out.pos + TotalSize(parts, count), std::memory_order_release);
  TakeFramesBeforePayload(sock, fd, ch);
  if (sock->dead.load(std::memory_order_relaxed) == kKilled) return ErrorForSender(sock);
  const long sent = Sys(SYS_sendmsg, fd, &message, (flags & MSG_MORE) | MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent > 0) sock->out.pos += static_cast<std::uint64_t>(sent);
  // Should this process die before this, its kernel may drop what it has just taken. Nobody was told yet that it was sent.
  ch.mine->tcp_sent.store(sock->out.pos, std::memory_order_release);  // pairs with the peer's ConsiderGoingUp
  ch.mine->tcp_offered.store(sock->out.pos, std::memory_order_release);
  return sent;
}

ssize_t Committed(Sock* sock, int fd, const Channel& ch, std::uint64_t size) {
  channel::Publish(sock->out, *ch.mine, size);
  sock->ring_tx += size;
  const std::uint32_t waiter = channel::TakeWaiter(ch.theirs->data_waiter);
  if (waiter != channel::kNobody) RingLocked(sock, fd, ch, waiter, BellFor::kData);
  // After TakeWaiter's fence: a receiver that left meanwhile has not seen these bytes.
  if (channel::MustLeave(ch.theirs->gate)) (void)StartLeaving(sock, fd, ch);
  return static_cast<ssize_t>(size);
}

// For a sender that has used up its grant: 0 when there is more by now, or what FindRoom gives.
ssize_t WithoutGrant(Sock* sock, int fd, const Channel& ch, std::uint64_t* granted) {
  const Grant grant = AwaitGrant(sock, fd, ch);
  if (grant == Grant::kLeft && sock->tx.mode == TxMode::kTcp) return -EINPROGRESS;
  *granted = grant == Grant::kHere ? MayPublish(sock, ch) : 0;
  return *granted != 0 ? 0 : -EAGAIN;
}

// Room in the ring for `wanted` bytes or fewer. 0: none, and the caller may wait; -EINPROGRESS: the direction left the ring, go on by TCP.
ssize_t FindRoom(Sock* sock, int fd, const Channel& ch, std::uint64_t wanted, std::uint64_t* room) {
  channel::ProducerState& out = sock->out;
  std::uint64_t granted = MayPublish(sock, ch);  // without a limit: more than anybody wants
  if (granted < wanted) [[unlikely]] {
    const ssize_t without = granted == 0 ? WithoutGrant(sock, fd, ch, &granted) : 0;
    if (without != 0) return without;
    if (granted < wanted) wanted = granted;
  }
  if (channel::Room(out) < wanted || out.capacity_log2 < channel::kRingMaxLog2) {
    if (!channel::RefreshRoom(out, *ch.theirs)) {
      Kill(sock, fd, "impossible head");
      return ErrorForSender(sock);
    }
    // With a limit the biggest ring at once: a ring that has to grow while there is something in it grows by TCP (OutgrowRing).
    AdjustCapacity(sock, ch, HasLimit(sock, ch) ? channel::kRingMax : wanted);
  }
  *room = channel::Room(out) < granted ? channel::Room(out) : granted;
  if (*room != 0) return 0;
  if (!sock->framed.load(std::memory_order_relaxed) && sock->rx_lock.TryAcquire()) {
    (void)ConsiderProposal(sock, fd, ch);  // a program that only sends has not looked
    sock->rx_lock.Release();
  }
  if (LooksForRoom(sock, ch)) return -EAGAIN;
  if (!sock->framed.load(std::memory_order_relaxed)) {
    // The reader could not ring us when it makes room: its direction carries no frames. So this one goes by TCP, where the kernel waits.
    const int left = StartLeaving(sock, fd, ch);
    return left == 0 ? -EINPROGRESS : left;
  }
  if (OutgrowRing(sock, fd, ch)) return sock->tx.mode == TxMode::kTcp ? -EINPROGRESS : -EAGAIN;
  return -EAGAIN;
}

bool MayGoUpNow(const Sock* sock, const Channel& ch) {
  if (sock->shut_wr.load(std::memory_order_relaxed) || sock->fin_seen.load(std::memory_order_relaxed)) return false;
  // acquire: pairs with the peer's release of `attached` and `finished_generation`; it will see what is stored from here on.
  if (ch.theirs->attached.load(std::memory_order_acquire) != sock->epoch) return false;
  return channel::MayGoUp(sock->tx, ch.theirs->finished_generation.load(std::memory_order_acquire)) && LeaseHolds(ch);
}

// Everything before payload may flow: a pending replay, the peer's wish for TCP, a proposal. 0: go on; otherwise what to return.
ssize_t SettleMode(Sock* sock, int fd, const Channel& ch, std::uint8_t next_byte) {
  if (sock->shut_wr.load(std::memory_order_relaxed) || sock->dead.load(std::memory_order_relaxed)) return ErrorForSender(sock);
  if (IsRevoked(sock, ch)) {
    Kill(sock, fd, "the agent revoked the channel");
    return ErrorForSender(sock);
  }
  if (Ticks() > sock->look_again) LookAround(sock, fd, ch);
  if (sock->tx.mode == TxMode::kRing && channel::MustLeave(ch.theirs->gate)) {
    const int left = StartLeaving(sock, fd, ch);
    if (left != 0) return left;
  }
  if (sock->tx.mode == TxMode::kLeaving) {
    const int left = Flush(sock, fd, ch);
    if (left != 0) return left;
  }
  if (sock->tx.mode == TxMode::kTcp) (void)ConsiderGoingUp(sock, ch, next_byte);
  if (sock->tx.mode == TxMode::kRing && sock->fin_seen.load(std::memory_order_relaxed)) {
    // The peer has closed, or half-closed: only TCP can tell which, so each send asks it.
    const int gone = Bell(sock, fd, ch, BellFor::kData);
    if (gone < 0 && gone != -EAGAIN) return ErrorForSender(sock);
  }
  return 0;
}

}  // namespace

bool LeaseHolds(const Channel& ch) {
  return LoadUntrusted(ch.region->lease_until_ns, std::memory_order_relaxed).ForDisplay() > MonotonicNs();
}

namespace {

// rx_lock
bool AnnounceIfAllIsHere(Sock* sock, int fd, const Channel& ch) {
  if (!AllOfferedIsHere(sock, fd, ch)) return false;
  if (channel::KindOf(ch.theirs->gate.load(std::memory_order_relaxed)) == channel::GateKind::kTaken) return false;  // it has yet to enter
  if (!channel::Announce(ch.theirs->gate, sock->tx.generation)) return true;
  channel::SleepWakeFence();  // with TakeFramesBeforePayload
  return AllOfferedIsHere(sock, fd, ch) || !channel::Withdraw(ch.theirs->gate, sock->tx.generation);
}

}  // namespace

bool LeaveIfAllIsHere(Sock* sock, int fd, const Channel& ch) {
  const bool mine = sock->rx_lock.HeldByMe();
  if (!mine && !sock->rx_lock.TryAcquire()) return false;
  const bool may = AnnounceIfAllIsHere(sock, fd, ch);
  if (!mine) sock->rx_lock.Release();
  if (may) (void)StartLeaving(sock, fd, ch);
  return may;
}

void LookAround(Sock* sock, int fd, const Channel& ch) {
  sock->look_again = Ticks() + kLookAroundTicks;
  PollAgent();
  TrimIdleRings();
  if (sock->tx.mode != TxMode::kRing) return;
  const std::uint64_t flap = GetConfig().flap_ns;
  if ((!LeaseHolds(ch) || (flap != 0 && MonotonicNs() - sock->up_since_ns > flap)) && LeaveIfAllIsHere(sock, fd, ch)) return;
  // A reset is noticed by a program that only ever sends. Any byte, and EAGAIN, mean that the connection stands.
  std::uint8_t byte = 0;
  const long seen = Sys(SYS_recvfrom, fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT, nullptr, nullptr);
  if (seen <= 0 && seen != -EAGAIN && seen != -EINTR) NoteKernelEnd(sock, static_cast<int>(-seen));
}

bool ConsiderGoingUp(Sock* sock, const Channel& ch, std::uint8_t next_byte) {
  if (sock->pinned.load(std::memory_order_relaxed) != 0 || !MayGoUpNow(sock, ch)) return false;
  if (MayPublish(sock, ch) == 0 && !MayHopeForGrant(sock, ch)) return false;
  // Best when the receiver has read everything: then no frame of ours ever stands behind payload in its TCP queue, where a hand-over could
  // not get at it. A bulk sender may never see that moment, and goes up all the same once the receiver has shown that it reads for itself:
  // those that hand a connection over do so after its first bytes. And when the peer has no payload by TCP on the way to us: should it die
  // with a bell of ours unread, its kernel would drop that. A peer that is up has none.
  const std::uint64_t head = ch.theirs->head.load(std::memory_order_acquire);
  const bool all_read = head == sock->out.pos;
  const bool all_here = PublishedPosition(*ch.theirs) == ch.mine->head.load(std::memory_order_relaxed);
  const bool peer_is_up = sock->framed.load(std::memory_order_relaxed) != 0;
  const bool may_be_impatient = head >= kProvenReader && (peer_is_up || ++sock->up_attempts >= kPatientAttempts);
  if (!(all_read && (all_here || peer_is_up)) && !may_be_impatient) return false;
  sock->up_attempts = 0;
  return GoUpNow(sock, ch, next_byte);
}

bool GoUpNow(Sock* sock, const Channel& ch, std::uint8_t next_byte) {
  if (!MayGoUpNow(sock, ch)) return false;
  if (!channel::Take(ch.theirs->gate, channel::NextGeneration(sock->tx.generation))) return false;
  channel::ProducerState& out = sock->out;
  if (sock->outgrown) {
    out.capacity_log2 = Bigger(out.capacity_log2);
    NoteGrown(sock);
  }
  sock->outgrown = false;
  const channel::Proposal proposal = channel::GoUp(sock->tx, out.pos, next_byte);
  out.seen_head = out.pos;
  ch.mine->capacity_log2.store(out.capacity_log2, std::memory_order_relaxed);
  ch.mine->tail.store(out.pos, std::memory_order_relaxed);
  ch.mine->proposal_marker.store(proposal.marker, std::memory_order_relaxed);
  ch.mine->proposal_start.store(proposal.start, std::memory_order_relaxed);
  ch.mine->proposal_generation.store(proposal.generation, std::memory_order_release);  // pairs with LoadProposal
  sock->up_since_ns = MonotonicNs();
  sock->up_at = out.pos;
  sock->up_bells = ch.mine->bells.load(std::memory_order_relaxed);
  sock->look_again = Ticks() + kLookAroundTicks;
  CountUp();
  return true;
}

namespace {

// tx_lock, kRing. Has this generation's first frame been sent?
bool HasFramed(const Sock* sock, const Channel& ch) {
  return ch.mine->bells.load(std::memory_order_relaxed) != sock->up_bells;
}

// tx_lock, kRing. The receiver has yet to read payload by TCP that came before.
bool IsBehindUnread(const Sock* sock, const Channel& ch) {
  return channel::KindOf(ch.theirs->gate.load(std::memory_order_relaxed)) == channel::GateKind::kTaken &&
         ch.theirs->head.load(std::memory_order_relaxed) < sock->up_at;
}

}  // namespace

int StartLeaving(Sock* sock, int fd, const Channel& ch) {
  // Bells that nobody has slept on would still be unread when this process dies, and its kernel then drops what it has sent by TCP. (Lock
  // order: only if it is free, or ours.)
  const bool mine = sock->rx_lock.HeldByMe();
  if (mine || sock->rx_lock.TryAcquire()) {
    TakeFrames(sock, fd, ch);
    if (!mine) sock->rx_lock.Release();
  }
  if (sock->tx.mode != TxMode::kRing) return sock->dead.load(std::memory_order_relaxed) != 0 ? -ECONNRESET : 0;
  // Where a SWITCH can be read it is sent: it wakes a receiver.
  const bool framed = HasFramed(sock, ch) || ch.theirs->head.load(std::memory_order_relaxed) >= sock->up_at;
  const bool tell = channel::Leave(ch.theirs->gate, sock->tx.generation, framed);
  if (channel::HasLeft(ch.theirs->gate)) GuardReplay(sock, fd);
  if (!channel::RefreshRoom(sock->out, *ch.theirs)) {  // after the gate: the head of one who has gone is final
    Kill(sock, fd, "impossible head");
    return -ECONNRESET;
  }
  (tell ? channel::GoDown : channel::GoDownSilently)(sock->tx, sock->out.seen_head, sock->out.pos);
  if (sock->tx.mode == TxMode::kTcp) channel::EndLeave(ch.theirs->gate, sock->tx.generation);  // nothing to replay, and no SWITCH
  CountDown();
  // Who sleeps for room in the ring waits for the kernel from now on.
  if (sock->sleepers.load(std::memory_order_relaxed) != 0) WakeSleepers(sock);
  return Flush(sock, fd, ch);
}

bool OutgrowRing(Sock* sock, int fd, const Channel& ch) {
  if (sock->out.capacity_log2 >= channel::kRingMaxLog2) return false;
  sock->outgrown = true;
  (void)StartLeaving(sock, fd, ch);
  return true;
}

int Flush(Sock* sock, int fd, const Channel& ch) {
  channel::SwitchSender& tx = sock->tx;
  if (sock->dead.load(std::memory_order_relaxed) == kKilled) return -ECONNRESET;
  // A FIN has cut the replay off: the reader has the ring.
  if (sock->shut_wr.load(std::memory_order_relaxed) != 0) return 0;
  const bool leaving = tx.mode == TxMode::kLeaving;
  if (leaving && channel::IsShutMeanwhile(ch.theirs->gate)) {
    GuardReplay(sock, fd);  // the receiver has left after the replay had begun, and waits for this
    channel::Answer(ch.theirs->gate);
  }
  while (tx.mode == TxMode::kLeaving) {
    const std::uint8_t* bytes = nullptr;
    std::size_t size = channel::PendingFrame(tx, &bytes);
    if (size == 0) {
      const std::uint64_t capacity = 1ULL << sock->out.capacity_log2;
      const std::uint64_t at = tx.replay_from & (capacity - 1);
      const std::uint64_t rest = tx.replay_end - tx.replay_from;
      bytes = reinterpret_cast<const std::uint8_t*>(ch.out_ring) + at;
      size = rest < capacity - at ? rest : capacity - at;
    }
    const long sent = SendNow(fd, bytes, size, 0);
    if (sent < 0) return NoteSendError(sock, sent);
    channel::SentWhileLeaving(tx, static_cast<std::size_t>(sent));
  }
  EndGuard(sock, fd);
  if (leaving) channel::EndLeave(ch.theirs->gate, tx.generation);
  return 0;
}

void GuardReplay(Sock* sock, int fd) {
  if (sock->guarded) return;
  int size = sizeof sock->linger;
  const int reset[2] = {1, 0};
  Sys(SYS_getsockopt, fd, SOL_SOCKET, SO_LINGER, sock->linger, &size);
  Sys(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, reset, sizeof reset);
  sock->guarded = true;
}

void EndGuard(Sock* sock, int fd) {
  if (!sock->guarded) return;
  Sys(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, sock->linger, sizeof sock->linger);
  sock->guarded = false;
}

void FinishReplay(SockRef ref, int fd) {
  Sock* sock = ref.sock;
  const std::uint64_t give_up = MonotonicNs() + kFinishNs;
  for (;;) {
    {
      Holding tx(sock->tx_lock);
      Channel ch;
      if (!tx.Held() || ref.Stale() || !OpenChannel(sock, &ch) || sock->tx.mode != TxMode::kLeaving) return;
      if (!sock->guarded && channel::Cut(ch.theirs->gate, sock->tx.generation)) return;
      if (Flush(sock, fd, ch) != -EAGAIN) return;
    }
    struct pollfd item = {fd, POLLOUT, 0};
    const struct timespec patience = {0, 50 * 1000 * 1000};
    if (MonotonicNs() > give_up) return;
    Sys(SYS_ppoll, &item, 1, &patience, nullptr, 0);
  }
}

int Bell(Sock* sock, int fd, const Channel& ch, BellFor what) {
  if (sock->tx.mode != TxMode::kRing || sock->shut_wr.load(std::memory_order_relaxed)) return 0;
  // Counted first: a receiver that leaves waits for those that are on their way, and one that has left gets none (gate.h).
  ch.mine->bells.fetch_add(1, std::memory_order_seq_cst);
  const channel::GateKind kind = channel::KindOf(ch.theirs->gate.load(std::memory_order_seq_cst));
  const bool gone = kind == channel::GateKind::kGone || kind == channel::GateKind::kShutEarly;
  // With TakeFramesBeforePayload: who has left the ring has payload for TCP, and wants no room.
  const bool moot = gone || (what == BellFor::kRoom && channel::SenderHasLeft(ch.mine->gate));
  long sent = moot ? 0 : SendNow(fd, &sock->tx.marker, 1, 0);
  if (sent == -EAGAIN && !MoreToDeliver(fd)) sent = SendWhenAcknowledged(fd, sock->tx.marker);
  if (sent != 1) ch.mine->bells.fetch_sub(1, std::memory_order_seq_cst);
  return sent < 0 ? NoteSendError(sock, sent) : 0;  // EAGAIN: what is still to be delivered makes the peer's socket readable
}

void RingLocked(Sock* sock, int fd, const Channel& ch, std::uint32_t target, BellFor what) {
  if (sock->dead.load(std::memory_order_relaxed) == kKilled) return;  // nor is the region held any more
  const Rung fast = target < channel::kFirstWakeFd ? Rung::kNo : RingWakeFd(sock, ch, target - channel::kFirstWakeFd);
  if (fast == Rung::kOnItsWay) return;
  CountRing(fast == Rung::kYes);
  if (fast == Rung::kYes) return;
  // A bell behind unread payload could not be taken for a hand-over. What it would tell of can tell of itself, by TCP.
  if (what == BellFor::kData && sock->tx.mode == TxMode::kRing && IsBehindUnread(sock, ch) && !HasFramed(sock, ch)) {
    (void)StartLeaving(sock, fd, ch);
    return;
  }
  (void)Bell(sock, fd, ch, what);
}

void RingForRoom(SockRef ref, int fd, std::uint32_t target) {
  Holding tx(ref.sock->tx_lock);
  Channel ch;
  if (!tx.Held() || ref.Stale() || !OpenChannel(ref.sock, &ch)) return;
  RingLocked(ref.sock, fd, ch, target, BellFor::kRoom);
}

bool RoomAfterAll(SockRef ref) {
  Sock* sock = ref.sock;
  Holding tx(sock->tx_lock);
  Channel ch;
  if (!tx.Held() || ref.Stale() || !OpenChannel(sock, &ch)) return false;
  sock->nospace.fetch_add(1, std::memory_order_relaxed);
  if (sock->tx.mode != TxMode::kRing || sock->sleepers.load(std::memory_order_relaxed) == 0) return false;
  if (MayPublish(sock, ch) == 0 || LooksForRoom(sock, ch)) {  // whoever sleeps already does not know that it is to look
    WakeSleepers(sock);
    return false;
  }
  // Several may sleep, and with different wake objects: all of them watch TCP.
  channel::Arm(ch.mine->space_waiter, channel::kTcpBell);
  return channel::RefreshRoom(sock->out, *ch.theirs) && channel::Room(sock->out) >= channel::WritableRoom(sock->out.capacity_log2);
}

ssize_t TrySend(SockRef ref, int fd, const struct iovec* parts, int count, int flags) {
  Sock* sock = ref.sock;
  const LetGoAtEnd let_go(ref, fd);
  Holding tx(sock->tx_lock, AloneWith(sock));
  if (!tx.Held()) return -EAGAIN;
  Channel ch;
  if (ref.Stale()) return -EBADF;
  if (sock->phase.load(std::memory_order_relaxed) != Phase::kAttached || !OpenChannel(sock, &ch)) return kNotAttached;
  std::uint64_t total = 0;
  std::uint8_t next_byte = 0;
  for (int i = count - 1; i >= 0; --i) {
    total += parts[i].iov_len;
    if (parts[i].iov_len != 0) next_byte = *static_cast<const std::uint8_t*>(parts[i].iov_base);
  }
  ssize_t settled = SettleMode(sock, fd, ch, next_byte);
  if (settled != 0) return settled;
  if (total == 0) return 0;
  if (sock->tx.mode == TxMode::kRing) {
    std::uint64_t room = 0;
    settled = FindRoom(sock, fd, ch, total, &room);
    if (settled == 0) {
      std::uint64_t done = 0;
      for (int i = 0; i < count && done < room; ++i) {
        const std::uint64_t size = parts[i].iov_len < room - done ? parts[i].iov_len : room - done;
        channel::CopyIn(sock->out, ch.out_ring, done, parts[i].iov_base, size);
        done += size;
      }
      return Committed(sock, fd, ch, done);
    }
    if (settled != -EINPROGRESS) return settled;
  }
  return SendByTcp(sock, fd, ch, parts, count, flags);
}

ssize_t TrySendFile(SockRef ref, int fd, int in_fd, off_t* offset, size_t size) {
  Sock* sock = ref.sock;
  const LetGoAtEnd let_go(ref, fd);
  Holding tx(sock->tx_lock);
  if (!tx.Held()) return -EAGAIN;
  Channel ch;
  if (ref.Stale()) return -EBADF;
  if (sock->phase.load(std::memory_order_relaxed) != Phase::kAttached || !OpenChannel(sock, &ch)) return kNotAttached;
  ssize_t settled = SettleMode(sock, fd, ch, 0);
  if (settled != 0) return settled;
  if (sock->tx.mode == TxMode::kRing) {
    std::uint64_t room = 0;
    settled = FindRoom(sock, fd, ch, size, &room);
    if (settled == 0) {
      std::uint64_t piece = 0;
      std::byte* into = channel::FreePiece(sock->out, ch.out_ring, size < room ? size : room, &piece);
      const long got = offset != nullptr ? Sys(SYS_pread64, in_fd, into, piece, *offset) : Sys(SYS_read, in_fd, into, piece);
      if (got <= 0) return got;
      if (offset != nullptr) *offset += got;
      return Committed(sock, fd, ch, static_cast<std::uint64_t>(got));
    }
    if (settled != -EINPROGRESS) return settled;
  }
  // By TCP, without sleeping under the lock whatever the socket's mode: read a piece, send it, move the file on by what was taken.
  char piece[16384];
  const long at = offset != nullptr ? *offset : Sys(SYS_lseek, in_fd, 0, SEEK_CUR);
  if (at < 0) return at;
  const long got = Sys(SYS_pread64, in_fd, piece, size < sizeof piece ? size : sizeof piece, at);
  if (got <= 0) return got;
  const struct iovec part = {piece, static_cast<std::size_t>(got)};
  const ssize_t sent = SendByTcp(sock, fd, ch, &part, 1, 0);
  if (sent <= 0) return sent;
  if (offset != nullptr) *offset += sent;
  if (offset == nullptr) Sys(SYS_lseek, in_fd, at + sent, SEEK_SET);
  return sent;
}

}  // namespace vsocket::shim
