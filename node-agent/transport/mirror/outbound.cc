#include "node-agent/transport/mirror/outbound.h"

#include <algorithm>

#include "base/untrusted.h"

namespace vsocket::transport {
namespace {

using channel::Commit;
using channel::CommitWord;
using channel::EofAnswer;
using channel::StateOf;

constexpr std::uint64_t kLastStart = 1ULL << 62;  // no stream is longer
constexpr std::uint32_t kSmallTurns = 64;         // in a row, before a connection goes back to the small lane

}  // namespace

Outbound::Outbound(const ConnectionSpec& spec, const ConnectionWords& words, const SlotRings& rings)
    : spec_(spec),
      words_(words),
      rings_(rings),
      // A proposal that is there already was made for an earlier path.
      generation_(LoadUntrusted(words.pod->proposal_generation, std::memory_order_acquire).ForDisplay()) {}

Record Outbound::RecordOf(RecordType type) const {
  Record record;
  record.type = type;
  record.connection = spec_.number;
  record.epoch = spec_.epoch;
  return record;
}

bool Outbound::Look(LinkContext& link) {
  const std::uint32_t generation = LoadUntrusted(words_.pod->proposal_generation, std::memory_order_acquire).ForDisplay();
  const std::uint32_t commit = LoadUntrusted(words_.pod->commit, std::memory_order_acquire).ForDisplay();
  if (generation != generation_ && commit == CommitWord(Commit::kProposed, generation)) {
    mode_ = Mode::kTcp;
    if (!ConsiderProposal(link, generation)) return false;
  } else if (mode_ == Mode::kProposing && commit != CommitWord(Commit::kProposed, generation_)) {
    mode_ = Mode::kTcp;
    ++link.counters->aborts;
  } else if (mode_ == Mode::kMirroring && commit != CommitWord(Commit::kCommitted, generation_)) {
    mode_ = Mode::kTcp;
  }
  if (mode_ == Mode::kMirroring && !ConsiderTail(link)) return false;
  if (end_asked_) ConsiderEnd(link);
  return true;
}

bool Outbound::ConsiderProposal(LinkContext& link, std::uint32_t generation) {
  // A write of the last generation that is still on its way could land in the ring of the next.
  if (!IsSettled(link)) return true;
  std::uint64_t start = 0;
  std::uint32_t marker = 0;
  std::uint32_t capacity_log2 = 0;
  if (!LoadUntrusted(words_.pod->proposal_start, std::memory_order_relaxed).Within(0, kLastStart, &start) ||
      !LoadUntrusted(words_.pod->proposal_marker, std::memory_order_relaxed).Within(0, 255, &marker) ||
      !LoadUntrusted(words_.pod->capacity_log2, std::memory_order_relaxed)
           .Within(channel::kRingMinLog2, channel::kRemoteRingMaxLog2, &capacity_log2))
    return false;
  mode_ = Mode::kProposing;
  generation_ = generation;
  head_ = sent_ = tail_ = start;
  capacity_log2_ = capacity_log2;
  resizing_to_ = 0;
  ++link.counters->proposals;
  Record record = RecordOf(RecordType::kPropose);
  record.small = {generation, marker | capacity_log2 << 8};
  record.large[0] = start;
  link.control->push_back(record);
  return true;
}

void Outbound::OnCommit(LinkContext& link, std::uint32_t generation) {
  if (mode_ != Mode::kProposing || generation != generation_) return;  // of a proposal that was aborted
  mode_ = Mode::kTcp;
  if (!channel::Settle(words_.pod->commit, generation, Commit::kCommitted)) {
    ++link.counters->aborts;
    return;
  }
  mode_ = Mode::kMirroring;
  ++link.counters->commits;
  // It may sleep for room, or for the moment when it may send frames.
  WakeWaiter(link, spec_.number, words_.pod->space_waiter);
}

bool Outbound::ConsiderTail(LinkContext& link) {
  if (resizing_to_ != 0) return true;
  std::uint64_t tail = 0;
  if (!LoadUntrusted(words_.pod->tail, std::memory_order_acquire).Within(tail_, sent_ + channel::kRemoteRingMax, &tail)) return false;
  if (tail == tail_) {
    if (Unsent() != 0) ChooseLane(link);
    return true;
  }
  std::uint32_t capacity_log2 = 0;
  if (!LoadUntrusted(words_.pod->capacity_log2, std::memory_order_relaxed)
           .Within(channel::kRingMinLog2, channel::kRemoteRingMaxLog2, &capacity_log2))
    return false;
  if (tail - head_ > (1ULL << capacity_log2)) return false;
  tail_ = tail;
  if (capacity_log2 != capacity_log2_) {
    if (head_ != sent_) return false;  // only a drained ring may change
    resizing_to_ = capacity_log2;
    Record record = RecordOf(RecordType::kResize);
    record.small = {capacity_log2, generation_};
    record.large[0] = sent_;
    link.control->push_back(record);
    return true;
  }
  ChooseLane(link);
  return true;
}

void Outbound::OnResized(std::uint32_t capacity_log2, std::uint32_t generation) {
  if (mode_ != Mode::kMirroring || generation != generation_ || capacity_log2 != resizing_to_) return;
  capacity_log2_ = capacity_log2;
  resizing_to_ = 0;
}

void Outbound::ChooseLane(LinkContext& link) {
  if (lane_ == Lane::kSmall) {
    lane_wanted_ = Unsent() > link.options->small_limit;
  } else {
    small_turns_ = Unsent() <= link.options->small_limit / 2 ? small_turns_ + 1 : 0;
    lane_wanted_ = small_turns_ >= kSmallTurns;
  }
  if (!lane_wanted_ || !IsSettled(link)) return;
  lane_ = lane_ == Lane::kSmall ? Lane::kBulk : Lane::kSmall;
  last_sequence_ = 0;
  small_turns_ = 0;
  lane_wanted_ = false;
}

bool Outbound::IsSettled(LinkContext& link) {
  LaneQueue& queue = *link.lanes[static_cast<std::size_t>(lane_)];
  waits_for_done_ = !queue.IsDone(last_sequence_);
  if (!waits_for_done_) return true;
  if (!queue.WillBeTold(last_sequence_) && queue.HasRoom(1)) {
    queue.SignalNext();
    AddCell(link, queue);
  }
  return false;
}

bool Outbound::IsReady(const LinkContext& link) const {
  if (owes_immediate_) return true;
  if (mode_ != Mode::kMirroring || resizing_to_ != 0 || Unsent() == 0) return false;
  return in_flight_ < link.options->connection_window && !(lane_wanted_ && lane_ == Lane::kSmall);
}

Outbound::Posted Outbound::Post(LinkContext& link) {
  LaneQueue& queue = *link.lanes[static_cast<std::size_t>(lane_)];
  Posted posted = Posted::kNothing;
  if (owes_immediate_ && queue.ReceivesLeft() != 0 && queue.HasRoom(1)) {
    AddImmediate(queue);
    posted = Posted::kSomething;
  }
  if (mode_ != Mode::kMirroring || !IsReady(link) || Unsent() == 0) return posted;
  const std::uint32_t quantum = link.options->lanes[static_cast<std::size_t>(lane_)].quantum;
  const std::uint32_t bytes =
      queue.RoomFor(static_cast<std::uint32_t>(std::min<std::uint64_t>({Unsent(), quantum, link.options->connection_window - in_flight_})));
  if (bytes == 0 || !queue.HasRoom(3) || (notify_ && queue.ReceivesLeft() == 0)) {
    ++link.counters->stalled_by_lane;
    return Posted::kLaneIsFull;
  }
  AddPayload(link, queue, bytes);
  return Posted::kSomething;
}

void Outbound::AddPayload(LinkContext& link, LaneQueue& queue, std::uint32_t bytes) {
  const std::uint64_t capacity = 1ULL << capacity_log2_;
  const std::uint64_t at = sent_ & (capacity - 1);
  const auto first = static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes, capacity - at));
  sent_ += bytes;
  for (std::uint32_t done = 0; done < bytes;) {
    const std::uint32_t piece = done == 0 ? first : bytes - first;
    const std::uint64_t offset = done == 0 ? at : 0;
    SendRequest request;
    request.length = piece;
    request.local_address = reinterpret_cast<std::uint64_t>(rings_.out + offset);
    request.local_key = rings_.out_key;
    request.remote_address = spec_.far_ring + offset;
    request.remote_key = spec_.far_key;
    done += piece;
    if (notify_ && done == bytes) {
      request.operation = SendRequest::Operation::kWriteWithImmediate;
      request.immediate = EncodeImmediate(spec_.number, sent_);
    }
    if (piece <= queue.InlineBytes()) link.counters->inline_bytes += piece;
    queue.Add(request, spec_.number);
  }
  in_flight_ += bytes;
  last_sequence_ = queue.LastSequence();
  cells_only_ = !notify_;
  if (notify_) owes_immediate_ = false;
  if (!notify_) AddCell(link, queue);
  ++link.counters->chunks_sent;
  link.counters->bytes_sent += bytes;
}

void Outbound::AddCell(LinkContext& link, LaneQueue& queue) {
  SendRequest request;
  request.remote_address = link.far_board + spec_.number * sizeof(PositionCell);
  request.remote_key = link.far_board_key;
  queue.AddCell(request, {sent_, ~sent_}, spec_.number);
  in_flight_ += sizeof(PositionCell);
  last_sequence_ = queue.LastSequence();
}

void Outbound::AddImmediate(LaneQueue& queue) {
  SendRequest request;
  request.operation = SendRequest::Operation::kWriteWithImmediate;
  request.immediate = EncodeImmediate(spec_.number, sent_);
  request.remote_address = spec_.far_ring;
  request.remote_key = spec_.far_key;
  queue.Add(request, spec_.number);
  last_sequence_ = queue.LastSequence();
  owes_immediate_ = cells_only_ = false;
}

void Outbound::OnNotify() {
  notify_ = true;
  owes_immediate_ = cells_only_;
}

void Outbound::OnState(LinkContext& link, const Record& state) {
  // Everything here is for the pod, whose shim bounds it; only the head is used here as well.
  channel::SideWords& far = *words_.far;
  const std::uint64_t head = state.large[0];
  const bool asked = far.wants_tcp.exchange(state.small[1], std::memory_order_acq_rel) != state.small[1];
  far.attached.store(static_cast<std::uint32_t>(state.large[1]), std::memory_order_release);
  // Before `finished`: a sender that sees the generation finished sees the head that belongs to it.
  if (head > far.head.load(std::memory_order_relaxed)) far.head.store(head, std::memory_order_release);
  far.finished_generation.store(state.small[0], std::memory_order_release);
  if (mode_ == Mode::kMirroring && head > head_ && head <= sent_) head_ = head;
  // With less room than that a sender would go to sleep again at once.
  const std::uint64_t room = (1ULL << capacity_log2_) - (tail_ - head_);
  if (asked || mode_ != Mode::kMirroring || room >= channel::WritableRoom(capacity_log2_))
    WakeWaiter(link, spec_.number, words_.pod->space_waiter);
  if (asked) WakeWaiter(link, spec_.number, words_.pod->data_waiter);  // a program that only receives is to leave the ring it sends on
}

void Outbound::ConsiderEnd(LinkContext& link) {
  const std::uint32_t commit = LoadUntrusted(words_.pod->commit, std::memory_order_acquire).ForDisplay();
  switch (StateOf(commit)) {
    case Commit::kIdle:
      return TellEnd(link, EofAnswer::kByTcp, 0);
    case Commit::kAborting:
      return TellEnd(link, EofAnswer::kCut, 0);
    case Commit::kProposed:
      // The far agent's answer settles it, whether or not the sender lives. One of an earlier path that nobody aborts any more is cut.
      if (mode_ != Mode::kProposing && LoadUntrusted(words_.pod->proposal_generation, std::memory_order_acquire).Is(generation_))
        TellEnd(link, EofAnswer::kCut, 0);
      return;
    case Commit::kCommitted:
      if (mode_ != Mode::kMirroring) return TellEnd(link, EofAnswer::kCut, 0);
      // FIN comes after the last tail, so the one that was loaded since the question is the last.
      if (Unsent() == 0 && resizing_to_ == 0 && IsSettled(link)) TellEnd(link, EofAnswer::kInRing, sent_);
      return;
  }
}

void Outbound::TellEnd(LinkContext& link, EofAnswer answer, std::uint64_t position) {
  end_asked_ = false;
  Record record = RecordOf(RecordType::kTellEnd);
  record.small = {static_cast<std::uint32_t>(answer), generation_};
  record.large[0] = position;
  link.control->push_back(record);
}

bool Outbound::HasNews() const {
  const std::uint32_t generation = words_.pod->proposal_generation.load(std::memory_order_acquire);
  const std::uint32_t commit = words_.pod->commit.load(std::memory_order_acquire);
  if (generation != generation_ && commit == CommitWord(Commit::kProposed, generation)) return !waits_for_done_;
  return mode_ == Mode::kMirroring && resizing_to_ == 0 && words_.pod->tail.load(std::memory_order_acquire) != tail_;
}

void Outbound::FillIn(PathReport* report) const {
  report->sending_on_ring = mode_ == Mode::kMirroring;
  report->written = sent_;
  report->known_consumed = head_;
}

}  // namespace vsocket::transport
