#include "node-agent/transport/mirror/testing/sim_pod.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace vsocket::transport::testing {

using channel::Commit;
using channel::CommitWord;
using channel::EofAnswer;
using TxMode = channel::SwitchSender::Mode;
using RxMode = channel::SwitchReceiver::Mode;

namespace {
constexpr std::uint32_t kPodObject = channel::kFirstWakeFd + 5;
}

Pattern::Pattern(std::uint64_t seed, std::uint64_t alphabet) : bytes_(kPeriod + kLongest) {
  for (std::size_t i = 0; i < bytes_.size(); ++i) {
    std::uint64_t mixed = (i % kPeriod + seed) * 0x9e3779b97f4a7c15ULL;
    mixed ^= mixed >> 29;
    bytes_[i] = static_cast<std::uint8_t>(mixed % alphabet);
  }
}

SimPod::SimPod(const PodView& view, const Pattern* sends, const Pattern* receives, std::uint64_t out_start, std::uint64_t in_start,
               std::function<std::uint64_t(std::uint64_t)> below)
    : view_(view), sends_(sends), receives_(receives), below_(std::move(below)), accepted_(out_start) {
  out_.pos = out_.seen_head = out_start;
  in_.pos = in_.seen_tail = rx_.tcp_pos = in_start;
  view_.mine->tail.store(out_start);
  view_.mine->head.store(in_start);
  view_.mine->capacity_log2.store(out_.capacity_log2);
  view_.mine->data_waiter.store(channel::kNobody);
  view_.mine->attached.store(1, std::memory_order_release);
}

void SimPod::Say(const std::string& what) {
  if (wrong_.empty()) wrong_ = what + " [" + State() + "]";
}

std::string SimPod::State() const {
  return "tx " + std::to_string(static_cast<int>(static_cast<TxMode>(tx_.mode))) + " g" + std::to_string(tx_.generation) + " pos " +
         std::to_string(out_.pos) + " commit " + std::to_string(view_.mine->commit.load()) + " path " + std::to_string(path_) + "/" +
         std::to_string(view_.theirs->path.load()) + " far head " + std::to_string(view_.theirs->head.load()) + " far finished " +
         std::to_string(view_.theirs->finished_generation.load()) + "; rx " +
         std::to_string(static_cast<int>(static_cast<RxMode>(rx_.mode))) + " g" + std::to_string(rx_.generation) + " pos " +
         std::to_string(in_.pos) + " tcp " + std::to_string(rx_.tcp_pos) + " tail " + std::to_string(view_.theirs->tail.load()) +
         " queued " + std::to_string(view_.in_tcp->Peek().size()) + " fin " + std::to_string(view_.in_tcp->FinArrived()) + " answer " +
         std::to_string(view_.theirs->eof_answer.load()) + " end " + std::to_string(static_cast<int>(end_)) + " sleeps " +
         std::to_string(send_sleeps_) + std::to_string(receive_sleeps_);
}

// Whoever waits for what we have just stored; here it is the agent.
void SimPod::TouchedFor(std::atomic<std::uint32_t>& waiter) {
  if (channel::TakeWaiter(waiter) != channel::kNobody) ring_agent();
}

bool SimPod::PathHolds() const {
  return !lease_over_ && view_.theirs->path.load(std::memory_order_acquire) == path_;
}

Commit SimPod::CommitState() const {
  return channel::StateOf(view_.mine->commit.load(std::memory_order_acquire));
}

void SimPod::StepSend() {
  if (tx_.mode == TxMode::kRing) {
    const bool asked = view_.theirs->wants_tcp.load(std::memory_order_acquire) == tx_.generation;
    if (!PathHolds() || asked || below_(60) == 0) Leave();
  }
  Flush();
  if (tx_.mode == TxMode::kTcp && below_(6) == 0) GoUp();
  // Bells, also needless ones; only a committed ring is framed.
  if (tx_.mode == TxMode::kRing && CommitState() == Commit::kCommitted && below_(10) == 0) (void)view_.out_tcp->Send({&tx_.marker, 1});
  SendSome();
}

void SimPod::GoUp() {
  const std::uint32_t path = view_.theirs->path.load(std::memory_order_acquire);
  if (path == 0 || lease_over_ || view_.theirs->attached.load(std::memory_order_acquire) == 0) return;
  const std::uint32_t finished = view_.theirs->finished_generation.load(std::memory_order_acquire);
  const bool done = finished == tx_.generation || (last_aborted_ && view_.theirs->head.load(std::memory_order_acquire) > up_at_);
  if (!done) return;
  path_ = path;
  up_at_ = out_.pos;
  last_aborted_ = false;
  const channel::Proposal proposal = channel::GoUp(tx_, out_.pos, *sends_->At(out_.pos));
  out_.seen_head = out_.pos;
  channel::SideWords& mine = *view_.mine;
  mine.capacity_log2.store(out_.capacity_log2, std::memory_order_relaxed);
  mine.tail.store(out_.pos, std::memory_order_relaxed);
  mine.proposal_marker.store(proposal.marker, std::memory_order_relaxed);
  mine.proposal_start.store(proposal.start, std::memory_order_relaxed);
  mine.commit.store(CommitWord(Commit::kProposed, proposal.generation), std::memory_order_relaxed);
  mine.proposal_generation.store(proposal.generation, std::memory_order_release);
  ++counts_.ups;
  TouchedFor(view_.theirs->data_waiter);
}

void SimPod::Leave() {
  if (tx_.mode != TxMode::kRing) return;
  const std::uint64_t head = std::max(view_.theirs->head.load(std::memory_order_acquire), up_at_);
  if (channel::Settle(view_.mine->commit, tx_.generation, Commit::kAborting)) {
    ++counts_.aborts;
    last_aborted_ = true;
    channel::GoDownSilently(tx_, up_at_, out_.pos);
  } else {
    ++counts_.downs;
    if (head > out_.pos) return Say("a head beyond what was sent");
    channel::GoDown(tx_, head, out_.pos);
  }
  counts_.replayed += tx_.replay_end - tx_.replay_from;
  Flush();
}

void SimPod::Flush() {
  while (tx_.mode == TxMode::kLeaving) {
    const std::uint8_t* bytes = nullptr;
    std::size_t size = channel::PendingFrame(tx_, &bytes);
    if (size == 0) {
      const std::uint64_t capacity = 1ULL << out_.capacity_log2;
      const std::uint64_t at = tx_.replay_from & (capacity - 1);
      bytes = reinterpret_cast<const std::uint8_t*>(view_.out_ring) + at;
      size = std::min(tx_.replay_end - tx_.replay_from, capacity - at);
    }
    const std::size_t sent = size == 0 ? 0 : view_.out_tcp->Send({bytes, size});
    if (size != 0 && sent == 0) return;
    channel::SentWhileLeaving(tx_, sent);
  }
  if (tx_.mode == TxMode::kTcp && CommitState() != Commit::kIdle) {
    view_.mine->commit.store(CommitWord(Commit::kIdle, tx_.generation), std::memory_order_release);
    TouchedFor(view_.theirs->data_waiter);
  }
}

void SimPod::SendSome() {
  if (tx_.mode == TxMode::kLeaving) return;
  const std::uint64_t want = 1 + (below_(24000) >> below_(15));
  if (tx_.mode == TxMode::kRing) return SendByRing(want);
  const std::size_t sent = view_.out_tcp->Send({sends_->At(out_.pos), want});
  out_.pos += sent;
  accepted_ = out_.pos;
  counts_.sent += sent;
}

void SimPod::SendByRing(std::uint64_t want) {
  if (!channel::RefreshRoom(out_, *view_.theirs)) return Say("the copy of the far head is impossible");
  if (CommitState() == Commit::kCommitted && channel::IsDrained(out_) && below_(4) == 0) {
    const auto capacity_log2 = static_cast<std::uint32_t>(channel::kRingMinLog2 + below_(3));
    if (capacity_log2 != out_.capacity_log2) ++counts_.resizes;
    channel::SetCapacity(out_, *view_.mine, capacity_log2);
  }
  const std::uint64_t size = std::min(want, channel::Room(out_));
  if (size == 0) {
    channel::Arm(view_.mine->space_waiter, kPodObject);
    if (!channel::RefreshRoom(out_, *view_.theirs)) return Say("the copy of the far head is impossible");
    const bool settled = CommitState() == Commit::kCommitted;
    if (channel::Room(out_) != 0 || !PathHolds() || (settled && below_(8) == 0)) return;
    ++counts_.sleeps;
    send_sleeps_ = true;
    return;
  }
  channel::CopyIn(out_, view_.out_ring, 0, sends_->At(out_.pos), size);
  channel::Publish(out_, *view_.mine, size);
  TouchedFor(view_.theirs->data_waiter);
  accepted_ = out_.pos;
  counts_.sent += size;
  counts_.by_ring += size;
}

bool SimPod::Finish() {
  if (killed_ || finished_) return true;
  Leave();
  Flush();
  if (tx_.mode != TxMode::kTcp) return false;
  finished_ = true;
  view_.out_tcp->Close();
  return true;
}

channel::Proposal SimPod::Load() const {
  channel::Proposal proposal;
  proposal.generation = view_.theirs->proposal_generation.load(std::memory_order_acquire);
  proposal.marker = static_cast<std::uint8_t>(view_.theirs->proposal_marker.load(std::memory_order_relaxed));
  proposal.start = view_.theirs->proposal_start.load(std::memory_order_relaxed);
  return proposal;
}

bool SimPod::CanReceive() const {
  if (killed_ || end_ != End::kNone) return false;
  return !receive_sleeps_ || !view_.in_tcp->Peek().empty() || (view_.in_tcp->FinArrived() && !asked_);
}

void SimPod::StepReceive() {
  receive_sleeps_ = false;
  if (rx_.mode == RxMode::kTcp && channel::EnterRemoteRing(rx_, Load())) {
    framed_ = took_ring_ = false;
    in_.seen_tail = in_.pos;
  }
  rx_.mode == RxMode::kTcp ? ReceiveByTcp() : ReceiveByRing();
}

void SimPod::Take(const std::uint8_t* bytes, std::uint64_t size) {
  const std::uint8_t* right = receives_->At(in_.pos);
  const auto wrong = static_cast<std::uint64_t>(std::mismatch(bytes, bytes + size, right).first - bytes);
  if (wrong != size) Say("a wrong byte at " + std::to_string(in_.pos + wrong) + (rx_.mode == RxMode::kTcp ? " by TCP" : " from the ring"));
  counts_.received += size;
}

void SimPod::ReceiveByTcp() {
  channel::testing::TcpQueue& tcp = *view_.in_tcp;
  if (rx_.tcp_pos < in_.pos) {  // a replay of what was read from the ring
    const std::uint64_t size = std::min<std::uint64_t>(in_.pos - rx_.tcp_pos, tcp.Peek().size());
    tcp.Discard(size);
    rx_.tcp_pos += size;
    counts_.skipped += size;
    if (rx_.tcp_pos < in_.pos) return SleepToReceive();
  }
  std::uint64_t size = std::min<std::uint64_t>(tcp.Peek().size(), 1 + below_(20000));
  const channel::Proposal proposal = Load();  // after the look at the queue
  if (channel::IsNewRemote(rx_, proposal)) size = std::min(size, proposal.start - rx_.tcp_pos);
  if (size == 0) return SleepToReceive();
  Take(tcp.Peek().data(), size);
  tcp.Discard(size);
  rx_.tcp_pos += size;
  in_.pos += size;
  view_.mine->head.store(in_.pos, std::memory_order_release);
  TouchedFor(view_.theirs->space_waiter);
}

bool SimPod::TakeFromRing(std::uint64_t until) {
  if (!channel::RefreshData(in_, *view_.theirs)) {
    Say("the copy of the far tail is impossible");
    return false;
  }
  const std::uint64_t size = std::min({channel::Available(in_), until - in_.pos, 1 + below_(20000)});
  if (size == 0) return false;
  std::vector<std::uint8_t> bytes(size);
  channel::CopyOut(in_, view_.in_ring, 0, bytes.data(), size);
  Take(bytes.data(), size);
  channel::Consume(in_, *view_.mine, size);
  took_ring_ = true;
  counts_.from_ring += size;
  TouchedFor(view_.theirs->space_waiter);
  return true;
}

void SimPod::Finished(std::uint32_t generation) {
  view_.mine->finished_generation.store(generation, std::memory_order_release);
  TouchedFor(view_.theirs->data_waiter);
}

void SimPod::ReceiveByRing() {
  if (rx_.mode == RxMode::kRing && below_(500) == 0) {
    view_.mine->wants_tcp.store(rx_.generation, std::memory_order_release);
    TouchedFor(view_.theirs->data_waiter);
  }
  const bool frames_first = below_(3) == 0;
  if (frames_first) LookAtFrames();
  if (rx_.mode == RxMode::kDraining && channel::FinishDraining(rx_, in_.pos)) Finished(rx_.generation);
  if (rx_.mode == RxMode::kTcp) return;
  if (TakeFromRing(rx_.mode == RxMode::kDraining ? rx_.drain_until : UINT64_MAX)) return;
  if (rx_.mode == RxMode::kDraining) return;
  LookAtFrames();
  if (rx_.mode == RxMode::kRing) SleepToReceive();
}

void SimPod::LookAtFrames() {
  channel::testing::TcpQueue& tcp = *view_.in_tcp;
  const auto seen = tcp.Peek();
  if (rx_.mode != RxMode::kRing || seen.empty()) return;
  if (channel::SaysAborted(rx_, seen[0])) {
    if (framed_ || took_ring_) return Say("payload where only frames may be");
    channel::LeaveAborted(rx_);
    ++counts_.aborts_seen;
    return Finished(rx_.generation);
  }
  framed_ = true;
  if (!channel::RefreshData(in_, *view_.theirs)) return Say("the copy of the far tail is impossible");
  const channel::FrameScan scan = channel::ScanFrames(rx_, seen.data(), seen.size(), in_.pos, in_.seen_tail);
  if (scan.outcome == channel::FrameScan::Outcome::kBroken) return Say("no frame");
  tcp.Discard(scan.consumed);
  if (scan.outcome == channel::FrameScan::Outcome::kSwitch && rx_.mode == RxMode::kTcp) Finished(rx_.generation);
}

void SimPod::SleepToReceive() {
  if (ConsiderEnd()) return;
  channel::Arm(view_.mine->data_waiter, kPodObject);
  const bool ring = rx_.mode != RxMode::kTcp && view_.theirs->tail.load(std::memory_order_acquire) != in_.pos;
  const bool proposal = rx_.mode == RxMode::kTcp && channel::IsNewRemote(rx_, Load()) && Load().start == rx_.tcp_pos;
  if (ring || proposal || !view_.in_tcp->Peek().empty() ||
      (asked_ && (view_.theirs->eof_answer.load() != 0 || view_.theirs->path.load() == 0)))
    return;
  ++counts_.sleeps;
  receive_sleeps_ = true;
}

// FIN has arrived and the TCP queue has nothing more to give: where does the stream end? True: it has.
bool SimPod::ConsiderEnd() {
  const auto left = view_.in_tcp->Peek();
  const bool torn = rx_.mode == RxMode::kRing && !left.empty() && left[0] == static_cast<std::uint8_t>(rx_.marker + 1) &&
                    left.size() < channel::kSwitchFrameSize;
  if (!view_.in_tcp->FinArrived() || (!left.empty() && !torn)) return false;
  if (torn) view_.in_tcp->Discard(left.size());
  const auto answer = static_cast<EofAnswer>(view_.theirs->eof_answer.load(std::memory_order_acquire));
  if (asked_ && answer != EofAnswer::kNone) {
    if (answer == EofAnswer::kInRing) {
      const std::uint64_t position = view_.theirs->eof_position.load(std::memory_order_relaxed);
      // A replay that death cut short: the ring has the rest.
      if (in_.pos < position && TakeFromRing(position)) return true;
      if (in_.pos < position) Say("the ring ends before the answer");
    }
    end_ = answer == EofAnswer::kCut ? End::kReset : End::kClean;
    return true;
  }
  if (lease_over_ || view_.theirs->path.load(std::memory_order_acquire) == 0) {
    if (rx_.mode == RxMode::kRing && TakeFromRing(UINT64_MAX)) return true;
    end_ = End::kReset;
    return true;
  }
  if (!asked_) {
    asked_ = true;
    view_.mine->eof_question.store(1, std::memory_order_release);
    TouchedFor(view_.theirs->data_waiter);
  }
  return false;
}

}  // namespace vsocket::transport::testing
