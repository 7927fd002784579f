#include "node-agent/transport/mirror/testing/script_fabric.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace vsocket::transport::testing {
namespace {

[[noreturn]] void Broken(const char* what) {
  std::fprintf(stderr, "script_fabric: %s\n", what);
  std::abort();
}

bool Covers(const std::vector<ScriptDevice::Range>& ranges, std::uint64_t address, std::uint64_t length, std::uint32_t key) {
  return std::any_of(ranges.begin(), ranges.end(), [&](const ScriptDevice::Range& range) {
    return range.key == key && address >= range.begin && address <= range.end && length <= range.end - address;
  });
}

class ScriptCompletions final : public CompletionQueue {
 public:
  explicit ScriptCompletions(ScriptDevice* device) : device_(device) {}
  int Poll(std::span<Completion> into) override {
    std::size_t count = 0;
    for (; count < into.size() && !device_->completions.empty(); ++count) {
      into[count] = device_->completions.front();
      device_->completions.pop_front();
    }
    return static_cast<int>(count);
  }
  Result<bool, FabricError> RequestNotification() override { return true; }

 private:
  ScriptDevice* device_;
};

class ScriptQueuePair final : public QueuePair {
 public:
  ScriptQueuePair(ScriptDevice* device, ScriptDevice::Lane* lane, const QueuePairLimits& limits)
      : device_(device), lane_(lane), limits_(limits) {}
  [[nodiscard]] QueuePairAddress Address() const override { return {}; }
  [[nodiscard]] QueuePairLimits Limits() const override { return limits_; }
  Result<bool, FabricError> Connect(const QueuePairAddress&) override { return true; }
  Result<bool, FabricError> PostSend(std::span<const SendRequest> requests) override {
    if (lane_->aborted) Broken("a post to an aborted queue pair");
    for (const SendRequest& request : requests) {
      device_->Check(request);
      lane_->posted.push_back(request.id);
      if (lane_->posted.size() > limits_.sends) Broken("more requests than the send queue holds");
    }
    return true;
  }
  Result<bool, FabricError> PostReceive(std::span<const ReceiveRequest> requests) override {
    for (const ReceiveRequest& request : requests) {
      if (request.length != 0 && !Covers(device_->local, request.local_address, request.length, request.local_key))
        Broken("a receive into memory that is not registered");
      lane_->receives.push_back(request);
      if (lane_->receives.size() > limits_.receives) Broken("more receives than the queue holds");
    }
    return true;
  }
  void Abort() override { lane_->aborted = true; }

 private:
  ScriptDevice* device_;
  ScriptDevice::Lane* lane_;
  QueuePairLimits limits_;
};

}  // namespace

void ScriptDevice::Check(const SendRequest& request) const {
  if (!request.inlined && !Covers(local, request.local_address, request.length, request.local_key))
    Broken("a request reads what is not registered");
  if (request.operation == SendRequest::Operation::kSend) return;
  if (request.length != 0 && !Covers(far, request.remote_address, request.length, request.remote_key))
    Broken("a request writes beyond what the far side has offered");
}

Result<MemoryKeys, FabricError> ScriptDevice::Register(void* address, std::size_t length, Access access) {
  const auto begin = reinterpret_cast<std::uint64_t>(address);
  const MemoryKeys keys{next_key_, next_key_};
  local.push_back({begin, begin + length, next_key_++, access == Access::kRemoteWrite});
  return keys;
}

void ScriptDevice::Deregister(const MemoryKeys& keys) {
  std::erase_if(local, [&](const Range& range) { return range.key == keys.local; });
}

Result<std::unique_ptr<CompletionQueue>, FabricError> ScriptDevice::CreateCompletionQueue(std::uint32_t) {
  return std::unique_ptr<CompletionQueue>(std::make_unique<ScriptCompletions>(this));
}

Result<std::unique_ptr<QueuePair>, FabricError> ScriptDevice::CreateQueuePair(CompletionQueue&, const QueuePairLimits& wanted) {
  lanes.push_back(std::make_unique<Lane>());
  return std::unique_ptr<QueuePair>(std::make_unique<ScriptQueuePair>(this, lanes.back().get(), wanted));
}

}  // namespace vsocket::transport::testing
