#include "node-agent/transport/mirror/testing/sim_world.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

namespace vsocket::transport::testing {
namespace {

constexpr std::uint64_t kMs = 1000 * 1000;
constexpr std::uint64_t kLeaseNs = 5000 * kMs;
constexpr std::uint32_t kAgentObject = channel::kFirstWakeFd + 3;
constexpr std::uint64_t kMaxSteps = 400000;
constexpr std::uint64_t kSettleSteps = 100000;

}  // namespace

WorldMemory::WorldMemory() {
  for (std::size_t node = 0; node < 2; ++node) {
    auto region = Region::Create(node + 1, 1);
    if (!region) std::abort();
    regions_[node] = std::move(region.Value());
    void* map = ::mmap(nullptr, channel::kRegionBytes, PROT_READ | PROT_WRITE, MAP_SHARED, regions_[node]->Fd(), 0);
    if (map == MAP_FAILED) std::abort();
    maps_[node] = static_cast<std::byte*>(map);
  }
}

void World::Node::WakePod(std::uint16_t connection, std::uint32_t) {
  world->pairs_[connection].pods[static_cast<std::size_t>(index)]->Wake();
}

void World::Node::PathLost(const PathReport& report, const std::string& why) {
  ++world->tally_->path_losses;
  if (why == "the far agent is silent") ++world->tally_->silent;
  const SimPod& sender = *world->pairs_[report.connection].pods[static_cast<std::size_t>(index)];
  const SimPod& receiver = *world->pairs_[report.connection].pods[static_cast<std::size_t>(1 - index)];
  // What the report is certain of is true.
  if (report.sending_on_ring &&
      (report.known_consumed > std::max(receiver.Received(), sender.UpAt()) || report.written > sender.Published()))
    world->wrong_ = "the report of a lost path says too much: consumed " + std::to_string(report.known_consumed) + " of " +
                    std::to_string(receiver.Received()) + ", written " + std::to_string(report.written) + " of " +
                    std::to_string(sender.Published()) + " for connection " + std::to_string(report.connection);
  if (why == "the pod wrote impossible values") world->wrong_ = "an honest pod is called broken";
  to_close.push_back(report.connection);
}

World::World(std::uint64_t seed, WorldMemory* memory, Tally* tally) : seed_(seed), network_(seed), memory_(memory), tally_(tally) {
  options_.spin_ns = Below(2) == 0 ? 0 : 100000;
  options_.connection_window = 4096U << Below(6);
  options_.small_limit = 256U << Below(6);
  options_.signal_every = 1U << Below(5);
  options_.inline_bytes = Below(2) == 0 ? 16 : 256;
  for (LaneOptions& lane : options_.lanes) {
    lane.sends = 16U << Below(4);
    lane.receives = 8U << Below(4);
    lane.window_bytes = 8192U << Below(5);
    if (lane.quantum != 0) lane.quantum = 512U << Below(6);
  }
  network_.SetRetryBudget((200 + Below(7000)) * kMs);
  if (Below(2) == 0) network_.HoldUp();
  faulty_ = Below(5) != 0;
  relinks_left_ = static_cast<std::uint32_t>(Below(4));
  pairs_.resize(1 + Below(4));
  for (int i = 0; i < 2; ++i) MakeNode(i);
  for (std::size_t i = 0; i < pairs_.size(); ++i) MakePair(i);
}

World::~World() {
  for (Node& node : nodes_) {
    node.link.reset();
    node.memory.reset();
    node.device.reset();
  }
}

void World::MakeNode(int index) {
  Node& node = nodes_[static_cast<std::size_t>(index)];
  node.world = this;
  node.index = index;
  node.closed.resize(pairs_.size());
  node.device = network_.AddDevice(index);
  auto mapped = RingMemory::Map(memory_->Of(index).Fd(), static_cast<std::uint32_t>(index), *node.device);
  if (!mapped) std::abort();
  node.memory = std::move(mapped.Value());
}

void World::MakePair(std::size_t index) {
  Pair& pair = pairs_[index];
  const std::uint64_t alphabet = Below(2) == 0 ? 2 + Below(3) : 256;
  for (std::size_t i = 0; i < 2; ++i) {
    pair.patterns[i] = std::make_unique<Pattern>(seed_ * 1000003 + index * 17 + i, alphabet);
    pair.start[i] = Below(3) == 0 ? 0 : Below(1ULL << (1 + Below(50)));
    pair.tcp[i] = std::make_unique<channel::testing::TcpQueue>(1 + Below(20000));
    pair.slot[i] = static_cast<std::uint32_t>((index * (i + 1) + i * 5) % channel::kSlots);
    memory_->Of(static_cast<int>(i)).PrepareSlot(pair.slot[i], pair.epoch);
  }
  for (std::size_t i = 0; i < 2; ++i) {
    std::byte* map = memory_->Map(static_cast<int>(i));
    auto* slot = reinterpret_cast<channel::SlotHeader*>(map + channel::SlotOffset(pair.slot[i]));
    const auto side = static_cast<std::uint32_t>(i);
    const PodView view{&slot->side[side],
                       &slot->side[1 - side],
                       map + channel::RingOffset(pair.slot[i], side),
                       map + channel::RingOffset(pair.slot[i], 1 - side),
                       pair.tcp[i].get(),
                       pair.tcp[1 - i].get()};
    pair.pods[i] = std::make_unique<SimPod>(view, pair.patterns[i].get(), pair.patterns[1 - i].get(), pair.start[i], pair.start[1 - i],
                                            [this](std::uint64_t n) { return Below(n); });
    pair.pods[i]->ring_agent = [this, i] {
      // As the shim's RingWakeFd: one ring is enough until the agent has looked.
      auto* header = reinterpret_cast<channel::RegionHeader*>(memory_->Map(static_cast<int>(i)));
      auto& rung = header->rung[1 - i].object[kAgentObject - channel::kFirstWakeFd];
      if (rung.exchange(1) == 0) nodes_[i].rung = true;
    };
  }
}

bool World::LinkUp() {
  for (Node& node : nodes_) {
    if (node.dead) return false;
  }
  for (Node& node : nodes_) {
    auto link = Link::Create(*node.device, node, options_);
    if (!link) return false;
    node.link = std::move(link.Value());
    node.asleep = node.rung = false;
    node.memory->Header().rung[1 - node.index].object[kAgentObject - channel::kFirstWakeFd].store(0);
  }
  for (std::size_t i = 0; i < 2; ++i) {
    if (!nodes_[i].link->Connect(nodes_[1 - i].link->Local(), network_.Now())) return false;
  }
  OpenAll();
  return true;
}

bool World::OpenPair(std::size_t index) {
  Pair& pair = pairs_[index];
  for (std::size_t i = 0; i < 2; ++i) {
    const auto far = nodes_[1 - i].memory->Use(pair.slot[1 - i]);
    if (!far) return false;
    ConnectionSpec spec;
    spec.number = static_cast<std::uint16_t>(index);
    spec.epoch = pair.epoch;
    spec.memory = nodes_[i].memory.get();
    spec.slot = pair.slot[i];
    spec.wake_target = kAgentObject;
    spec.path = pair.path;
    spec.far_ring = reinterpret_cast<std::uint64_t>(far.Value().in);
    spec.far_key = far.Value().in_remote_key;
    nodes_[i].closed[index] = false;
    nodes_[i].asleep = false;
    if (!nodes_[i].link->Open(spec)) return false;
  }
  return true;
}

void World::OpenAll() {
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    if (!OpenPair(i)) wrong_ = "a connection could not be opened";
  }
}

void World::StepAgent(Node& node) {
  if (node.dead || !node.link || network_.Now() < node.stopped_until) return;
  if (node.asleep) {
    if (!node.device->Notified() && !node.rung && network_.Now() < node.link->NextDeadline()) return;
    node.asleep = false;
  }
  node.device->ClearNotifications();
  if (node.rung) {
    node.rung = false;
    node.link->Rung(*node.memory);
  }
  DeviceEvent event;
  std::uint32_t queue_pair = 0;
  while (node.device->TakeEvent(&event, &queue_pair)) {
    if (event != DeviceEvent::kPortUp && event != DeviceEvent::kOther) node.link->Fail("the device reports a fault");
  }
  const bool worked = node.link->Poll(network_.Now());
  while (!node.to_close.empty() && (node.link->Failed() || Below(2) == 0)) {
    const std::uint16_t number = node.to_close.back();
    node.to_close.pop_back();
    node.link->Close(number);
  }
  if (worked || Below(3) == 0) return;
  for (std::uint64_t pods = Below(3); pods != 0; --pods) StepPods();  // between the last look and the arming
  if (node.link->PrepareToSleep(network_.Now())) {
    node.asleep = true;
    ++tally_->agent_sleeps;
  }
}

void World::StepPods() {
  Pair& pair = pairs_[Below(pairs_.size())];
  const std::size_t end = Below(2);
  SimPod& pod = *pair.pods[end];
  pair.tcp[end]->Deliver(Below(4000));
  if (Below(20) == 0) pair.tcp[end]->SetRoom(Below(20000));
  if (Below(2) == 0) {
    if (pod.CanReceive()) pod.StepReceive();
  } else if (ending_) {
    if (!pod.Finished() && !pod.Killed()) (void)pod.Finish();
  } else if (!settling_ && pod.CanSend()) {
    pod.StepSend();
  }
}

void World::Inject() {
  const std::size_t victim = Below(2);
  Node& node = nodes_[victim];
  switch (Below(8)) {
    case 0:
    case 1:
      if (network_.IsCut()) break;
      ++tally_->cuts;
      network_.Cut(static_cast<int>(victim));
      Below(2) == 0 ? network_.Cut(1 - static_cast<int>(victim)) : void(++tally_->one_way_cuts);
      heal_at_ = network_.Now() + Below(Below(2) == 0 ? 100 * kMs : 10000 * kMs);
      break;
    case 2:
      if (Below(3) != 0 || node.dead) break;
      ++tally_->devices_removed;
      node.device->Remove();
      break;
    case 3:
      if (Below(3) != 0 || node.dead) break;
      ++tally_->ports_down;
      node.device->TakePortDown();
      break;
    case 4:  // stopped, and perhaps for longer than the other bears
      node.stopped_until = network_.Now() + Below(4000 * kMs);
      break;
    case 5:
      if (Below(4) != 0 || node.dead || !node.link) break;
      ++tally_->agents_killed;
      node.dead = true;
      TakeCounters(node);
      node.link.reset();
      node.memory.reset();
      node.device.reset();
      for (Pair& pair : pairs_) pair.pods[victim]->LoseLease();
      break;
    case 6: {
      SimPod& pod = *pairs_[Below(pairs_.size())].pods[victim];
      if (Below(2) != 0 || pod.Killed() || pod.Finished()) break;
      ++tally_->pods_killed;
      pod.Kill();
      break;
    }
    default: {
      const std::size_t index = Below(pairs_.size());
      if (node.dead || !node.link || node.link->Failed() || !node.link->IsOpen(static_cast<std::uint16_t>(index))) break;
      node.link->Close(static_cast<std::uint16_t>(index));
      pairs_[index].pods[victim]->Wake();  // whoever closes it tells its pod
      node.asleep = false;
    }
  }
}

void World::AdvanceTime() {
  std::uint64_t next = network_.NextTimeout();
  for (const Node& node : nodes_) {
    if (node.dead || !node.link) continue;
    next = std::min(next, node.stopped_until > network_.Now() ? node.stopped_until : node.link->NextDeadline());
  }
  if (network_.IsCut()) next = std::min(next, heal_at_);
  if (next == UINT64_MAX || next <= network_.Now()) return;
  network_.Advance(next - network_.Now());
}

// Both agents notice in their own time that a link has gone; then they may make another.
void World::TearDownIfLost() {
  if (relinks_left_ == 0 || network_.IsCut()) return;
  for (const Node& node : nodes_) {
    if (node.dead || !node.link || !node.link->Failed() || !node.to_close.empty()) return;
  }
  for (const Node& node : nodes_) TakeCounters(node);
  --relinks_left_;
  for (std::size_t i = 0; i < 2; ++i) {
    nodes_[i].link.reset();
    nodes_[i].memory.reset();
    nodes_[i].device.reset();
    MakeNode(static_cast<int>(i));
  }
  for (Pair& pair : pairs_) {
    ++pair.path;
    ++pair.epoch;
  }
  ++tally_->relinks;
  if (!LinkUp()) wrong_ = "a new link could not be made";
}

void World::ConsiderReopening() {
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    for (const Node& node : nodes_) {
      if (node.dead || !node.link || node.link->Failed() || !node.closed[i]) goto next;
    }
    ++pairs_[i].epoch;
    ++pairs_[i].path;
    ++tally_->reopened;
    if (!OpenPair(i)) wrong_ = "a connection could not be opened again";
  next:;
  }
}

bool World::AllArrived() const {
  if (network_.IsCut()) return false;
  for (const Pair& pair : pairs_) {
    for (std::size_t i = 0; i < 2; ++i) {
      const SimPod& sender = *pair.pods[i];
      const SimPod& receiver = *pair.pods[1 - i];
      if (receiver.Killed() || receiver.Ended() != SimPod::End::kNone || !sender.IsMirrored()) continue;
      if (receiver.Received() != sender.Published()) return false;
    }
  }
  return true;
}

bool World::AllEnded() const {
  for (const Pair& pair : pairs_) {
    for (const auto& pod : pair.pods) {
      if (!pod->Killed() && pod->Ended() == SimPod::End::kNone) return false;
    }
  }
  return true;
}

std::string World::Run() {
  if (!LinkUp()) return "the first link could not be made";
  const std::uint64_t active_steps = 500 + Below(4000);
  std::uint64_t step = 0;
  for (; wrong_.empty(); ++step) {
    if (step == active_steps) {
      settling_ = true;
      faulty_ = false;
    }
    // Nobody sends any more: what is on rings arrives without anything that follows it.
    if (settling_ && !ending_) {
      ending_ = AllArrived();
      if (!ending_ && step > active_steps + kSettleSteps) wrong_ = "bytes on a ring never arrive";
    }
    if (ending_ && AllEnded()) break;
    if (step > kMaxSteps) {
      wrong_ = "stuck";
      break;
    }
    if (Below(2) == 0) network_.Advance(Below(20000));
    StepPods();
    StepAgent(nodes_[Below(2)]);
    for (std::uint64_t packets = Below(4); packets != 0; --packets) (void)network_.Step();
    if (faulty_ && Below(600) == 0) Inject();
    if (Below(64) == 0) AdvanceTime();
    if (network_.IsCut() && network_.Now() >= heal_at_) {
      network_.Heal();
      ++tally_->healed;
    }
    if (Below(32) == 0) TearDownIfLost();
    if (Below(32) == 0) ConsiderReopening();
  }
  ++tally_->schedules;
  tally_->steps += step;
  Count();
  return Judge();
}

void World::TakeCounters(const Node& node) {
  if (!node.link) return;
  const MirrorCounters& counters = node.link->Counters();
  tally_->commits += counters.commits;
  tally_->pings += counters.pings;
  tally_->cells += counters.lanes[0].positions + counters.lanes[1].positions;
  tally_->bulk += counters.lanes[1].posts;
}

void World::Count() {
  for (const Node& node : nodes_) TakeCounters(node);
  for (const Pair& pair : pairs_) {
    for (const auto& pod : pair.pods) {
      const PodCounts& counts = pod->Counts();
      tally_->bytes += counts.received;
      tally_->ring_bytes += counts.from_ring;
      tally_->ups += counts.ups;
      tally_->aborts += counts.aborts;
      tally_->aborts_seen += counts.aborts_seen;
      tally_->downs += counts.downs;
      tally_->replayed += counts.replayed;
      tally_->skipped += counts.skipped;
      tally_->resizes += counts.resizes;
      tally_->pod_sleeps += counts.sleeps;
      tally_->clean_ends += pod->Ended() == SimPod::End::kClean;
      tally_->resets += pod->Ended() == SimPod::End::kReset;
    }
  }
  const NetworkCounts& network = network_.Counts();
  tally_->not_ready += network.not_ready;
  tally_->refused += network.refused;
  tally_->overflows += network.overflows;
  tally_->unacknowledged += network.done_but_unacknowledged;
  tally_->torn_words += network.torn_words;
}

// For a failure's text: what the agent knows of the connection.
std::string World::Describe(const Node& node, std::uint16_t connection) const {
  if (node.dead || !node.link) return " (no agent)";
  const PathReport report = node.link->Report(connection);
  return " (agent " +
         std::string(node.link->Failed() ? "failed: " + node.link->Why()
                     : node.asleep       ? "asleep"
                                         : "awake") +
         ", written " + std::to_string(report.written) + ", known " + std::to_string(report.known_consumed) + ", received " +
         std::to_string(report.received) + ", told " + std::to_string(report.told_consumed) + ")";
}

std::string World::Judge() {
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    for (std::size_t end = 0; end < 2; ++end) {
      const SimPod& pod = *pairs_[i].pods[end];
      const SimPod& far = *pairs_[i].pods[1 - end];
      const std::string where = "connection " + std::to_string(i) + " end " + std::to_string(end) + ": ";
      if (!pod.Wrong().empty()) return where + pod.Wrong();
      if (pod.Killed() || pod.Ended() == SimPod::End::kNone) {
        if (!wrong_.empty()) wrong_ += "; " + where + pod.State() + Describe(nodes_[end], static_cast<std::uint16_t>(i));
        continue;
      }
      if (pod.Received() > far.Published()) return where + "more than was ever sent";
      // Only a kill together with a lost path costs bytes, and then it is a reset.
      const bool all = pod.Received() >= far.Accepted();
      if (!all && !far.Killed()) return where + "bytes are lost: " + pod.State();
      if (!all && pod.Ended() == SimPod::End::kClean) return where + "bytes are lost behind a clean end: " + pod.State();
    }
  }
  const NetworkCounts& counts = network_.Counts();
  if (wrong_.empty() && counts.not_ready != 0) wrong_ = "a request found no receive posted";
  if (wrong_.empty() && counts.refused != 0) wrong_ = "a request was refused";
  if (wrong_.empty() && counts.overflows != 0) wrong_ = "a completion queue overflowed";
  return wrong_;
}

}  // namespace vsocket::transport::testing
