#include "node-agent/transport/mirror/testing/two_nodes.h"

#include <sys/mman.h>

#include <cstdlib>

namespace vsocket::transport::testing {
namespace {

constexpr std::uint64_t kSoonNs = 1000ULL * 1000 * 1000;

}  // namespace

TwoNodes::TwoNodes(std::uint32_t connections, const MirrorOptions& options) {
  for (std::size_t i = 0; i < 2; ++i) {
    Node& node = nodes[i];
    node.device = network.AddDevice(static_cast<int>(i));
    node.wakes.resize(connections);
    for (std::uint32_t first = 0; first < connections; first += channel::kSlots) {
      auto region = Region::Create(first + 1, UINT64_MAX);
      if (!region) std::abort();
      auto memory = RingMemory::Map(region.Value()->Fd(), static_cast<std::uint32_t>(i), *node.device);
      void* map = ::mmap(nullptr, channel::kRegionBytes, PROT_READ | PROT_WRITE, MAP_SHARED, region.Value()->Fd(), 0);
      if (!memory || map == MAP_FAILED) std::abort();
      node.maps.push_back(static_cast<std::byte*>(map));
      node.regions.push_back(std::move(region.Value()));
      node.memories.push_back(std::move(memory.Value()));
    }
    auto link = Link::Create(*node.device, node, options);
    if (!link) std::abort();
    node.link = std::move(link.Value());
  }
  for (std::size_t i = 0; i < 2; ++i) {
    if (!nodes[i].link->Connect(nodes[1 - i].link->Local(), network.Now())) std::abort();
  }
  if (!OpenAll(connections)) std::abort();
}

TwoNodes::~TwoNodes() {
  for (Node& node : nodes) {
    node.link.reset();
    node.memories.clear();
    for (std::byte* map : node.maps) ::munmap(map, channel::kRegionBytes);
  }
}

bool TwoNodes::OpenAll(std::uint32_t connections) {
  for (std::uint32_t number = 0; number < connections; ++number) {
    const std::uint32_t region = number / channel::kSlots;
    const std::uint32_t slot = number % channel::kSlots;
    for (std::size_t i = 0; i < 2; ++i) {
      nodes[i].regions[region]->PrepareSlot(slot, 1);
      const auto far = nodes[1 - i].memories[region]->Use(slot);
      if (!far) return false;
      ConnectionSpec spec;
      spec.number = static_cast<std::uint16_t>(number);
      spec.epoch = 1;
      spec.memory = nodes[i].memories[region].get();
      spec.slot = slot;
      spec.wake_target = kAgentObject;
      spec.path = 1;
      spec.far_ring = reinterpret_cast<std::uint64_t>(far.Value().in);
      spec.far_key = far.Value().in_remote_key;
      if (!nodes[i].link->Open(spec)) return false;
      std::byte* map = nodes[i].maps[region];
      nodes[i].ends.push_back(std::make_unique<RingEnd>(reinterpret_cast<channel::SlotHeader*>(map + channel::SlotOffset(slot)),
                                                        map + channel::RingOffset(slot, 0), static_cast<std::uint32_t>(i), number,
                                                        [this, i, region] { RingAgent(i, region); }));
    }
  }
  return true;
}

void TwoNodes::RingAgent(std::size_t node, std::size_t region) {
  ++nodes[node].rings;
  nodes[node].link->Rung(*nodes[node].memories[region]);
}

void TwoNodes::Turn(std::uint64_t advance_ns) {
  network.Advance(advance_ns);
  for (Node& node : nodes) (void)node.link->Poll(network.Now());
  for (int i = 0; i < 8; ++i) (void)network.Step();
}

bool TwoNodes::Settle() {
  for (int turn = 0; turn < 100000; ++turn) {
    bool busy = network.Step();
    for (Node& node : nodes) {
      busy |= node.link->Poll(network.Now());
      const std::uint64_t deadline = node.link->NextDeadline();
      if (deadline > network.Now() + kSoonNs) continue;
      if (!busy && deadline > network.Now()) network.Advance(deadline - network.Now());
      busy = true;
    }
    if (busy) continue;
    bool asleep = true;
    for (Node& node : nodes) {
      asleep &= node.link->PrepareToSleep(network.Now()) && node.link->NextDeadline() > network.Now() + kSoonNs && !node.device->Notified();
      node.device->ClearNotifications();
    }
    if (asleep && !network.Step()) return true;
  }
  return false;
}

bool TwoNodes::BringUp() {
  for (Node& node : nodes) {
    for (auto& end : node.ends) end->ConsiderGoingUp();
  }
  if (!Settle()) return false;
  for (Node& node : nodes) {  // those whose far end was not there yet
    for (auto& end : node.ends) end->ConsiderGoingUp();
  }
  return Settle();
}

}  // namespace vsocket::transport::testing
