// A device whose far side is a script: what is posted is checked against what is registered and what the far side has offered, and
// completions are what the script says. For the fuzzer.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "node-agent/transport/fabric/fabric.h"

namespace vsocket::transport::testing {

class ScriptDevice final : public Device {
 public:
  struct Range {
    std::uint64_t begin = 0, end = 0;
    std::uint32_t key = 0;
    bool remote_write = false;
  };
  // One queue pair's side of things, by the order in which they were made.
  struct Lane {
    std::deque<std::uint64_t> posted;  // ids, not completed
    std::deque<ReceiveRequest> receives;
    bool aborted = false;
  };

  [[nodiscard]] std::string Name() const override { return "script"; }
  Result<MemoryKeys, FabricError> Register(void* address, std::size_t length, Access access) override;
  void Deregister(const MemoryKeys& keys) override;
  Result<std::unique_ptr<CompletionQueue>, FabricError> CreateCompletionQueue(std::uint32_t depth) override;
  Result<std::unique_ptr<QueuePair>, FabricError> CreateQueuePair(CompletionQueue& completions, const QueuePairLimits& wanted) override;
  [[nodiscard]] int CompletionFd() const override { return -1; }
  [[nodiscard]] int EventFd() const override { return -1; }
  void ClearNotifications() override {}
  bool TakeEvent(DeviceEvent*, std::uint32_t*) override { return false; }

  // Aborts the program when the request reads or writes what it must not.
  void Check(const SendRequest& request) const;

  std::vector<Range> local;  // registered here
  std::vector<Range> far;    // offered by the far side
  std::deque<Completion> completions;
  std::vector<std::unique_ptr<Lane>> lanes;
  std::uint64_t payload_posts = 0;

 private:
  std::uint32_t next_key_ = 1;
};

}  // namespace vsocket::transport::testing
