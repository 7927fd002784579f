// Two agents joined by a simulated network that loses nothing, with pods on rings at both ends: for tests that arrange one situation.
//
// Thread safety: none.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "node-agent/transport/fabric/testing/fake_fabric.h"
#include "node-agent/transport/mirror/link.h"
#include "node-agent/transport/mirror/testing/ring_end.h"
#include "node-agent/transport/region.h"

namespace vsocket::transport::testing {

class TwoNodes {
 public:
  static constexpr std::uint32_t kAgentObject = channel::kFirstWakeFd;
  static constexpr std::uint32_t kPodObject = channel::kFirstWakeFd + 1;

  struct Node final : MirrorHost {
    std::unique_ptr<FakeDevice> device;
    std::vector<std::unique_ptr<Region>> regions;
    std::vector<std::unique_ptr<RingMemory>> memories;
    std::vector<std::byte*> maps;
    std::unique_ptr<Link> link;
    std::vector<std::unique_ptr<RingEnd>> ends;
    std::vector<std::uint32_t> wakes;  // by connection
    std::vector<std::uint16_t> lost, closed;
    std::uint32_t bells_wanted = 0;
    std::uint32_t rings = 0;  // of the agent's wake object

    void WakePod(std::uint16_t connection, std::uint32_t) override { ++wakes[connection]; }
    void FarSideWantsBell(std::uint16_t) override { ++bells_wanted; }
    void PathLost(const PathReport& report, const std::string&) override { lost.push_back(report.connection); }
    void Closed(std::uint16_t connection) override { closed.push_back(connection); }
  };

  explicit TwoNodes(std::uint32_t connections, const MirrorOptions& options = {});
  ~TwoNodes();

  // Agents and network run until neither has anything to do within a second and both sleep. False: that never came.
  [[nodiscard]] bool Settle();
  // One turn of each, and some packets.
  void Turn(std::uint64_t advance_ns = 1000);
  // All connections up, both ways, and settled.
  [[nodiscard]] bool BringUp();
  // `end` on node `node` sends `bytes`, as the ring has room.
  std::uint64_t Send(std::size_t node, std::size_t end, std::uint64_t bytes) { return nodes[node].ends[end]->Send(bytes); }
  std::uint64_t Receive(std::size_t node, std::size_t end, std::uint64_t most = UINT64_MAX) { return nodes[node].ends[end]->Receive(most); }

  FakeNetwork network{7};
  std::array<Node, 2> nodes;

 private:
  bool OpenAll(std::uint32_t connections);
  void RingAgent(std::size_t node, std::size_t region);
};

}  // namespace vsocket::transport::testing
