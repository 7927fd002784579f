#include "shim/grant.h"

#include "channel/wake.h"
#include "shim/agent_link.h"
#include "shim/stream_parts.h"
#include "shim/sys.h"

namespace vsocket::shim {
namespace {

#define VSOCKET_TLS __attribute__((tls_model("initial-exec"))) thread_local

constexpr std::uint64_t kAskAgainTicks = 40000000;  // about 20 ms
constexpr std::uint64_t kFirstLookNs = 250 * 1000;  // an agent that was asked grants at once
constexpr std::uint8_t kMostDoublings = 5;
constexpr std::uint8_t kMostLooks = 40;  // without an agent

VSOCKET_TLS std::uint64_t sleep_at_most = kNoGrantAwaited;

}  // namespace

Grant AwaitGrant(Sock* sock, int fd, const Channel& ch) {
  channel::SleepWakeFence();  // G2
  if (MayPublish(sock, ch) != 0) return Grant::kHere;
  if (!HaveAgent()) PollAgent();
  const std::uint32_t watched = ch.slot->watched[sock->side & 1].load(std::memory_order_relaxed);  // G4
  if (watched == channel::kNoMore || !HaveAgent() || !LeaseHolds(ch)) {
    if (LeaveIfAllIsHere(sock, fd, ch)) return Grant::kLeft;
    // The peer's payload may be on its way for as long as this program does not read, which may be waiting for this very send.
    if (++sock->unheard <= kMostLooks) return Grant::kWait;
    sock->unheard = 0;
    (void)StartLeaving(sock, fd, ch);
    return Grant::kLeft;
  }
  if (watched != channel::kUnwatched) {
    sock->unheard = kMostDoublings;
    return Grant::kWait;
  }
  if (Ticks() < sock->ask_again) return Grant::kWait;
  if (SendAskGrant(sock)) sock->ask_again = Ticks() + kAskAgainTicks;
  sock->unheard = 0;
  return Grant::kWait;
}

bool MayHopeForGrant(const Sock* sock, const Channel& ch) {
  return HaveAgent() && ch.slot->watched[sock->side & 1].load(std::memory_order_relaxed) != channel::kNoMore;
}

bool AwaitsGrant(const Sock* sock) {
  Channel ch;
  if (!OpenChannel(sock, &ch) || sock->tx.mode != TxMode::kRing) return false;
  return LooksForRoom(sock, ch) || channel::MayPublish(ch.slot->grant[sock->side & 1], ch.mine->tail.load(std::memory_order_relaxed)) == 0;
}

void SleepForGrant(Sock* sock, const Channel& ch) {
  std::uint64_t ns = channel::PaceNs(ch.slot->pace_us[sock->side & 1]);
  if (sock->unheard < kMostDoublings) {
    const std::uint64_t early = kFirstLookNs << sock->unheard++;
    if (early < ns) ns = early;
  }
  if (ns < sleep_at_most) sleep_at_most = ns;
}

std::uint64_t TakeGrantSleep() {
  const std::uint64_t ns = sleep_at_most;
  sleep_at_most = kNoGrantAwaited;
  return ns;
}

}  // namespace vsocket::shim
