#include "node-agent/transport/mirror/link.h"

#include <algorithm>
#include <utility>

namespace vsocket::transport {

Link::Link(Device& device, MirrorHost& host, const MirrorOptions& options)
    : device_(device), host_(host), options_(options), board_(kMaxConnections) {
  const LaneOptions& control = options_.lanes[static_cast<std::size_t>(Lane::kControl)];
  control_memory_.resize((control.sends + control.receives) * kControlBytes);
}

Result<std::unique_ptr<Link>, FabricError> Link::Create(Device& device, MirrorHost& host, const MirrorOptions& options) {
  std::unique_ptr<Link> link(new Link(device, host, options));
  const auto prepared = link->Prepare();
  if (!prepared) return Failure(prepared.Error());
  return link;
}

Result<bool, FabricError> Link::Prepare() {
  const auto board = device_.Register(board_.data(), board_.size() * sizeof(PositionCell), Access::kRemoteWrite);
  if (!board) return Failure(board.Error());
  board_keys_ = board.Value();
  board_registered_ = true;
  const auto control = device_.Register(control_memory_.data(), control_memory_.size(), Access::kLocal);
  if (!control) return Failure(control.Error());
  control_keys_ = control.Value();
  control_registered_ = true;
  std::uint32_t depth = 0;
  for (const LaneOptions& lane : options_.lanes) depth += lane.sends + lane.receives;
  auto completions = device_.CreateCompletionQueue(depth);
  if (!completions) return Failure(completions.Error());
  completions_ = std::move(completions.Value());
  for (std::size_t i = 0; i < kLanes; ++i) {
    const LaneOptions& lane = options_.lanes[i];
    auto pair = device_.CreateQueuePair(*completions_, {lane.sends, lane.receives, options_.inline_bytes});
    if (!pair) return Failure(pair.Error());
    lanes_[i] = std::make_unique<LaneQueue>(static_cast<Lane>(i), std::move(pair.Value()), options_, &counters_.lanes[i]);
    if (lanes_[i]->InlineBytes() < sizeof(PositionCell)) return Failure(FabricError{0, "the device sends nothing inline"});
  }
  RepostReceives(true);
  if (failed_) return Failure(FabricError{0, why_});
  context_.lanes = {lanes_[0].get(), lanes_[1].get()};
  context_.control = &records_;
  context_.host = &host_;
  context_.counters = &counters_;
  context_.options = &options_;
  return true;
}

Link::~Link() {
  for (auto& lane : lanes_) lane.reset();
  completions_.reset();
  if (control_registered_) device_.Deregister(control_keys_);
  if (board_registered_) device_.Deregister(board_keys_);
}

LinkAddress Link::Local() const {
  LinkAddress address;
  address.version = kWireVersion;
  for (std::size_t i = 0; i < kLanes; ++i) {
    address.lanes[i] = lanes_[i]->Pair().Address();
    address.receives[i] = options_.lanes[i].receives;
  }
  address.board = reinterpret_cast<std::uint64_t>(board_.data());
  address.board_key = board_keys_.remote;
  return address;
}

Result<bool, FabricError> Link::Connect(const LinkAddress& peer, std::uint64_t now_ns) {
  if (connected_ || peer.version != kWireVersion) return Failure(FabricError{0, "the peer speaks another version of the wire"});
  for (std::size_t i = 0; i < kLanes; ++i) {
    // A far side with fewer could not even be told that it has been heard.
    if (peer.receives[i] < 8 || peer.receives[i] > 65536) return Failure(FabricError{0, "the peer posts too few receives"});
    lanes_[i]->SetFarReceives(peer.receives[i]);
    const auto connected = lanes_[i]->Pair().Connect(peer.lanes[i]);
    if (!connected) return Failure(connected.Error());
  }
  context_.far_board = peer.board;
  context_.far_board_key = peer.board_key;
  context_.now_ns = heard_ns_ = now_ns;
  connected_ = true;
  return true;
}

Link::Connection* Link::Find(std::uint16_t number) {
  const auto found = connections_.find(number);
  return found == connections_.end() ? nullptr : &found->second;
}

bool Link::Open(const ConnectionSpec& spec) {
  if (failed_ || !connected_ || spec.number >= kMaxConnections || spec.memory == nullptr || spec.slot >= channel::kSlots ||
      spec.path == 0 || spec.wake_target < channel::kFirstWakeFd || spec.wake_target >= channel::kFirstWakeFd + channel::kWakeFdsPerSide ||
      connections_.contains(spec.number))
    return false;
  const auto rings = spec.memory->Use(spec.slot);
  if (!rings) return false;
  board_[spec.number] = {};  // of whoever had the number before
  channel::SlotHeader& slot = spec.memory->Slot(spec.slot);
  const std::uint32_t side = spec.memory->LocalSide();
  const ConnectionWords words{&slot.side[side], &slot.side[1 - side]};
  Connection& connection = connections_.try_emplace(spec.number, spec, words, rings.Value()).first->second;
  by_memory_[spec.memory].push_back(spec.number);
  Activate(connection);
  words.far->path.store(spec.path, std::memory_order_release);  // from here on the pod may propose; pairs with the shim's look at it
  return true;
}

void Link::Close(std::uint16_t number) {
  Connection* connection = Find(number);
  if (connection == nullptr || connection->closing) return;
  connection->closing = true;
  connection->words.far->path.store(0, std::memory_order_release);
  closing_.push_back(number);
  if (failed_) FinishClosed();
}

void Link::ConsiderClosing(Connection& connection) {
  if (connection.close_sent || (!failed_ && !connection.out.IsSettled(context_))) return;
  connection.close_sent = true;
  Record record;
  record.type = RecordType::kClose;
  record.connection = connection.spec.number;
  record.epoch = connection.spec.epoch;
  records_.push_back(record);
}

// Our kClose is on its way behind all that was done, and the far agent's is here: nobody touches the slot any more.
void Link::FinishClosed() {
  for (std::size_t i = 0; i < closing_.size();) {
    const std::uint16_t number = closing_[i];
    const Connection* connection = Find(number);
    if (!failed_ && !(connection->close_sent && connection->close_received)) {
      ++i;
      continue;
    }
    closing_[i] = closing_.back();
    closing_.pop_back();
    auto& siblings = by_memory_[connection->spec.memory];
    std::erase(siblings, number);
    if (siblings.empty()) by_memory_.erase(connection->spec.memory);
    std::erase(active_, number);
    std::erase(lazy_, number);
    std::erase(waiting_, number);
    for (auto& ready : ready_) std::erase(ready, number);
    connections_.erase(number);
    host_.Closed(number);
  }
}

bool Link::Owns(std::uint32_t queue_pair) const {
  return std::any_of(lanes_.begin(), lanes_.end(), [&](const auto& lane) { return lane->Pair().Address().number == queue_pair; });
}

PathReport Link::Report(std::uint16_t number) const {
  PathReport report;
  const auto found = connections_.find(number);
  if (found == connections_.end()) return report;
  report.connection = number;
  report.epoch = found->second.spec.epoch;
  found->second.out.FillIn(&report);
  found->second.in.FillIn(&report);
  return report;
}

void Link::LosePath(Connection& connection, const std::string& why) {
  if (connection.lost) return;
  connection.lost = true;
  connection.words.far->path.store(0, std::memory_order_release);
  const PathReport report = Report(connection.spec.number);
  WakeWaiter(context_, connection.spec.number, connection.words.pod->data_waiter);
  WakeWaiter(context_, connection.spec.number, connection.words.pod->space_waiter);
  if (!connection.closing) host_.PathLost(report, why);
}

void Link::Fail(const std::string& why) {
  if (failed_) return;
  failed_ = true;
  why_ = why;
  for (auto& lane : lanes_) {
    if (lane) lane->Pair().Abort();
  }
  std::vector<std::uint16_t> numbers;
  for (const auto& [number, connection] : connections_) numbers.push_back(number);
  for (const std::uint16_t number : numbers) {
    if (Connection* connection = Find(number)) LosePath(*connection, why);  // the host may close some meanwhile
  }
  FinishClosed();
}

}  // namespace vsocket::transport
