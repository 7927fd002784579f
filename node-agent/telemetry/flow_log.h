// The last flow events, in memory: a bounded ring with many writers and many readers.
//
// Invariants:
// 1. Writers never wait for readers: the ring overwrites its oldest event.
// 2. A reader that was overtaken is told how many events it lost, and goes on with the oldest that there is. So over all batches of a
//    reader that begins at number n: events given + events lost = events made since n.
//
// Thread safety: every method from any thread.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>

#include "node-agent/model/flow_source.h"

namespace vsocket::telemetry {

class FlowLog final : public model::FlowSource {
 public:
  static constexpr std::size_t kCapacity = 8192;  // events; about 4 MiB when full

  explicit FlowLog(std::size_t capacity = kCapacity) : capacity_(capacity) {}

  // Gives it its number and, when it has none, its time.
  void Append(model::FlowEvent event);
  // Nothing more comes: wakes every reader, now and later.
  void Close();

  model::FlowBatch ReadFlows(std::uint64_t from, std::size_t most, std::chrono::milliseconds wait) override;
  [[nodiscard]] std::uint64_t NextFlow() const override;
  // Of readers that were overtaken, in events; for metrics.
  [[nodiscard]] std::uint64_t Lost() const;

 private:
  [[nodiscard]] std::uint64_t Oldest() const { return next_ - events_.size(); }  // mutex_ held

  const std::size_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable grown_;
  std::deque<model::FlowEvent> events_;
  std::uint64_t next_ = 1;
  std::uint64_t lost_ = 0;
  bool closed_ = false;
};

}  // namespace vsocket::telemetry
