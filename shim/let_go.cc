// A connection that was killed gives up its memory at once, and not when the program gets around to closing it.
#include "shim/process.h"
#include "shim/stream_parts.h"

namespace vsocket::shim {

void LetGoAtEnd::LetGoIfKilled() const {
  Sock* sock = ref_.sock;
  Channel ch;
  if (!HoldsRegion(sock)) return;
  if (sock->dead.load(std::memory_order_relaxed) != kKilled && !(OpenChannel(sock, &ch) && IsRevoked(sock, ch))) return;
  // A vfork child would close descriptors that its parent, whose table this is, keeps open.
  if (InVforkChild()) return;
  // Both: nobody is inside who took his view before the kill, or rings a wake object that is closed with the region.
  Holding rx(sock->rx_lock);
  Holding tx(sock->tx_lock);
  if (!rx.Held() || !tx.Held() || ref_.Stale() || sock->phase.load(std::memory_order_relaxed) != Phase::kAttached) return;
  // Not killed: the kernel's reset was met before the agent's word.
  if (OpenChannel(sock, &ch) && IsRevoked(sock, ch)) Kill(sock, fd_, "the agent revoked the channel");
  if (sock->dead.load(std::memory_order_relaxed) == kKilled) LetGoRegion(sock);
}

}  // namespace vsocket::shim
