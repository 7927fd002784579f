#include "shim/stats.h"

#include <fcntl.h>
#include <sys/prctl.h>

#include "channel/reason.h"
#include "shim/config.h"
#include "shim/sys.h"
#include "shim/text.h"

namespace vsocket::shim {
namespace {

constexpr int kReasons = 32;

struct Totals {
  std::atomic<std::uint64_t> connections, upgraded, ups, downs, ring_tx, ring_rx, tcp_tx, tcp_rx, fast_bells, tcp_bells;
  std::atomic<std::uint64_t> reasons[kReasons];
};
Totals totals;
std::atomic<bool> written{false};

void Add(std::atomic<std::uint64_t>& counter, std::uint64_t amount) {
  counter.fetch_add(amount, std::memory_order_relaxed);
}

// Wraps below zero for `sign` -1: what is added later brings it back.
void Count(Sock* sock, std::uint64_t sign) {
  // Positions that fit together. Not to be had in a signal handler that interrupts the holder, whose bytes are few.
  Holding rx(sock->rx_lock);
  Holding tx(sock->tx_lock);
  const Phase phase = sock->phase.load(std::memory_order_relaxed);
  if (phase < Phase::kPlain) return;
  const bool attached = phase == Phase::kAttached;
  const std::uint64_t sent = attached ? sock->out.pos : sock->plain_tx.load(std::memory_order_relaxed);
  const std::uint64_t received = attached ? sock->in.pos : sock->plain_rx.load(std::memory_order_relaxed);
  Add(totals.ring_tx, sign * sock->ring_tx);
  Add(totals.ring_rx, sign * sock->ring_rx);
  Add(totals.tcp_tx, sign * (sent - sock->ring_tx));
  Add(totals.tcp_rx, sign * (received - sock->ring_rx));
  std::uint16_t reason = sock->pinned.load(std::memory_order_relaxed);
  // What can pass is a reason only for what never was on a ring, and each process tells it: it need not be the same one all the time.
  const bool never_up = !attached && sock->ring_tx == 0 && sock->ring_rx == 0;
  if (reason == 0 && never_up && sign == 1) reason = sock->denied.load(std::memory_order_relaxed);
  if (reason != 0 && reason < kReasons) Add(totals.reasons[reason], sign);
}

void TakeBack(Sock* sock) {
  Count(sock, std::uint64_t{0} - 1);
}

}  // namespace

void CountConnection() {
  Add(totals.connections, 1);
}
void CountUp() {
  Add(totals.ups, 1);
}
void CountDown() {
  Add(totals.downs, 1);
}
void CountUpgraded() {
  Add(totals.upgraded, 1);
}
void CountRing(bool fast) {
  Add(fast ? totals.fast_bells : totals.tcp_bells, 1);
}

void CountSock(Sock* sock) {
  Count(sock, 1);
}

void WriteStats(bool even_if_nothing) {
  if (GetConfig().stats_path[0] == '\0' || written.exchange(true)) return;
  ForEachHeld(CountSock);
  std::uint64_t any = 0;
  for (const auto* counter : {&totals.connections, &totals.ring_tx, &totals.ring_rx, &totals.tcp_tx, &totals.tcp_rx})
    any |= counter->load();
  for (const auto& reason : totals.reasons) any |= reason.load();
  if (any == 0 && !even_if_nothing) return;
  char comm[16] = {};
  Sys(SYS_prctl, PR_GET_NAME, comm);
  Line<1024> line;
  line.Add("{\"pid\":").Add(static_cast<std::uint64_t>(Sys(SYS_getpid))).Add(",\"comm\":").AddQuoted(comm, sizeof comm);
  line.Add(",\"connections\":").Add(totals.connections.load()).Add(",\"upgraded\":").Add(totals.upgraded.load());
  line.Add(",\"ring_tx\":").Add(totals.ring_tx.load()).Add(",\"ring_rx\":").Add(totals.ring_rx.load());
  line.Add(",\"tcp_tx\":").Add(totals.tcp_tx.load()).Add(",\"tcp_rx\":").Add(totals.tcp_rx.load());
  line.Add(",\"ups\":").Add(totals.ups.load()).Add(",\"downs\":").Add(totals.downs.load());
  line.Add(",\"fast_bells\":").Add(totals.fast_bells.load()).Add(",\"tcp_bells\":").Add(totals.tcp_bells.load());
  line.Add(",\"reasons\":{");
  bool first = true;
  for (std::uint16_t i = 1; i < kReasons; ++i) {
    // Below zero: of a connection inherited at the fork, that has another reason by now; the parent tells of this one.
    if (static_cast<std::int64_t>(totals.reasons[i].load()) <= 0) continue;
    line.Add(first ? "\"" : ",\"").Add(std::uint64_t{i}).Add("\":").Add(totals.reasons[i].load());
    first = false;
  }
  line.Add("}}\n");
  const long fd = Sys(SYS_openat, AT_FDCWD, GetConfig().stats_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) return;
  Sys(SYS_write, fd, line.Data(), line.Size());
  Sys(SYS_close, fd);
}

void ResetStatsForChild() {
  // What moved until now is the parent's to report, or has been written.
  for (auto* counter : {&totals.connections, &totals.upgraded, &totals.ups, &totals.downs, &totals.ring_tx, &totals.ring_rx, &totals.tcp_tx,
                        &totals.tcp_rx, &totals.fast_bells, &totals.tcp_bells}) {
    counter->store(0, std::memory_order_relaxed);
  }
  for (auto& reason : totals.reasons) reason.store(0, std::memory_order_relaxed);
  ForEachHeld(TakeBack);
  written.store(false, std::memory_order_relaxed);
}

}  // namespace vsocket::shim
