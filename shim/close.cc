#include "shim/close.h"

#include "shim/agent_link.h"
#include "shim/epoll_set.h"
#include "shim/hand_over.h"
#include "shim/process.h"
#include "shim/stats.h"
#include "shim/stream.h"

namespace vsocket::shim {
namespace {

// A channel granted and never used goes back.
void GiveBackGrant(Sock* sock) {
  Holding rx(sock->rx_lock);
  Holding tx(sock->tx_lock);
  if (!rx.Held() || !tx.Held() || sock->phase.load(std::memory_order_relaxed) != Phase::kGranted) return;
  SendRelease(sock, channel::Reason::kClosing);
  LetGoRegion(sock);
  sock->phase.store(Phase::kPlain, std::memory_order_release);
}

void Settle(const Dropped& dropped, int fd) {
  Sock* sock = dropped.sock;
  switch (sock->phase.load(std::memory_order_acquire)) {
    case Phase::kAsked:
      // Asked by this process: a grant would find nobody here. Asked by another one that still holds the socket: not ours to withdraw.
      if (SendCancel(sock)) sock->phase.store(Phase::kPlain, std::memory_order_release);
      break;
    case Phase::kGranted:
      if (dropped.last) GiveBackGrant(sock);
      break;
    case Phase::kAttached:
      if (dropped.last) {
        SettleBeforeClose({sock, sock->generation.load(std::memory_order_relaxed)}, fd);
        FinishSock(sock, fd);
      }
      break;
    default:
      break;
  }
  LetGoRegion(sock);  // held still when others go on with the connection, or have brought it down
}

}  // namespace

Dropped BeginClose(int fd) {
  const SockRef ref = FindSock(fd);
  if (!ref) {
    if (FindSet(fd) != nullptr && !InVforkChild()) DropSet(fd);
    return {};
  }
  if (InVforkChild()) return {};
  SettleRegions();
  ForgetWatches(fd, ref);
  NoFork no_fork;
  const Dropped dropped = Untrack(fd, CountSock);
  if (dropped.last_here) Settle(dropped, fd);
  return dropped;
}

void EndClose(const Dropped& dropped) {
  if (dropped.last) FreeSock(dropped.sock);
}

void ForgetReplaced(int fd) {
  const SockRef ref = FindSock(fd);
  if (!ref) return;
  ForgetWatches(fd, ref);
  EndClose(Untrack(fd, CountSock));  // a connection on a standard stream is kernel TCP's: nothing to settle
}

}  // namespace vsocket::shim
