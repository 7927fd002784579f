#include "node-agent/transport/mirror/lane_queue.h"

#include <algorithm>
#include <utility>

namespace vsocket::transport {

LaneQueue::LaneQueue(Lane lane, std::unique_ptr<QueuePair> queue_pair, const MirrorOptions& options, LaneCounters* counters)
    : lane_(lane),
      queue_pair_(std::move(queue_pair)),
      counters_(counters),
      sends_(options.lanes[static_cast<std::size_t>(lane)].sends),
      receives_(options.lanes[static_cast<std::size_t>(lane)].receives),
      window_bytes_(options.lanes[static_cast<std::size_t>(lane)].window_bytes),
      signal_every_(std::min(options.signal_every, std::max(1U, sends_ / 4))),
      signal_bytes_(std::min({options.signal_bytes, window_bytes_ / 4, options.connection_window / 4})),
      inline_bytes_(std::min(options.inline_bytes, queue_pair_->Limits().inline_bytes)),
      sent_(sends_ + 1),
      cells_(sends_ + 1) {
  batch_.reserve(sends_);
  receive_batch_.reserve(receives_);
  for (std::uint64_t buffer = 0; buffer < receives_; ++buffer) to_repost_.push_back(buffer);
}

std::uint32_t LaneQueue::RoomFor(std::uint32_t bytes) const {
  const std::uint64_t left = bytes_in_flight_ < window_bytes_ ? window_bytes_ - bytes_in_flight_ : 0;
  if (left < std::min(bytes, window_bytes_ / 4)) return 0;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes, left));
}

bool LaneQueue::ShouldSignal(const SendRequest& request) {
  bytes_unsignalled_ += request.length;
  const bool signal = signal_next_ || added_ - signalled_ >= signal_every_ || bytes_unsignalled_ >= signal_bytes_;
  if (!signal) return false;
  signalled_ = added_;
  bytes_unsignalled_ = 0;
  signal_next_ = false;
  return true;
}

void LaneQueue::Add(SendRequest request, std::uint16_t connection) {
  ++added_;
  request.id = CompletionId{lane_, false, added_}.Packed();
  request.inlined = request.length <= inline_bytes_;
  request.signalled = ShouldSignal(request);
  sent_[added_ % sent_.size()] = {connection, request.length};
  bytes_in_flight_ += request.length;
  ++counters_->posts;
  counters_->inlined += request.inlined && request.length != 0;
  counters_->signalled += request.signalled;
  if (request.operation != SendRequest::Operation::kWrite) ++used_;
  counters_->immediates += request.operation == SendRequest::Operation::kWriteWithImmediate;
  batch_.push_back(request);
}

void LaneQueue::AddCell(SendRequest request, const PositionCell& cell, std::uint16_t connection) {
  PositionCell& kept = cells_[(added_ + 1) % cells_.size()];
  kept = cell;
  request.length = sizeof kept;
  request.local_address = reinterpret_cast<std::uint64_t>(&kept);
  ++counters_->positions;
  Add(request, connection);
}

Result<bool, FabricError> LaneQueue::RingDoorbell() {
  if (batch_.empty()) return true;
  ++counters_->doorbells;
  auto posted = queue_pair_->PostSend(batch_);
  batch_.clear();
  posted_ = added_;
  return posted;
}

bool LaneQueue::OnFarReposted(std::uint32_t count) {
  if (count - far_reposted_ > used_ - far_reposted_) return false;  // also one that goes back
  far_reposted_ = count;
  return true;
}

Result<bool, FabricError> LaneQueue::Repost(std::uint64_t base, std::uint32_t key, std::uint32_t buffer_bytes) {
  if (to_repost_.empty()) return true;
  receive_batch_.clear();
  for (const std::uint64_t buffer : to_repost_) {
    receive_batch_.push_back({CompletionId{lane_, true, buffer}.Packed(), buffer_bytes == 0 ? 0 : base + buffer * buffer_bytes,
                              buffer_bytes == 0 ? 0 : key, buffer_bytes});
  }
  counters_->receives += receive_batch_.size();
  if (filled_) reposted_ += static_cast<std::uint32_t>(receive_batch_.size());
  filled_ = true;
  to_repost_.clear();
  return queue_pair_->PostReceive(receive_batch_);
}

}  // namespace vsocket::transport
