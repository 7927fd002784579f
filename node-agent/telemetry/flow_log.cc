#include "node-agent/telemetry/flow_log.h"

#include <algorithm>
#include <utility>

namespace vsocket::telemetry {
namespace {

std::uint64_t UnixNanos() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
}

}  // namespace

void FlowLog::Append(model::FlowEvent event) {
  if (event.unix_nanos == 0) event.unix_nanos = UnixNanos();
  {
    const std::lock_guard lock(mutex_);
    event.sequence = next_++;
    events_.push_back(std::move(event));
    if (events_.size() > capacity_) events_.pop_front();
  }
  grown_.notify_all();
}

void FlowLog::Close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  grown_.notify_all();
}

model::FlowBatch FlowLog::ReadFlows(std::uint64_t from, std::size_t most, std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  if (from == 0) from = Oldest();
  from = std::min(from, next_);  // a number from before a restart of the agent
  grown_.wait_for(lock, wait, [&] { return closed_ || next_ > from; });
  model::FlowBatch batch;
  if (from < Oldest()) {
    batch.lost = Oldest() - from;
    lost_ += batch.lost;
    from = Oldest();
  }
  const auto begin = events_.begin() + static_cast<std::ptrdiff_t>(from - Oldest());
  const auto count = std::min<std::size_t>(most, next_ - from);
  batch.events.assign(begin, begin + static_cast<std::ptrdiff_t>(count));
  batch.next = from + count;
  batch.over = closed_ && batch.next == next_;
  return batch;
}

std::uint64_t FlowLog::NextFlow() const {
  const std::lock_guard lock(mutex_);
  return next_;
}

std::uint64_t FlowLog::Lost() const {
  const std::lock_guard lock(mutex_);
  return lost_;
}

}  // namespace vsocket::telemetry
