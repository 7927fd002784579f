#include "node-agent/transport/mirror/testing/ring_end.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace vsocket::transport::testing {
namespace {

constexpr std::size_t kPeriod = 65521;  // a prime: no two places of a ring hold the same
constexpr std::uint64_t kLongest = channel::kRemoteRingMax;

std::vector<std::uint8_t> MakePattern() {
  std::vector<std::uint8_t> bytes(kPeriod + kLongest);
  std::uint64_t state = 1;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    bytes[i] = i < kPeriod ? static_cast<std::uint8_t>(state >> 56) : bytes[i - kPeriod];
  }
  return bytes;
}

}  // namespace

RingEnd::RingEnd(channel::SlotHeader* slot, std::byte* rings, std::uint32_t side, std::uint64_t number, std::function<void()> ring_agent)
    : mine_(&slot->side[side]),
      far_(&slot->side[1 - side]),
      out_ring_(rings + side * channel::kRingMax),
      in_ring_(rings + (1 - side) * channel::kRingMax),
      ring_agent_(std::move(ring_agent)) {
  for (std::uint32_t sender = 0; sender < 2; ++sender) shift_[sender == side ? 1 : 0] = number * 7919 + sender * 104729;
  out_.capacity_log2 = channel::kRemoteRingMaxLog2;
  mine_->attached.store(1, std::memory_order_release);
  Touched(far_->data_waiter);
}

void RingEnd::Touched(std::atomic<std::uint32_t>& waiter) {
  if (channel::TakeWaiter(waiter) != channel::kNobody) ring_agent_();
}

const std::uint8_t* RingEnd::Pattern(bool sent, std::uint64_t position) const {
  static const std::vector<std::uint8_t> bytes = MakePattern();
  return bytes.data() + (position + shift_[sent ? 1 : 0]) % kPeriod;
}

void RingEnd::ConsiderGoingUp() {
  const std::uint32_t path = far_->path.load(std::memory_order_acquire);
  if (up_ || path == 0 || far_->attached.load(std::memory_order_acquire) == 0) return;
  up_ = true;
  path_ = path;
  channel::SwitchSender sender;
  const channel::Proposal proposal = channel::GoUp(sender, 0, 0);
  mine_->capacity_log2.store(out_.capacity_log2, std::memory_order_relaxed);
  mine_->tail.store(0, std::memory_order_relaxed);
  mine_->proposal_marker.store(proposal.marker, std::memory_order_relaxed);
  mine_->proposal_start.store(0, std::memory_order_relaxed);
  mine_->commit.store(channel::CommitWord(channel::Commit::kProposed, proposal.generation), std::memory_order_relaxed);
  mine_->proposal_generation.store(proposal.generation, std::memory_order_release);
  Touched(far_->data_waiter);
}

std::uint64_t RingEnd::Send(std::uint64_t want) {
  if (!up_ || !channel::RefreshRoom(out_, *far_)) return 0;
  const std::uint64_t size = std::min({want, channel::Room(out_), kLongest});
  if (size == 0) return 0;
  channel::CopyIn(out_, out_ring_, 0, Pattern(true, out_.pos), size);
  channel::Publish(out_, *mine_, size);
  Touched(far_->data_waiter);
  return size;
}

bool RingEnd::Refresh() {
  if (rx_.mode == channel::SwitchReceiver::Mode::kTcp) {
    channel::Proposal proposal;
    proposal.generation = far_->proposal_generation.load(std::memory_order_acquire);
    proposal.start = far_->proposal_start.load(std::memory_order_relaxed);
    if (!channel::EnterRemoteRing(rx_, proposal)) return false;
  }
  if (!channel::RefreshData(in_, *far_)) right_ = false;
  return right_;
}

std::uint64_t RingEnd::Receive(std::uint64_t most) {
  if (!Refresh()) return 0;
  const std::uint64_t size = std::min({channel::Available(in_), most, kLongest});
  if (size == 0) return 0;
  static thread_local std::vector<std::uint8_t> bytes(kLongest);
  channel::CopyOut(in_, in_ring_, 0, bytes.data(), size);
  if (std::memcmp(bytes.data(), Pattern(false, in_.pos), size) != 0) right_ = false;
  channel::Consume(in_, *mine_, size);
  if ((1ULL << in_.capacity_log2) - channel::Available(in_) >= channel::WritableRoom(in_.capacity_log2)) Touched(far_->space_waiter);
  return size;
}

bool RingEnd::Arm(std::uint32_t target, bool wants_room) {
  if (wants_room) mine_->space_waiter.store(target, std::memory_order_release);
  channel::Arm(mine_->data_waiter, target);
  const bool data = Refresh() && channel::Available(in_) != 0;
  const bool room =
      wants_room && up_ && channel::RefreshRoom(out_, *far_) && channel::Room(out_) >= channel::WritableRoom(out_.capacity_log2);
  const bool may_go_up = !up_ && far_->path.load(std::memory_order_acquire) != 0 && far_->attached.load(std::memory_order_acquire) != 0;
  return !data && !room && !may_go_up && !PathLost();
}

void RingEnd::Disarm() {
  channel::Disarm(mine_->data_waiter);
  channel::Disarm(mine_->space_waiter);
}

}  // namespace vsocket::transport::testing
