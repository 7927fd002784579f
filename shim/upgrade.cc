#include "shim/upgrade.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>

#include "shim/agent_link.h"
#include "shim/config.h"
#include "shim/log.h"
#include "shim/stream.h"
#include "shim/sys.h"

namespace vsocket::shim {
namespace {

constexpr std::uint64_t kRetryNs = 100ULL * 1000 * 1000;
constexpr std::uint64_t kLookBytes = 4096;

bool ReadInfo(int fd, struct tcp_info* info) {
  int size = sizeof *info;
  return Sys(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, info, &size) == 0 &&
         size >= static_cast<int>(offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info->tcpi_bytes_received);
}

void ConsiderAsking(SockRef ref, int fd) {
  Sock* sock = ref.sock;
  const Config& config = GetConfig();
  if (!config.upgrade || sock->pinned.load(std::memory_order_relaxed) != 0) return;
  const std::uint64_t moved = sock->plain_tx.load(std::memory_order_relaxed) + sock->plain_rx.load(std::memory_order_relaxed);
  if (moved < sock->ask_after) return;
  const bool proven = moved > config.upgrade_after_bytes || sock->turns.load(std::memory_order_relaxed) >= config.upgrade_after_turns * 2;
  if (!proven || fd <= 2) return;
  if (sock->processes.load(std::memory_order_relaxed) != 1) return;
  if (sock->ask_at_ns != 0 && MonotonicNs() < sock->ask_at_ns) {
    sock->ask_after = moved + (config.upgrade_after_bytes < kLookBytes ? config.upgrade_after_bytes : kLookBytes);
    return;
  }
  Phase plain = Phase::kPlain;
  if (!sock->phase.compare_exchange_strong(plain, Phase::kAsked, std::memory_order_acq_rel)) return;
  if (AskUpgrade(sock, fd)) {
    if (config.upgrade_after_bytes != 0) return;
    AwaitAgent(sock);
    if (sock->phase.load(std::memory_order_acquire) == Phase::kGranted) ConsiderAttach(ref, fd);
    return;
  }
  sock->denied.store(static_cast<std::uint16_t>(WhyNoLine()), std::memory_order_relaxed);
  sock->ask_at_ns = MonotonicNs() + kRetryNs;
  sock->phase.store(Phase::kPlain, std::memory_order_release);
}

void AfterPlain(SockRef ref, int fd) {
  switch (ref.sock->phase.load(std::memory_order_relaxed)) {
    case Phase::kPlain:
      ConsiderAsking(ref, fd);
      break;
    case Phase::kAsked:
      PollAgent();
      if (ref.sock->phase.load(std::memory_order_acquire) == Phase::kGranted) ConsiderAttach(ref, fd);
      break;
    default:
      break;
  }
}

void GiveBack(Sock* sock, channel::Reason reason) {
  Log("a granted channel is given back: %s", channel::ReasonText(reason));
  SendRelease(sock, reason);
  LetGoRegion(sock);
  if (reason == channel::Reason::kForeignUse || reason == channel::Reason::kSharedAcrossFork) {
    sock->pinned.store(static_cast<std::uint16_t>(reason), std::memory_order_relaxed);
  }
  sock->denied.store(static_cast<std::uint16_t>(reason), std::memory_order_relaxed);
  sock->ask_at_ns = MonotonicNs() + kRetryNs;
  sock->phase.store(Phase::kPlain, std::memory_order_release);
}

}  // namespace

void NotePlainReceive(SockRef ref, int fd, ssize_t bytes) {
  Sock* sock = ref.sock;
  sock->plain_rx.fetch_add(static_cast<std::uint64_t>(bytes), std::memory_order_relaxed);
  if (!sock->last_was_rx.load(std::memory_order_relaxed)) {
    sock->last_was_rx.store(1, std::memory_order_relaxed);
    sock->turns.store(sock->turns.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  AfterPlain(ref, fd);
}

void NotePlainSend(SockRef ref, int fd, ssize_t bytes) {
  Sock* sock = ref.sock;
  sock->plain_tx.fetch_add(static_cast<std::uint64_t>(bytes), std::memory_order_relaxed);
  if (sock->last_was_rx.load(std::memory_order_relaxed)) {
    sock->last_was_rx.store(0, std::memory_order_relaxed);
    sock->turns.store(sock->turns.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  AfterPlain(ref, fd);
}

void NoteGrant(Sock* sock) {
  sock->phase.store(Phase::kGranted, std::memory_order_release);
}

void NoteDenied(Sock* sock, channel::Reason reason, std::uint32_t retry_after_ms) {
  sock->denied.store(static_cast<std::uint16_t>(reason), std::memory_order_relaxed);
  if (retry_after_ms == 0) sock->pinned.store(static_cast<std::uint16_t>(reason), std::memory_order_relaxed);
  sock->ask_at_ns = MonotonicNs() + static_cast<std::uint64_t>(retry_after_ms) * 1000000;
  Phase asked = Phase::kAsked;
  sock->phase.compare_exchange_strong(asked, Phase::kPlain, std::memory_order_acq_rel);
}

bool KernelPositions(int fd, bool initiator, std::uint64_t* sent, std::uint64_t* received) {
  struct tcp_info before = {};
  struct tcp_info after = {};
  int unacked = 0;
  int unread = 0;
  // The counts come from four calls; an arrival or acknowledgement in between shows as a difference, and they are read again.
  for (int attempt = 0; attempt < 16; ++attempt) {
    if (!ReadInfo(fd, &before) || Sys(SYS_ioctl, fd, SIOCOUTQ, &unacked) < 0 || Sys(SYS_ioctl, fd, FIONREAD, &unread) < 0 ||
        !ReadInfo(fd, &after)) {
      return false;
    }
    if (before.tcpi_bytes_acked != after.tcpi_bytes_acked || before.tcpi_bytes_received != after.tcpi_bytes_received) continue;
    if (after.tcpi_state != 1 /* TCP_ESTABLISHED */) return false;
    *sent = after.tcpi_bytes_acked + static_cast<std::uint64_t>(unacked) - (initiator ? 1 : 0);
    *received = after.tcpi_bytes_received - static_cast<std::uint64_t>(unread);
    return true;
  }
  return false;
}

void ConsiderAttach(SockRef ref, int fd) {
  Sock* sock = ref.sock;
  Holding rx(sock->rx_lock);
  Holding tx(sock->tx_lock);
  Channel ch;
  if (!rx.Held() || !tx.Held() || ref.Stale() || sock->phase.load(std::memory_order_acquire) != Phase::kGranted) return;
  // seq_cst on both sides (calls_data.cc enters, then looks at the phase): a call either is counted here or sees kAttaching.
  sock->phase.store(Phase::kAttaching, std::memory_order_seq_cst);
  if (sock->inside_tx.load(std::memory_order_seq_cst) != 0 || sock->inside_rx.load(std::memory_order_seq_cst) != 0) {
    sock->phase.store(Phase::kGranted, std::memory_order_seq_cst);
    return;
  }
  if (!OpenChannel(sock, &ch)) return GiveBack(sock, channel::Reason::kNoMemory);
  if (sock->processes.load(std::memory_order_relaxed) != 1) return GiveBack(sock, channel::Reason::kSharedAcrossFork);
  if (sock->shut_wr.load(std::memory_order_relaxed) || sock->shut_rd.load(std::memory_order_relaxed) ||
      sock->pinned.load(std::memory_order_relaxed) != 0) {
    return GiveBack(sock, channel::Reason::kClosing);
  }
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  if (!KernelPositions(fd, sock->initiator.load(std::memory_order_relaxed), &sent, &received))
    return GiveBack(sock, channel::Reason::kClosing);
  if (sent != sock->plain_tx.load(std::memory_order_relaxed) || received != sock->plain_rx.load(std::memory_order_relaxed)) {
    return GiveBack(sock, channel::Reason::kForeignUse);
  }
  if (!Attach(sock, fd, ch, sent, received)) GiveBack(sock, channel::Reason::kRevoked);
}

}  // namespace vsocket::shim
