#include "channel/testing/direction_ends.h"

#include <algorithm>
#include <vector>

namespace vsocket::channel::testing {

SenderEnd::SenderEnd(const DirectionView& view, std::uint64_t position) : view_(view) {
  out_.pos = out_.seen_head = position;
  view_.mine->tail.store(position, std::memory_order_relaxed);
  view_.mine->capacity_log2.store(out_.capacity_log2, std::memory_order_relaxed);
}

std::optional<std::size_t> SenderEnd::Send(std::span<const std::uint8_t> bytes) {
  Flush();
  if (tx_.mode == SwitchSender::Mode::kLeaving) return 0;
  if (tx_.mode == SwitchSender::Mode::kTcp) {
    const std::size_t sent = view_.tcp->Send(bytes);
    out_.pos += sent;
    return sent;
  }
  if (!RefreshRoom(out_, *view_.theirs)) return std::nullopt;
  interleave();
  const std::size_t size = std::min<std::uint64_t>(bytes.size(), Room(out_));
  const std::size_t first = size / 3;  // two parts of an iovec
  CopyIn(out_, view_.ring, 0, bytes.data(), first);
  CopyIn(out_, view_.ring, first, bytes.data() + first, size - first);
  interleave();
  Publish(out_, *view_.mine, size);
  interleave();
  last_waiter_ = TakeWaiter(view_.theirs->data_waiter);
  if (last_waiter_ != kNobody) Bell();
  return size;
}

bool SenderEnd::GoUp(std::uint8_t next_byte) {
  if (!MayGoUp(tx_, view_.theirs->finished_generation.load(std::memory_order_acquire))) return false;
  const Proposal proposal = channel::GoUp(tx_, out_.pos, next_byte);
  out_.seen_head = out_.pos;
  view_.mine->capacity_log2.store(out_.capacity_log2, std::memory_order_relaxed);
  view_.mine->tail.store(out_.pos, std::memory_order_relaxed);
  interleave();
  view_.mine->proposal_marker.store(proposal.marker, std::memory_order_relaxed);
  interleave();
  view_.mine->proposal_start.store(proposal.start, std::memory_order_relaxed);
  interleave();
  view_.mine->proposal_generation.store(proposal.generation, std::memory_order_release);
  return true;
}

bool SenderEnd::GoDown() {
  if (tx_.mode != SwitchSender::Mode::kRing) return true;
  if (!RefreshRoom(out_, *view_.theirs)) return false;
  interleave();
  channel::GoDown(tx_, out_.seen_head, out_.pos);
  Flush();
  return true;
}

void SenderEnd::Flush() {
  while (tx_.mode == SwitchSender::Mode::kLeaving) {
    const std::uint8_t* bytes = nullptr;
    std::size_t size = PendingFrame(tx_, &bytes);
    if (size == 0) {
      const std::uint64_t capacity = 1ULL << out_.capacity_log2;
      const std::uint64_t at = tx_.replay_from & (capacity - 1);
      bytes = reinterpret_cast<const std::uint8_t*>(view_.ring) + at;
      size = std::min(tx_.replay_end - tx_.replay_from, capacity - at);
    }
    const std::size_t sent = view_.tcp->Send({bytes, size});
    if (sent == 0) return;
    SentWhileLeaving(tx_, sent);
    interleave();
  }
}

void SenderEnd::Bell() {
  if (tx_.mode == SwitchSender::Mode::kRing) (void)view_.tcp->Send({&tx_.marker, 1});
}

bool SenderEnd::TryResize(std::uint32_t capacity_log2) {
  if (tx_.mode == SwitchSender::Mode::kLeaving) return true;  // the replay is still in the ring
  if (!RefreshRoom(out_, *view_.theirs)) return false;
  interleave();
  if (IsDrained(out_)) SetCapacity(out_, *view_.mine, capacity_log2);
  return true;
}

ReceiverEnd::ReceiverEnd(const DirectionView& view, std::uint64_t position) : view_(view) {
  in_.pos = in_.seen_tail = position;
  rx_.tcp_pos = position;
  view_.mine->head.store(position, std::memory_order_relaxed);
}

void ReceiverEnd::StartGenerationsAfter(std::uint32_t generation) {
  rx_.generation = generation;
  view_.mine->finished_generation.store(generation, std::memory_order_release);
}

Proposal ReceiverEnd::LoadProposal() {
  Proposal proposal;
  proposal.generation = view_.theirs->proposal_generation.load(std::memory_order_acquire);
  interleave();
  proposal.marker = static_cast<std::uint8_t>(view_.theirs->proposal_marker.load(std::memory_order_relaxed));
  interleave();
  proposal.start = view_.theirs->proposal_start.load(std::memory_order_relaxed);
  return proposal;
}

bool ReceiverEnd::ConsiderProposal() {
  if (rx_.tcp_pos != in_.pos) return false;
  if (!EnterRing(rx_, LoadProposal())) return false;
  in_.seen_tail = in_.pos;
  view_.mine->head.store(in_.pos, std::memory_order_release);
  return true;
}

void ReceiverEnd::ConsiderDrained() {
  (void)FinishDraining(rx_, in_.pos);
  if (rx_.mode == SwitchReceiver::Mode::kTcp) view_.mine->finished_generation.store(rx_.generation, std::memory_order_release);
}

ReceiverEnd::Received ReceiverEnd::ReceiveByTcp(std::span<std::uint8_t> into, bool peek) {
  while (rx_.tcp_pos < in_.pos) {
    const std::size_t size = std::min<std::uint64_t>(view_.tcp->Peek().size(), in_.pos - rx_.tcp_pos);
    if (size == 0) return {view_.tcp->FinArrived() ? Outcome::kEnd : Outcome::kNothing};
    view_.tcp->Discard(size);
    rx_.tcp_pos += size;
    skipped_ += size;
    interleave();
  }
  const std::span<const std::uint8_t> seen = view_.tcp->Peek();
  const bool fin = view_.tcp->FinArrived();
  std::size_t size = std::min(seen.size(), into.size());
  std::copy_n(seen.begin(), size, into.begin());  // the kernel copies before the proposal is looked at
  interleave();
  if (size == 0) return {fin ? Outcome::kEnd : Outcome::kNothing};
  size = std::min<std::uint64_t>(size, PayloadBound(rx_, LoadProposal()));
  if (peek || size == 0) return {size != 0 ? Outcome::kBytes : Outcome::kNothing, size};
  view_.tcp->Discard(size);
  rx_.tcp_pos += size;
  in_.pos += size;
  view_.mine->head.store(in_.pos, std::memory_order_release);
  return {Outcome::kBytes, size};
}

ReceiverEnd::Received ReceiverEnd::ReceiveByRing(std::span<std::uint8_t> into, bool peek) {
  std::uint64_t available = Available(in_);
  if (rx_.mode == SwitchReceiver::Mode::kDraining) available = std::min(available, rx_.drain_until - in_.pos);
  const std::size_t size = std::min<std::uint64_t>(into.size(), available);
  const std::size_t first = size / 2;
  CopyOut(in_, view_.ring, 0, into.data(), first);
  CopyOut(in_, view_.ring, first, into.data() + first, size - first);
  interleave();
  if (!peek) Consume(in_, *view_.mine, size);
  if (rx_.mode == SwitchReceiver::Mode::kDraining) ConsiderDrained();
  return {Outcome::kBytes, size};
}

bool ReceiverEnd::TakeFrames(std::size_t frame_batch) {
  while (rx_.mode == SwitchReceiver::Mode::kRing) {
    const std::span<const std::uint8_t> all = view_.tcp->Peek();
    const std::vector<std::uint8_t> seen(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(std::min(frame_batch, all.size())));
    const bool fin = view_.tcp->FinArrived();
    interleave();
    if (!RefreshData(in_, *view_.theirs)) return false;  // after the look at TCP: what was sent before a FIN is found
    if (seen.empty()) {
      fin_seen_ = fin;
      return true;
    }
    const FrameScan scan = ScanFrames(rx_, seen.data(), seen.size(), in_.pos, in_.seen_tail);
    if (scan.outcome == FrameScan::Outcome::kBroken) return false;
    bells_ += scan.bells;
    view_.tcp->Discard(scan.consumed);
    if (rx_.mode != SwitchReceiver::Mode::kRing) ConsiderDrained();
    if (scan.consumed == 0 && view_.tcp->Peek().size() == seen.size()) {
      fin_seen_ = fin;  // the start of a SWITCH, whose rest never comes after a FIN
      return true;
    }
    interleave();
  }
  return true;
}

ReceiverEnd::Received ReceiverEnd::Receive(std::span<std::uint8_t> into, std::size_t frame_batch, bool peek) {
  bool armed = false;
  for (;;) {
    interleave();
    if (rx_.mode == SwitchReceiver::Mode::kTcp) {
      if (ConsiderProposal()) continue;
      const Received got = ReceiveByTcp(into, peek);
      if (got.outcome == Outcome::kBytes) return got;
      // Once more, after the look at TCP: a sender may have gone up in between, and even have ended.
      if (ConsiderProposal()) continue;
      return got;
    }
    if (!RefreshData(in_, *view_.theirs)) return {Outcome::kBroken};
    if (rx_.mode == SwitchReceiver::Mode::kDraining && in_.pos == rx_.drain_until) {
      ConsiderDrained();
      continue;
    }
    if (Available(in_) != 0) return ReceiveByRing(into, peek);
    if (fin_seen_) return {Outcome::kEnd};
    if (!TakeFrames(frame_batch)) return {Outcome::kBroken};
    if (rx_.mode != SwitchReceiver::Mode::kRing || Available(in_) != 0 || fin_seen_) continue;
    if (armed) return {Outcome::kNothing};
    Arm(view_.mine->data_waiter, kTcpBell);
    armed = true;
  }
}

void ReceiverEnd::Abandon() {
  if (rx_.mode != SwitchReceiver::Mode::kDraining) return;
  AbandonRing(rx_);
  ConsiderDrained();
}

}  // namespace vsocket::channel::testing
