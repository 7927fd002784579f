#include "shim/trim.h"

#include <sys/mman.h>

#include "shim/stream_parts.h"
#include "shim/sys.h"

namespace vsocket::shim {
namespace {

constexpr std::uint64_t kIdleNs = 1000ULL * 1000 * 1000;
constexpr std::uint64_t kNever = UINT64_MAX;

std::atomic<std::uint64_t> next_look{kNever};  // CLOCK_MONOTONIC; kNever: no ring is big

void LookWithin(std::uint64_t ns) {
  std::uint64_t never = kNever;
  next_look.compare_exchange_strong(never, MonotonicNs() + ns, std::memory_order_relaxed);
}

// tx_lock. Nothing is in the ring, and the receiver is not reading what was.
bool IsEmpty(Sock* sock, const Channel& ch) {
  if (sock->tx.mode == TxMode::kRing) return channel::RefreshRoom(sock->out, *ch.theirs) && channel::IsDrained(sock->out);
  // acquire: pairs with the release in ConsiderDrained, after the last byte was copied out.
  return sock->tx.mode == TxMode::kTcp && ch.theirs->finished_generation.load(std::memory_order_acquire) == sock->tx.generation;
}

// tx_lock. True: there is nothing (more) to do for this connection.
bool TrimIfIdle(Sock* sock) {
  if (!sock->grown) return true;
  Channel ch;
  if (sock->phase.load(std::memory_order_relaxed) != Phase::kAttached || sock->dead.load(std::memory_order_relaxed) != 0 ||
      !OpenChannel(sock, &ch)) {
    sock->grown = false;
    return true;
  }
  const bool used = sock->out.pos != sock->idle_at;
  sock->idle_at = sock->out.pos;
  if (used || !IsEmpty(sock, ch)) return false;
  channel::SetCapacity(sock->out, *ch.mine, channel::kRingMinLog2);
  sock->outgrown = false;
  // madvise(2): on shared memory the pages are freed in the file behind it, and read as zeros from now on, for the receiver as well.
  Sys(SYS_madvise, ch.out_ring, channel::kRingMax, MADV_REMOVE);
  sock->grown = false;
  return true;
}

void Visit(Sock* sock) {
  if (!sock->tx_lock.TryAcquire()) return LookWithin(kIdleNs);  // in use
  const bool done = TrimIfIdle(sock);
  sock->tx_lock.Release();
  if (!done) LookWithin(kIdleNs);
}

}  // namespace

void NoteGrown(Sock* sock) {
  if (sock->grown) return;
  sock->grown = true;
  sock->idle_at = sock->out.pos;
  LookWithin(kIdleNs);
}

std::uint64_t NsUntilTrim() {
  const std::uint64_t at = next_look.load(std::memory_order_relaxed);
  if (at == kNever) return kNothingToTrim;
  const std::uint64_t now = MonotonicNs();
  return now < at ? at - now : 0;
}

void TrimIdleRings() {
  std::uint64_t at = next_look.load(std::memory_order_relaxed);
  // One thread looks; rings that are still big, or grow meanwhile, name the next time.
  if (at == kNever || MonotonicNs() < at || !next_look.compare_exchange_strong(at, kNever, std::memory_order_relaxed)) return;
  ForEachHeld(Visit);
}

}  // namespace vsocket::shim
