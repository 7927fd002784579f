#include "node-agent/transport/fabric/testing/fake_fabric.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace vsocket::transport::testing {
namespace {

constexpr std::uint32_t kInlineBytes = 64;

Failure<FabricError> Refuse(int error, const char* what) {
  return Failure(FabricError{error, what});
}

}  // namespace

std::unique_ptr<FakeDevice> FakeNetwork::AddDevice(int owner) {
  return std::make_unique<FakeDevice>(this, owner);
}

FakeQueuePair* FakeNetwork::Find(std::uint32_t number) const {
  const auto found = pairs_.find(number);
  return found == pairs_.end() ? nullptr : found->second;
}

bool FakeNetwork::Step() {
  std::vector<std::pair<FakeQueuePair*, bool>> able;
  for (const auto& [number, pair] : pairs_) {
    if (pair->held_ != 0) {
      --pair->held_;
      continue;
    }
    if (holds_ && Below(300) == 0) pair->held_ = Below(600);
    if (pair->CanMove()) able.emplace_back(pair, true);
    if (pair->CanAcknowledge()) able.emplace_back(pair, false);
  }
  for (const auto& [number, pair] : pairs_) {
    if (pair->failed_ || pair->requests_.empty() || now_ns_ < pair->requests_.front().since_ns + budget_ns_) continue;
    ++counts_.timeouts;
    pair->Fail(CompletionStatus::kRetriesExhausted);
    return true;
  }
  if (able.empty()) return false;
  const auto [pair, forward] = able[Below(able.size())];
  forward ? pair->Move() : pair->Acknowledge();
  return true;
}

std::uint64_t FakeNetwork::NextTimeout() const {
  std::uint64_t next = UINT64_MAX;
  for (const auto& [number, pair] : pairs_) {
    if (!pair->failed_ && !pair->requests_.empty()) next = std::min(next, pair->requests_.front().since_ns + budget_ns_);
  }
  return next;
}

int FakeCompletionQueue::Poll(std::span<Completion> into) {
  if (device_->gone_) return -1;
  std::size_t count = 0;
  while (count < into.size() && !completions_.empty()) {
    into[count++] = completions_.front();
    completions_.pop_front();
  }
  return static_cast<int>(count);
}

Result<bool, FabricError> FakeCompletionQueue::RequestNotification() {
  if (device_->gone_) return Refuse(ENODEV, "removed");
  armed_ = true;
  return true;
}

void FakeCompletionQueue::Push(const Completion& completion, bool front) {
  front ? completions_.push_front(completion) : completions_.push_back(completion);
  if (completions_.size() > depth_ && completion.status == CompletionStatus::kSuccess) ++device_->network_->counts_.overflows;
  if (armed_) device_->notified_ = true;
  armed_ = false;
}

FakeQueuePair::FakeQueuePair(FakeNetwork* network, FakeDevice* device, FakeCompletionQueue* completions, const QueuePairLimits& limits)
    : network_(network), device_(device), completions_(completions), limits_(limits), number_(network->next_number_++) {
  limits_.inline_bytes = std::min(limits.inline_bytes, kInlineBytes);
  network_->pairs_[number_] = this;
  device_->pairs_.push_back(this);
}

FakeQueuePair::~FakeQueuePair() {
  network_->pairs_.erase(number_);
  std::erase(device_->pairs_, this);
}

QueuePairAddress FakeQueuePair::Address() const {
  QueuePairAddress address;
  address.number = number_;
  return address;
}

Result<bool, FabricError> FakeQueuePair::Connect(const QueuePairAddress& peer) {
  far_number_ = peer.number;
  return true;
}

Result<bool, FabricError> FakeQueuePair::PostSend(std::span<const SendRequest> requests) {
  if (device_->gone_) return Refuse(ENODEV, "removed");
  if (far_number_ == 0) return Refuse(EINVAL, "not connected");
  for (const SendRequest& request : requests) {
    if (unreaped_ >= limits_.sends) return Refuse(ENOMEM, "the send queue is full");
    if (request.inlined && request.length > limits_.inline_bytes) return Refuse(EINVAL, "too long for inline");
    Posted posted;
    posted.request = request;
    posted.since_ns = network_->now_ns_;
    if (request.inlined) {
      const auto* from = reinterpret_cast<const std::byte*>(request.local_address);
      posted.inlined.assign(from, from + request.length);
    } else if (!device_->Covers(request.local_key, false, request.local_address, request.length)) {
      return Refuse(EFAULT, "the local key does not cover the memory");
    }
    ++unreaped_;
    if (failed_) {
      completions_->Push({request.id, number_, CompletionStatus::kFlushed, Completion::Kind::kSent, 0, 0});
      continue;
    }
    requests_.push_back(std::move(posted));
  }
  if (device_->port_down_ && !failed_) Fail(CompletionStatus::kLocalFailure);
  return true;
}

Result<bool, FabricError> FakeQueuePair::PostReceive(std::span<const ReceiveRequest> requests) {
  if (device_->gone_) return Refuse(ENODEV, "removed");
  for (const ReceiveRequest& request : requests) {
    if (receives_.size() >= limits_.receives) return Refuse(ENOMEM, "the receive queue is full");
    if (request.length != 0 && !device_->Covers(request.local_key, false, request.local_address, request.length))
      return Refuse(EFAULT, "the local key does not cover the buffer");
    receives_.push_back(request);
  }
  return true;
}

FakeQueuePair* FakeQueuePair::Far() const {
  FakeQueuePair* far = network_->Find(far_number_);
  return far == nullptr || far->far_number_ != number_ || far->failed_ || far->device_->gone_ || far->device_->port_down_ ? nullptr : far;
}

bool FakeQueuePair::CanMove() const {
  if (failed_ || device_->gone_ || network_->cut_[device_->owner_] || carried_out_ == requests_.size()) return false;
  const FakeQueuePair* far = Far();
  return far != nullptr;
}

bool FakeQueuePair::CanAcknowledge() const {
  return !failed_ && !device_->gone_ && carried_out_ != 0 && Far() != nullptr && !network_->cut_[1 - device_->owner_];
}

void FakeQueuePair::Move() {
  Posted& posted = requests_[carried_out_];
  FakeQueuePair& far = *Far();
  if (!Deliver(far, posted)) return;
  posted.carried_out = true;
  ++carried_out_;
}

// A piece of it. True: all of it is done.
bool FakeQueuePair::Deliver(FakeQueuePair& far, Posted& posted) {
  using Operation = SendRequest::Operation;
  const SendRequest& request = posted.request;
  NetworkCounts& counts = network_->counts_;
  const bool uses_receive = request.operation != Operation::kWrite;
  if (uses_receive && far.receives_.empty()) {
    ++counts.not_ready;
    return false;
  }
  const std::byte* from = request.inlined ? posted.inlined.data() : reinterpret_cast<const std::byte*>(request.local_address);
  std::uint64_t to = request.remote_address;
  std::uint32_t left = request.length - posted.moved;
  if (request.operation == Operation::kSend) {
    if (far.receives_.front().length < request.length) {
      ++counts.refused;
      Fail(CompletionStatus::kRemoteRefused);
      return false;
    }
    to = far.receives_.front().local_address;
  } else if (request.length != 0 && !far.device_->Covers(request.remote_key, true, to, request.length)) {
    ++counts.refused;
    Fail(CompletionStatus::kRemoteRefused);
    return false;
  }
  if (left != 0) {
    const auto piece = static_cast<std::uint32_t>(network_->Below(3) == 0 ? 1 + network_->Below(left) : left);
    std::memcpy(reinterpret_cast<std::byte*>(to) + posted.moved, from + posted.moved, piece);
    posted.moved += piece;
    ++counts.pieces;
    if (posted.moved % 8 != 0 && posted.moved != request.length) ++counts.torn_words;
    if (posted.moved != request.length) return false;
  }
  ++(request.operation == Operation::kSend ? counts.sends : counts.writes);
  if (uses_receive) {
    const bool send = request.operation == Operation::kSend;
    far.completions_->Push({far.receives_.front().id, far.number_, CompletionStatus::kSuccess,
                            send ? Completion::Kind::kReceived : Completion::Kind::kReceivedImmediate, request.length, request.immediate});
    far.receives_.pop_front();
  }
  return true;
}

// Cumulative, as on the wire: some requests in a row.
void FakeQueuePair::Acknowledge() {
  const std::size_t count = 1 + network_->Below(carried_out_);
  for (std::size_t i = 0; i < count; ++i) {
    const SendRequest& request = requests_.front().request;
    ++silent_;
    if (request.signalled) {
      completions_->Push({request.id, number_, CompletionStatus::kSuccess, Completion::Kind::kSent, request.length, 0});
      unreaped_ -= std::exchange(silent_, 0);  // what was not signalled leaves the send queue with the next that is
    }
    requests_.pop_front();
    --carried_out_;
  }
  if (!requests_.empty()) requests_.front().since_ns = network_->now_ns_;
}

void FakeQueuePair::Fail(CompletionStatus status) {
  if (failed_) return;
  failed_ = true;
  network_->counts_.done_but_unacknowledged += carried_out_;
  bool first = true;
  for (const Posted& posted : requests_) {
    const Completion completion{posted.request.id, number_, first ? status : CompletionStatus::kFlushed, Completion::Kind::kSent, 0, 0};
    completions_->Push(completion, !first && network_->Below(2) == 0);
    if (network_->Below(4) == 0) completions_->Push(completion);
    first = false;
  }
  if (requests_.empty()) device_->events_.push_back(DeviceEvent::kQueuePairFailed);
  for (const ReceiveRequest& receive : receives_)
    completions_->Push({receive.id, number_, CompletionStatus::kFlushed, Completion::Kind::kReceived, 0, 0});
  requests_.clear();
  receives_.clear();
  carried_out_ = 0;
}

void FakeQueuePair::Abort() {
  Fail(CompletionStatus::kFlushed);
}

Result<MemoryKeys, FabricError> FakeDevice::Register(void* address, std::size_t length, Access access) {
  if (gone_) return Refuse(ENODEV, "removed");
  const MemoryKeys keys{network_->next_key_, access == Access::kRemoteWrite ? network_->next_key_ + 1 : 0};
  network_->next_key_ += 2;
  memory_.push_back({reinterpret_cast<std::uint64_t>(address), length, access, keys});
  return keys;
}

void FakeDevice::Deregister(const MemoryKeys& keys) {
  std::erase_if(memory_, [&](const Memory& memory) { return memory.keys.local == keys.local; });
}

bool FakeDevice::Covers(std::uint32_t key, bool remote, std::uint64_t address, std::size_t length) const {
  return std::any_of(memory_.begin(), memory_.end(), [&](const Memory& memory) {
    if ((remote ? memory.keys.remote : memory.keys.local) != key || (remote && memory.access != Access::kRemoteWrite)) return false;
    return address >= memory.address && address - memory.address <= memory.length && length <= memory.length - (address - memory.address);
  });
}

Result<std::unique_ptr<CompletionQueue>, FabricError> FakeDevice::CreateCompletionQueue(std::uint32_t depth) {
  if (gone_) return Refuse(ENODEV, "removed");
  return std::unique_ptr<CompletionQueue>(std::make_unique<FakeCompletionQueue>(this, depth));
}

Result<std::unique_ptr<QueuePair>, FabricError> FakeDevice::CreateQueuePair(CompletionQueue& completions, const QueuePairLimits& wanted) {
  if (gone_) return Refuse(ENODEV, "removed");
  return std::unique_ptr<QueuePair>(
      std::make_unique<FakeQueuePair>(network_, this, &static_cast<FakeCompletionQueue&>(completions), wanted));
}

bool FakeDevice::TakeEvent(DeviceEvent* event, std::uint32_t* queue_pair) {
  if (events_.empty()) return false;
  *event = events_.front();
  *queue_pair = 0;
  events_.pop_front();
  return true;
}

void FakeDevice::Remove() {
  gone_ = true;
  events_.push_back(DeviceEvent::kDeviceGone);
}

void FakeDevice::TakePortDown() {
  port_down_ = true;
  events_.push_back(DeviceEvent::kPortDown);
  for (FakeQueuePair* pair : pairs_) {
    if (!pair->requests_.empty()) pair->Fail(CompletionStatus::kLocalFailure);
  }
}

}  // namespace vsocket::transport::testing
