#include "node-agent/transport/mirror/inbound.h"

#include "base/untrusted.h"

namespace vsocket::transport {
namespace {

constexpr std::uint64_t kLastStart = 1ULL << 62;

// By the far device's writes, at any moment.
std::uint64_t LoadCell(std::uint64_t& word) {
  return std::atomic_ref(word).load(std::memory_order_acquire);
}

}  // namespace

Inbound::Inbound(const ConnectionSpec& spec, const ConnectionWords& words) : spec_(spec), words_(words) {
  LookAtHead();
}

Record Inbound::RecordOf(RecordType type) const {
  Record record;
  record.type = type;
  record.connection = spec_.number;
  record.epoch = spec_.epoch;
  return record;
}

bool Inbound::OnPropose(LinkContext& link, const Record& proposal) {
  const std::uint32_t generation = proposal.small[0];
  std::uint32_t capacity_log2 = 0;
  std::uint64_t start = 0;
  if (generation == 0 || !Untrusted(proposal.small[1] >> 8).Within(channel::kRingMinLog2, channel::kRemoteRingMaxLog2, &capacity_log2) ||
      !Untrusted(proposal.large[0]).Within(0, kLastStart, &start))
    return false;
  if (on_ring_ && generation == generation_) return false;
  on_ring_ = true;
  generation_ = generation;
  capacity_log2_ = capacity_log2;
  position_ = told_ = start;
  channel::SideWords& far = *words_.far;
  far.eof_answer.store(0, std::memory_order_relaxed);
  far.capacity_log2.store(capacity_log2, std::memory_order_relaxed);
  far.tail.store(start, std::memory_order_relaxed);
  far.proposal_marker.store(proposal.small[1] & 255, std::memory_order_relaxed);
  far.proposal_start.store(start, std::memory_order_relaxed);
  far.proposal_generation.store(generation, std::memory_order_release);  // pairs with the shim's acquire of it
  Record record = RecordOf(RecordType::kCommit);
  record.small[0] = generation;
  link.control->push_back(record);
  return true;
}

bool Inbound::Advance(LinkContext& link, std::uint64_t position) {
  if (!on_ring_ || position - told_ > (1ULL << capacity_log2_)) return false;
  if (position == position_) return true;
  ++link.counters->chunks_received;
  link.counters->bytes_received += position - position_;
  position_ = position;
  words_.far->tail.store(position, std::memory_order_release);  // pairs with RefreshData; the bytes came before, by the same queue pair
  channel::SleepWakeFence();
  const bool sleeps = words_.pod->data_waiter.load(std::memory_order_relaxed) != channel::kNobody;
  awake_in_a_row_ = sleeps ? 0 : awake_in_a_row_ + 1;
  if (!sleeps) return true;
  const std::uint32_t target = channel::TakeWaiter(words_.pod->data_waiter);
  if (target == channel::kNobody) return true;
  ++link.counters->pod_wakes;
  link.host->WakePod(spec_.number, target);
  if (target == channel::kTcpBell) link.control->push_back(RecordOf(RecordType::kWantBell));
  return true;
}

bool Inbound::OnImmediate(LinkContext& link, std::uint32_t immediate) {
  const std::uint64_t position = PositionOf(immediate, position_);
  return position == position_ || Advance(link, position);
}

bool Inbound::LookAtCell(LinkContext& link, PositionCell& cell) {
  const std::uint64_t position = LoadCell(cell.position);
  if (LoadCell(cell.complement) != ~position || position <= position_) return true;
  return Advance(link, position);
}

bool Inbound::OnResize(LinkContext& link, const Record& record) {
  std::uint32_t capacity_log2 = 0;
  if (!on_ring_ || record.small[1] != generation_ || record.large[0] != position_ || told_ != position_) return false;
  if (!Untrusted(record.small[0]).Within(channel::kRingMinLog2, channel::kRemoteRingMaxLog2, &capacity_log2)) return false;
  capacity_log2_ = capacity_log2;
  words_.far->capacity_log2.store(capacity_log2, std::memory_order_relaxed);  // rides on the tail that follows
  Record answer = RecordOf(RecordType::kResized);
  answer.small = {capacity_log2, generation_};
  link.control->push_back(answer);
  return true;
}

bool Inbound::OnTellEnd(LinkContext& link, const Record& record) {
  std::uint32_t answer = 0;
  constexpr auto kLast = static_cast<std::uint32_t>(channel::EofAnswer::kCut);
  if (!Untrusted(record.small[0]).Within(1, kLast, &answer)) return false;
  if (answer == static_cast<std::uint32_t>(channel::EofAnswer::kInRing)) {
    if (!on_ring_ || record.small[1] != generation_) return false;
    // All of it has been written; what would have told so may still be in the completion queue.
    if (record.large[0] < position_ || !Advance(link, record.large[0])) return false;
    words_.far->eof_position.store(record.large[0], std::memory_order_relaxed);
  }
  words_.far->eof_answer.store(answer, std::memory_order_release);
  WakeWaiter(link, spec_.number, words_.pod->data_waiter);
  return true;
}

void Inbound::LookAtHead() {
  channel::SideWords& pod = *words_.pod;
  // Before the head: what is told as finished must not be ahead of the head that is told with it.
  finished_ = LoadUntrusted(pod.finished_generation, std::memory_order_acquire).ForDisplay();
  attached_ = LoadUntrusted(pod.attached, std::memory_order_acquire).ForDisplay();
  wants_tcp_ = LoadUntrusted(pod.wants_tcp, std::memory_order_acquire).ForDisplay();
  head_ = LoadUntrusted(pod.head, std::memory_order_acquire).ForDisplay();
}

// Less than half of the ring is free as far as the far sender knows, and a quarter more is: the far sender may be asleep for it.
bool Inbound::IsUrgent() const {
  if (finished_ != told_finished_ || attached_ != told_attached_ || wants_tcp_ != told_wants_tcp_) return true;
  std::uint64_t head = 0;
  if (!on_ring_ || !Untrusted(head_).Within(told_, position_, &head)) return false;
  const std::uint64_t capacity = 1ULL << capacity_log2_;
  return position_ - told_ > capacity / 2 && head - told_ >= capacity / 4;
}

void Inbound::Tell(LinkContext& link) {
  std::uint64_t head = 0;
  if (on_ring_ && Untrusted(head_).Within(told_, position_, &head)) told_ = head;
  told_word_ = head_;
  told_finished_ = finished_;
  told_attached_ = attached_;
  told_wants_tcp_ = wants_tcp_;
  Record record = RecordOf(RecordType::kState);
  record.small = {finished_, wants_tcp_};
  record.large = {head_, attached_};
  link.control->push_back(record);
  ++link.counters->credits_sent;
}

void Inbound::Look(LinkContext& link, bool lazily) {
  LookAtHead();
  if (IsUrgent() || (lazily && OwesHead())) Tell(link);
  const std::uint32_t question = LoadUntrusted(words_.pod->eof_question, std::memory_order_acquire).ForDisplay();
  if (question == asked_) return;
  asked_ = question;
  if (question != 0) link.control->push_back(RecordOf(RecordType::kAskEnd));
}

bool Inbound::HasNews() const {
  const channel::SideWords& pod = *words_.pod;
  return pod.head.load(std::memory_order_acquire) != head_ || pod.finished_generation.load(std::memory_order_acquire) != finished_ ||
         pod.attached.load(std::memory_order_acquire) != attached_ || pod.wants_tcp.load(std::memory_order_acquire) != wants_tcp_ ||
         pod.eof_question.load(std::memory_order_acquire) != asked_;
}

void Inbound::Quieten(LinkContext& link) {
  quiet_ = true;
  link.control->push_back(RecordOf(RecordType::kQuiet));
}

void Inbound::EndQuiet(LinkContext& link) {
  quiet_ = false;
  awake_in_a_row_ = 0;
  link.control->push_back(RecordOf(RecordType::kNotify));
}

void Inbound::FillIn(PathReport* report) const {
  report->receiving_on_ring = on_ring_;
  report->received = position_;
  report->told_consumed = told_;
}

}  // namespace vsocket::transport
