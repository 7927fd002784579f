// The connection as a whole: how it begins on a channel, what is ready, how it sleeps, and how it ends.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>

#include "shim/agent_link.h"
#include "shim/epoll_set.h"
#include "shim/grant.h"
#include "shim/log.h"
#include "shim/sleepers.h"
#include "shim/stats.h"
#include "shim/stream_parts.h"
#include "shim/sys.h"

namespace vsocket::shim {
namespace {

int GetOption(int fd, int level, int name) {
  int value = 0;
  int size = sizeof value;
  return Sys(SYS_getsockopt, fd, level, name, &value, &size) == 0 ? value : 0;
}

void SetOption(int fd, int level, int name, int value) {
  Sys(SYS_setsockopt, fd, level, name, &value, sizeof value);
}

// rx_lock, kTcp, any replay skipped. Payload bytes in the TCP queue.
std::uint64_t QueuedPayload(Sock* sock, int fd, const Channel& ch) {
  int queued = 0;
  Sys(SYS_ioctl, fd, FIONREAD, &queued);
  const std::uint64_t bound = channel::PayloadBound(sock->rx, LoadProposal(ch));
  return static_cast<std::uint64_t>(queued) < bound ? static_cast<std::uint64_t>(queued) : bound;
}

void LookIn(Sock* sock, int fd, const Channel& ch, bool kernel_ready, Readiness* ready) {
  for (int turn = 0; turn < 4; ++turn) {
    if (sock->dead.load(std::memory_order_relaxed) == kKilled) {
      ready->in = true;
      return;
    }
    if (sock->rx.mode == RxMode::kTcp) {
      if (ConsiderProposal(sock, fd, ch)) continue;
      ready->in_by_kernel = !kernel_ready;
      if (kernel_ready) {
        ready->in = sock->error.load(std::memory_order_relaxed) != 0 || PayloadByTcp(sock, fd, ch);
        if (!ready->in && ConsiderProposal(sock, fd, ch)) continue;
      }
      ready->in_mark = sock->in.pos + (ready->in ? QueuedPayload(sock, fd, ch) : 0);
      return;
    }
    if (!channel::RefreshData(sock->in, *ch.theirs)) {
      Kill(sock, fd, "impossible tail");
      continue;
    }
    if (channel::Available(sock->in) == 0 && sock->rx.mode == RxMode::kDraining) {
      ConsiderDrained(sock, ch);
      continue;
    }
    if (kernel_ready) TakeFrames(sock, fd, ch);
    ready->in = channel::Available(sock->in) != 0 || sock->fin_seen.load(std::memory_order_relaxed);
    ready->in_mark = sock->in.seen_tail;
    if (ready->in || sock->rx.mode == RxMode::kRing) return;
  }
}

void LookOut(Sock* sock, int fd, const Channel& ch, Readiness* ready) {
  if (sock->dead.load(std::memory_order_relaxed) != 0) {
    ready->out = true;
    return;
  }
  if (sock->tx.mode == TxMode::kRing && channel::MustLeave(ch.theirs->gate)) (void)StartLeaving(sock, fd, ch);
  if (Ticks() > sock->look_again) LookAround(sock, fd, ch);
  if (sock->tx.mode == TxMode::kLeaving) (void)Flush(sock, fd, ch);
  if (sock->tx.mode != TxMode::kRing) {
    ready->out_by_kernel = true;
    return;
  }
  if (!channel::RefreshRoom(sock->out, *ch.theirs)) {
    Kill(sock, fd, "impossible head");
    ready->out = true;
    return;
  }
  if (MayPublish(sock, ch) == 0) {
    const Grant grant = AwaitGrant(sock, fd, ch);
    ready->out_by_kernel = grant == Grant::kLeft;
    if (grant != Grant::kHere) return;
  }
  ready->out = channel::Room(sock->out) >= channel::WritableRoom(sock->out.capacity_log2);
}

// The peer may hand the connection on later, to somebody without the ring: what it has not read goes by TCP, before the FIN. What the FIN
// overtakes of a replay is still in the ring, where the peer reads it.
void ReplayBeforeFin(Sock* sock, int fd, const Channel& ch) {
  if (sock->tx.mode == TxMode::kRing) (void)StartLeaving(sock, fd, ch);
  if (sock->tx.mode != TxMode::kLeaving || Flush(sock, fd, ch) != -EAGAIN) return;
  // Nothing but the replay is sent any more, so that the kernel need not tune the size itself.
  const int size = static_cast<int>(channel::kRingMax);
  Sys(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  (void)Flush(sock, fd, ch);
}

// Has the program asked for a reset when it closes?
bool IsAbortive(const Sock* sock, int fd) {
  struct linger linger = {sock->linger[0], sock->linger[1]};
  int size = sizeof linger;
  if (!sock->guarded) Sys(SYS_getsockopt, fd, SOL_SOCKET, SO_LINGER, &linger, &size);
  return linger.l_onoff != 0 && linger.l_linger == 0;
}

}  // namespace

bool PayloadByTcp(Sock* sock, int fd, const Channel& ch) {
  std::uint8_t byte = 0;
  while (sock->rx.tcp_pos < sock->in.pos) {
    const long skipped = Sys(SYS_recvfrom, fd, nullptr, sock->in.pos - sock->rx.tcp_pos, MSG_TRUNC | MSG_DONTWAIT, nullptr, nullptr);
    if (skipped == -EAGAIN) return false;
    if (skipped <= 0) {
      NoteKernelEnd(sock, static_cast<int>(-skipped));
      return true;
    }
    sock->rx.tcp_pos += static_cast<std::uint64_t>(skipped);
  }
  const long seen = Sys(SYS_recvfrom, fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT, nullptr, nullptr);
  if (seen == -EAGAIN) return false;
  if (seen <= 0) NoteKernelEnd(sock, static_cast<int>(-seen));  // a look takes the error off the kernel: the program's next call sees ours
  return seen != 1 || channel::PayloadBound(sock->rx, LoadProposal(ch)) != 0;
}

void Kill(Sock* sock, int fd, const char* why) {
  if (sock->dead.exchange(kKilled, std::memory_order_relaxed) == kKilled) return;
  Log("a connection is reset: %s", why);
  sock->error.store(ECONNRESET, std::memory_order_relaxed);
  sock->fin_seen.store(1, std::memory_order_relaxed);
  sock->framed.store(0, std::memory_order_relaxed);
  // connect(2) with AF_UNSPEC resets a TCP connection; the descriptor stays the program's to close.
  struct sockaddr nowhere = {};
  nowhere.sa_family = AF_UNSPEC;
  Sys(SYS_connect, fd, &nowhere, sizeof nowhere);
  if (sock->sleepers.load(std::memory_order_relaxed) != 0) WakeSleepers(sock);
}

bool Attach(Sock* sock, int fd, const Channel& ch, std::uint64_t sent, std::uint64_t received) {
  if (ch.slot->epoch.load(std::memory_order_acquire) != sock->epoch || IsRevoked(sock, ch)) return false;
  sock->in = {};
  sock->in.pos = sock->in.seen_tail = received;
  sock->rx = {};
  sock->bells_seen = 0;
  sock->rx.tcp_pos = received;
  sock->grown = false;
  sock->out = {};
  sock->out.pos = sock->out.seen_head = sent;
  sock->tx = {};
  // A BELL that Nagle holds back for the last one's acknowledgement would be a wake-up 40 ms late; a cork would keep it for ever.
  sock->nodelay.store(static_cast<std::uint8_t>(GetOption(fd, IPPROTO_TCP, TCP_NODELAY)), std::memory_order_relaxed);
  sock->cork.store(static_cast<std::uint8_t>(GetOption(fd, IPPROTO_TCP, TCP_CORK)), std::memory_order_relaxed);
  if (sock->cork.load(std::memory_order_relaxed)) SetOption(fd, IPPROTO_TCP, TCP_CORK, 0);
  SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  ch.mine->head.store(received, std::memory_order_relaxed);
  ch.mine->tail.store(sent, std::memory_order_relaxed);
  ch.mine->tcp_sent.store(sent, std::memory_order_relaxed);
  ch.mine->tcp_offered.store(sent, std::memory_order_relaxed);
  ch.mine->bells.store(0, std::memory_order_relaxed);
  ch.mine->capacity_log2.store(sock->out.capacity_log2, std::memory_order_relaxed);
  ch.mine->data_waiter.store(channel::kTcpBell, std::memory_order_relaxed);  // whoever waits, knowing us or not, is woken by TCP
  sock->phase.store(Phase::kAttached, std::memory_order_seq_cst);            // before the look at the sleepers: see calls_poll.cc
  NoteRingChange();
  CountUpgraded();
  ch.mine->attached.store(sock->epoch, std::memory_order_release);  // from here on the peer may propose; pairs with ConsiderGoingUp
  if (sock->sleepers.load(std::memory_order_seq_cst) != 0) WakeSleepers(sock);
  return true;
}

Readiness Look(SockRef ref, int fd, bool kernel_ready) {
  const LetGoAtEnd let_go(ref, fd);
  Readiness ready;
  Sock* sock = ref.sock;
  Holding rx(sock->rx_lock);
  Holding tx(sock->tx_lock);
  Channel ch;
  if (!rx.Held() || !tx.Held() || ref.Stale() || sock->phase.load(std::memory_order_relaxed) != Phase::kAttached ||
      !OpenChannel(sock, &ch)) {
    ready.in_by_kernel = ready.out_by_kernel = true;
    return ready;
  }
  if (IsRevoked(sock, ch)) Kill(sock, fd, "the agent revoked the channel");
  LookIn(sock, fd, ch, kernel_ready, &ready);
  const int noted = sock->error.load(std::memory_order_relaxed);
  if (noted != 0 && EndError(sock, fd, ch, noted) == 0) sock->only_fin = true;
  // A reset behind a FIN is noted by nobody, for no receive returns it. Judged each time: the program may send again, and then it counts.
  const bool ended = noted == 0 && sock->fin_seen.load(std::memory_order_relaxed) != 0;
  ready.only_fin = sock->only_fin || (ended && EndError(sock, fd, ch, EPIPE) == 0);
  LookOut(sock, fd, ch, &ready);
  if (sock->rx.mode == RxMode::kRing && sock->tx.mode == TxMode::kTcp) (void)ConsiderGoingUp(sock, ch, 0);
  return ready;
}

bool RingHasData(const Sock* sock) {
  Channel ch;
  if (!OpenChannel(sock, &ch)) return true;
  // On TCP the ring's last tail stays behind the head. A new one counts from the proposal on. (The modes are read without the locks: it
  // only decides whether to look once more.)
  if (sock->rx.mode == RxMode::kTcp && ch.theirs->proposal_generation.load(std::memory_order_relaxed) == sock->rx.generation) return false;
  return ch.theirs->tail.load(std::memory_order_relaxed) > ch.mine->head.load(std::memory_order_relaxed);
}

bool RingHasRoom(const Sock* sock) {
  Channel ch;
  if (!OpenChannel(sock, &ch)) return true;
  if (sock->tx.mode != TxMode::kRing) return false;
  const std::uint64_t tail = ch.mine->tail.load(std::memory_order_relaxed);
  const std::uint64_t used = tail - ch.theirs->head.load(std::memory_order_relaxed);
  const std::uint32_t capacity_log2 = sock->out.capacity_log2;
  return used + channel::WritableRoom(capacity_log2) <= (1ULL << capacity_log2) &&
         channel::MayPublish(ch.slot->grant[sock->side & 1], tail) != 0;
}

std::uint64_t RingTail(const Sock* sock) {
  Channel ch;
  return OpenChannel(sock, &ch) ? ch.theirs->tail.load(std::memory_order_relaxed) : 0;
}

bool PrepareToSleep(SockRef ref, int fd, bool want_in, bool want_out, std::uint32_t target, short* kernel_events) {
  Sock* sock = ref.sock;
  *kernel_events = 0;
  Holding rx(sock->rx_lock);
  Holding tx(sock->tx_lock);
  Channel ch;
  if (!rx.Held() || !tx.Held() || ref.Stale()) return false;
  if (sock->sleepers.fetch_add(1, std::memory_order_relaxed) != 0) target = channel::kTcpBell;  // one word, several sleepers: all watch TCP
  if (!OpenChannel(sock, &ch)) return false;
  sock->shim_waits.store(1, std::memory_order_relaxed);
  PollAgent();
  if (sock->dead.load(std::memory_order_relaxed) != 0) return false;
  if (target >= channel::kFirstWakeFd) channel::ExpectRing(ch.region->rung[sock->side].object[target - channel::kFirstWakeFd]);
  // The peer may be waiting for this side to leave the ring, and this program may never send again.
  if (sock->tx.mode == TxMode::kRing && channel::MustLeave(ch.theirs->gate)) (void)StartLeaving(sock, fd, ch);
  if (sock->tx.mode == TxMode::kLeaving) (void)Flush(sock, fd, ch);
  if (sock->tx.mode == TxMode::kLeaving) *kernel_events |= POLLOUT;
  if (want_out && sock->tx.mode == TxMode::kRing && MayPublish(sock, ch) == 0) {
    // Whoever makes room in the ring need not ring for it, nor could it give what is missing.
    if (AwaitGrant(sock, fd, ch) != Grant::kWait) return false;
    SleepForGrant(sock, ch);
    *kernel_events |= POLLIN;
  } else if (want_out && sock->tx.mode == TxMode::kRing) {
    if (LooksForRoom(sock, ch)) {
      SleepForGrant(sock, ch);
    } else if (!sock->framed.load(std::memory_order_relaxed)) {
      (void)StartLeaving(sock, fd, ch);
      return false;
    }
    if (!LeaseHolds(ch) && LeaveIfAllIsHere(sock, fd, ch)) return false;
    channel::Arm(ch.mine->space_waiter, target);
    if (!channel::RefreshRoom(sock->out, *ch.theirs) || channel::Room(sock->out) >= channel::WritableRoom(sock->out.capacity_log2))
      return false;
    if (OutgrowRing(sock, fd, ch)) return false;
    *kernel_events |= POLLIN;  // the bell comes as a byte
  } else if (want_out) {
    *kernel_events |= POLLOUT;
  }
  if (want_in) {
    *kernel_events |= POLLIN;
    // On TCP too: the peer may go up and write while we sleep, and finds the word that was armed before its proposal.
    channel::Arm(ch.mine->data_waiter, target);
    if (sock->rx.mode == RxMode::kRing) {
      if (!channel::RefreshData(sock->in, *ch.theirs) || channel::Available(sock->in) != 0 ||
          sock->fin_seen.load(std::memory_order_relaxed))
        return false;
    } else if (sock->rx.mode == RxMode::kDraining || ConsiderProposal(sock, fd, ch)) {
      return false;
    }
  }
  return true;
}

void AfterSleep(SockRef ref) {
  // Under the locks of PrepareToSleep: between the count and the words another thread must not arm.
  Holding rx(ref.sock->rx_lock);
  Holding tx(ref.sock->tx_lock);
  Channel ch;
  if (!rx.Held() || !tx.Held() || ref.Stale()) return;  // not counted, or a count that ended with the connection
  if (ref.sock->sleepers.fetch_sub(1, std::memory_order_relaxed) != 1 || !OpenChannel(ref.sock, &ch)) return;
  channel::Disarm(ch.mine->data_waiter);
  channel::Disarm(ch.mine->space_waiter);
}

void FinishSock(Sock* sock, int fd) {
  Holding rx(sock->rx_lock);
  Holding tx(sock->tx_lock);
  Channel ch;
  if (!rx.Held() || !tx.Held() || !OpenChannel(sock, &ch)) return;
  if (sock->dead.load(std::memory_order_relaxed) == kKilled) {
    SendRelease(sock, channel::Reason::kNone);
    return LetGoRegion(sock);
  }
  if (sock->tx.mode == TxMode::kLeaving) (void)Flush(sock, fd, ch);
  RefuseFrames(sock, fd, ch);
  bool abortive = sock->guarded || IsAbortive(sock, fd);
  const bool unread = sock->rx.mode != RxMode::kTcp && channel::RefreshData(sock->in, *ch.theirs) && channel::Available(sock->in) != 0;
  if (unread && !abortive) {
    abortive = true;
    const struct linger linger = {1, 0};
    Sys(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
  }
  ch.mine->attached.store(abortive ? channel::kAborted : 0, std::memory_order_release);
  SendRelease(sock, channel::Reason::kNone);
  LetGoRegion(sock);
}

void SettleBeforeClose(SockRef ref, int fd) {
  Sock* sock = ref.sock;
  {
    Holding tx(sock->tx_lock);
    Channel ch;
    if (!tx.Held() || ref.Stale() || !OpenChannel(sock, &ch) || sock->dead.load(std::memory_order_relaxed) != 0) return;
    const bool nothing_unread =
        sock->tx.mode == TxMode::kRing && channel::RefreshRoom(sock->out, *ch.theirs) && sock->out.seen_head == sock->out.pos;
    if (nothing_unread) return;
    if (IsAbortive(sock, fd)) return;
    ReplayBeforeFin(sock, fd, ch);
  }
  FinishReplay(ref, fd);
}

int SettleBeforeShutdown(SockRef ref, int fd, int how) {
  if (how == SHUT_RD) return 0;
  {
    Holding tx(ref.sock->tx_lock);
    Channel ch;
    if (!tx.Held() || ref.Stale() || !OpenChannel(ref.sock, &ch)) return 0;
    if (ref.sock->dead.load(std::memory_order_relaxed) != 0) return -ENOTCONN;
    ReplayBeforeFin(ref.sock, fd, ch);
  }
  FinishReplay(ref, fd);  // a receiver that has left the ring reads it nowhere else
  Holding tx(ref.sock->tx_lock);
  if (!tx.Held() || ref.Stale()) return 0;
  if (ref.sock->guarded) Kill(ref.sock, fd, "a replay that the peer does not take, and an end behind it");
  ref.sock->shut_wr.store(1, std::memory_order_relaxed);  // under the lock: no frame of ours is tried after the FIN
  return 0;
}

void NoteShutdown(SockRef ref, int how) {
  Sock* sock = ref.sock;
  if (how == SHUT_RD || how == SHUT_RDWR) sock->shut_rd.store(1, std::memory_order_relaxed);
  if (how == SHUT_WR || how == SHUT_RDWR) sock->shut_wr.store(1, std::memory_order_relaxed);
}

std::uint64_t UnreadOnRing(SockRef ref) {
  Sock* sock = ref.sock;
  Holding rx(sock->rx_lock);
  Channel ch;
  if (!rx.Held() || ref.Stale() || !OpenChannel(sock, &ch) || sock->rx.mode == RxMode::kTcp) return 0;
  return channel::RefreshData(sock->in, *ch.theirs) ? channel::Available(sock->in) : 0;
}

}  // namespace vsocket::shim
