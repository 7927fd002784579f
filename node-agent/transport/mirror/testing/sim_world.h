// Two nodes with an agent each, the network between them, and pods whose connections move between TCP and mirrored rings. Everything that
// happens, and when, is the seed's choice. Only what would really run runs: an agent that sleeps is polled again when a descriptor of its
// device, its wake object or a deadline would wake it, a pod that sleeps when it is rung or TCP has something.
//
// Thread safety: none.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "node-agent/transport/fabric/testing/fake_fabric.h"
#include "node-agent/transport/mirror/link.h"
#include "node-agent/transport/mirror/testing/sim_pod.h"
#include "node-agent/transport/region.h"

namespace vsocket::transport::testing {

// What happened over all seeds, so that a test can ask that each did.
struct Tally {
  std::uint64_t schedules = 0, steps = 0, bytes = 0, ring_bytes = 0, ups = 0, commits = 0, aborts = 0, aborts_seen = 0, downs = 0;
  std::uint64_t replayed = 0, skipped = 0, resizes = 0, path_losses = 0, relinks = 0, reopened = 0, agent_sleeps = 0, pod_sleeps = 0;
  std::uint64_t cuts = 0, healed = 0, one_way_cuts = 0, devices_removed = 0, ports_down = 0, agents_killed = 0, pods_killed = 0;
  std::uint64_t clean_ends = 0, resets = 0, answers_in_ring = 0, quiet = 0, cells = 0, bulk = 0, pings = 0, silent = 0;
  std::uint64_t not_ready = 0, refused = 0, overflows = 0, unacknowledged = 0, torn_words = 0;
};

// The memory of the two regions, made once and used by one world after another.
class WorldMemory {
 public:
  WorldMemory();
  [[nodiscard]] Region& Of(int node) { return *regions_[static_cast<std::size_t>(node)]; }
  [[nodiscard]] std::byte* Map(int node) { return maps_[static_cast<std::size_t>(node)]; }

 private:
  std::array<std::unique_ptr<Region>, 2> regions_;
  std::array<std::byte*, 2> maps_{};
};

class World {
 public:
  World(std::uint64_t seed, WorldMemory* memory, Tally* tally);
  ~World();
  // Runs the schedule. What was wrong; empty: nothing.
  std::string Run();

 private:
  struct Node : MirrorHost {
    World* world = nullptr;
    int index = 0;
    std::unique_ptr<FakeDevice> device;
    std::unique_ptr<RingMemory> memory;
    std::unique_ptr<Link> link;
    bool dead = false, asleep = false, rung = false;
    std::uint64_t stopped_until = 0;
    std::vector<std::uint16_t> to_close;
    std::vector<bool> closed;

    void WakePod(std::uint16_t connection, std::uint32_t target) override;
    void FarSideWantsBell(std::uint16_t) override {}
    void PathLost(const PathReport& report, const std::string& why) override;
    void Closed(std::uint16_t connection) override { closed[connection] = true; }
  };
  struct Pair {                                                      // a connection: end i on node i
    std::array<std::unique_ptr<channel::testing::TcpQueue>, 2> tcp;  // what node i sends
    std::array<std::unique_ptr<SimPod>, 2> pods;
    std::uint32_t slot[2] = {};
    std::uint32_t epoch = 1, path = 1;
    std::array<std::unique_ptr<Pattern>, 2> patterns;  // by the node that sends it
    std::uint64_t start[2] = {};
  };

  std::uint64_t Below(std::uint64_t n) { return network_.Below(n); }
  void MakePair(std::size_t index);
  void MakeNode(int index);
  bool LinkUp();
  void OpenAll();
  bool OpenPair(std::size_t index);
  void StepAgent(Node& node);
  void StepPods();
  void Inject();
  void AdvanceTime();
  void TearDownIfLost();
  void ConsiderReopening();
  [[nodiscard]] bool AllArrived() const;
  [[nodiscard]] bool AllEnded() const;
  [[nodiscard]] std::string Describe(const Node& node, std::uint16_t connection) const;
  [[nodiscard]] std::string Judge();
  void Count();
  void TakeCounters(const Node& node);

  std::uint64_t seed_;
  FakeNetwork network_;
  WorldMemory* memory_;
  Tally* tally_;
  MirrorOptions options_;
  std::array<Node, 2> nodes_;
  std::vector<Pair> pairs_;
  bool faulty_ = false, settling_ = false, ending_ = false;
  std::uint32_t relinks_left_ = 0;
  std::uint64_t heal_at_ = UINT64_MAX;
  std::string wrong_;
};

}  // namespace vsocket::transport::testing
