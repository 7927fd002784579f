// Recent flow events, as a reader at its own pace sees them: rpc/ adapts it, the composition root provides it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "node-agent/model/flow_event.h"

namespace vsocket::model {

struct FlowBatch {
  std::vector<FlowEvent> events;  // oldest first
  std::uint64_t lost = 0;         // events before the first of these that this reader has not seen and cannot any more
  std::uint64_t next = 1;         // where to go on
  bool over = false;              // the source ends: nothing will follow
};

// Thread safety: every method may be called from any thread, by any number of readers.
class FlowSource {
 public:
  virtual ~FlowSource() = default;
  // At most `most` events from number `from` on (0: from the oldest there is; nothing counts as lost then). Waits up to `wait` for the
  // first one.
  virtual FlowBatch ReadFlows(std::uint64_t from, std::size_t most, std::chrono::milliseconds wait) = 0;
  // The number that the next event will get.
  [[nodiscard]] virtual std::uint64_t NextFlow() const = 0;
};

}  // namespace vsocket::model
