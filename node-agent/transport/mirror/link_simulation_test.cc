// Two agents, the network between them and their pods, under loss, delay, queue pairs that overtake each other, and the death of anything,
// in simulated time. Every choice comes from the seed, which a failure names: run it again with VSOCKET_SIM_SEED, or another number of
// seeds with VSOCKET_SIM_SCHEDULES.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "node-agent/transport/mirror/testing/sim_world.h"

namespace vsocket::transport::testing {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t kSchedules = 300;
#else
constexpr std::uint64_t kSchedules = 2000;
#endif

std::uint64_t NumberFrom(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

void Print(const Tally& t) {
#define SHOW(member) std::printf("%s %llu\n", #member, static_cast<unsigned long long>(t.member))
  SHOW(schedules);
  SHOW(steps);
  SHOW(bytes);
  SHOW(ring_bytes);
  SHOW(ups);
  SHOW(commits);
  SHOW(aborts);
  SHOW(aborts_seen);
  SHOW(downs);
  SHOW(replayed);
  SHOW(skipped);
  SHOW(resizes);
  SHOW(path_losses);
  SHOW(relinks);
  SHOW(reopened);
  SHOW(agent_sleeps);
  SHOW(pod_sleeps);
  SHOW(cuts);
  SHOW(healed);
  SHOW(one_way_cuts);
  SHOW(devices_removed);
  SHOW(ports_down);
  SHOW(agents_killed);
  SHOW(pods_killed);
  SHOW(clean_ends);
  SHOW(resets);
  SHOW(cells);
  SHOW(bulk);
  SHOW(pings);
  SHOW(silent);
  SHOW(unacknowledged);
  SHOW(torn_words);
#undef SHOW
}

TEST(LinkSimulationTest, NoByteIsLostAndNobodyIsStuck) {
  Tally tally;
  WorldMemory memory;
  const std::uint64_t one = NumberFrom("VSOCKET_SIM_SEED", 0);
  const std::uint64_t last = one != 0 ? one : NumberFrom("VSOCKET_SIM_SCHEDULES", kSchedules);
  for (std::uint64_t seed = one != 0 ? one : 1; seed <= last; ++seed) {
    const std::string wrong = World(seed, &memory, &tally).Run();
    ASSERT_EQ(wrong, "") << "with VSOCKET_SIM_SEED=" << seed;
  }
  Print(tally);
  if (one != 0) return;
  // A simulation in which something never happened has not tested it.
  for (const std::uint64_t count :
       {tally.ring_bytes,    tally.commits,     tally.aborts,         tally.aborts_seen,  tally.downs,           tally.replayed,
        tally.skipped,       tally.resizes,     tally.path_losses,    tally.relinks,      tally.reopened,        tally.agent_sleeps,
        tally.pod_sleeps,    tally.cuts,        tally.healed,         tally.one_way_cuts, tally.devices_removed, tally.ports_down,
        tally.agents_killed, tally.pods_killed, tally.clean_ends,     tally.resets,       tally.cells,           tally.bulk,
        tally.pings,         tally.silent,      tally.unacknowledged, tally.torn_words}) {
    EXPECT_GT(count, 0U);
  }
}

}  // namespace
}  // namespace vsocket::transport::testing
