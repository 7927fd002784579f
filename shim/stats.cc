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
  std::atomic<std::uint64_t> connections, upgraded, ups, downs, ring_tx, ring_rx, tcp_tx, tcp_rx;
  std::atomic<std::uint64_t> reasons[kReasons];
};
Totals totals;
std::atomic<bool> written{false};

void Add(std::atomic<std::uint64_t>& counter, std::uint64_t amount) { counter.fetch_add(amount, std::memory_order_relaxed); }

void AddLive(int, SockRef ref, void*) { CountSock(ref.sock); }

}  // namespace

void CountConnection() { Add(totals.connections, 1); }
void CountUp() { Add(totals.ups, 1); }
void CountDown() { Add(totals.downs, 1); }
void CountUpgraded() { Add(totals.upgraded, 1); }

void CountSock(const Sock* sock) {
  const Phase phase = sock->phase.load(std::memory_order_relaxed);
  if (phase < Phase::kPlain) return;
  const bool attached = phase == Phase::kAttached;
  const std::uint64_t sent = attached ? sock->out.pos : sock->plain_tx.load(std::memory_order_relaxed);
  const std::uint64_t received = attached ? sock->in.pos : sock->plain_rx.load(std::memory_order_relaxed);
  Add(totals.ring_tx, sock->ring_tx);
  Add(totals.ring_rx, sock->ring_rx);
  Add(totals.tcp_tx, sent - sock->ring_tx);
  Add(totals.tcp_rx, received - sock->ring_rx);
  const std::uint16_t reason = sock->pinned.load(std::memory_order_relaxed);
  if (reason != 0 && reason < kReasons) Add(totals.reasons[reason], 1);
}

void WriteStats() {
  if (GetConfig().stats_path[0] == '\0' || written.exchange(true)) return;
  ForEachSock(AddLive, nullptr);
  char comm[16] = {};
  Sys(SYS_prctl, PR_GET_NAME, comm);
  Line<1024> line;
  line.Add("{\"pid\":").Add(static_cast<std::uint64_t>(Sys(SYS_getpid))).Add(",\"comm\":").AddQuoted(comm, sizeof comm);
  line.Add(",\"connections\":").Add(totals.connections.load()).Add(",\"upgraded\":").Add(totals.upgraded.load());
  line.Add(",\"ring_tx\":").Add(totals.ring_tx.load()).Add(",\"ring_rx\":").Add(totals.ring_rx.load());
  line.Add(",\"tcp_tx\":").Add(totals.tcp_tx.load()).Add(",\"tcp_rx\":").Add(totals.tcp_rx.load());
  line.Add(",\"ups\":").Add(totals.ups.load()).Add(",\"downs\":").Add(totals.downs.load()).Add(",\"reasons\":{");
  bool first = true;
  for (std::uint16_t i = 1; i < kReasons; ++i) {
    if (totals.reasons[i].load() == 0) continue;
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
  // The child's own: what the parent moved is the parent's to report.
  for (auto* counter : {&totals.connections, &totals.upgraded, &totals.ups, &totals.downs, &totals.ring_tx, &totals.ring_rx, &totals.tcp_tx,
                        &totals.tcp_rx}) {
    counter->store(0, std::memory_order_relaxed);
  }
  for (auto& reason : totals.reasons) reason.store(0, std::memory_order_relaxed);
  written.store(false, std::memory_order_relaxed);
}

}  // namespace vsocket::shim
