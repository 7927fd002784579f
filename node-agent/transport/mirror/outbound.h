// The direction of a connection that the local pod sends: from its ring to the far one.
//
//   kTcp        nothing to do; the pod sends by TCP, or has left the ring
//   kProposing  the far agent has been asked to place the proposal
//   kMirroring  it has, and the pod's sender knows: what the pod's tail says is written to the far ring, as far as the far reader's head
//               leaves room
//
// Invariants: start <= head <= sent <= tail <= head + capacity. No request of an earlier generation is under way when a proposal is made,
// nor one by the other lane when a lane is chosen: between two queue pairs there is no order.
//
// Thread safety: none.
#pragma once

#include <cstdint>

#include "channel/remote.h"
#include "node-agent/transport/mirror/context.h"

namespace vsocket::transport {

class Outbound {
 public:
  Outbound(const ConnectionSpec& spec, const ConnectionWords& words, const SlotRings& rings);

  // What has the pod written? False: impossible values.
  [[nodiscard]] bool Look(LinkContext& link);
  // Is there something to post now, as far as this connection alone decides?
  [[nodiscard]] bool IsReady(const LinkContext& link) const;
  [[nodiscard]] Lane ChosenLane() const { return lane_; }
  enum class Posted : std::uint8_t { kNothing, kSomething, kLaneIsFull };
  // At most a quantum of it, if the lane has room.
  Posted Post(LinkContext& link);

  // From the far agent. False: it breaks the protocol.
  void OnCommit(LinkContext& link, std::uint32_t generation);
  void OnState(LinkContext& link, const Record& state);
  void OnResized(std::uint32_t capacity_log2, std::uint32_t generation);
  void OnQuiet() { notify_ = false; }
  void OnNotify();
  void OnAskEnd() { end_asked_ = true; }
  void OnSent(std::uint32_t bytes) { in_flight_ -= bytes; }

  // All requests posted so far are done; asks for a completion if none is under way that would tell.
  bool IsSettled(LinkContext& link);
  // After arming: has the pod written anything that Look has not seen?
  [[nodiscard]] bool HasNews() const;
  [[nodiscard]] bool WaitsForDone() const { return waits_for_done_; }
  void FillIn(PathReport* report) const;
  // Something is to come from the far side: an answer, or word of a reader.
  [[nodiscard]] bool IsOwed() const { return mode_ == Mode::kProposing || (mode_ == Mode::kMirroring && tail_ != head_); }

 private:
  enum class Mode : std::uint8_t { kTcp, kProposing, kMirroring };

  bool ConsiderProposal(LinkContext& link, std::uint32_t generation);
  bool ConsiderTail(LinkContext& link);
  void ChooseLane(LinkContext& link);
  void ConsiderEnd(LinkContext& link);
  void TellEnd(LinkContext& link, channel::EofAnswer answer, std::uint64_t position);
  void AddPayload(LinkContext& link, LaneQueue& queue, std::uint32_t bytes);
  void AddCell(LinkContext& link, LaneQueue& queue);
  void AddImmediate(LaneQueue& queue);
  [[nodiscard]] Record RecordOf(RecordType type) const;
  [[nodiscard]] std::uint64_t Unsent() const { return tail_ - sent_; }

  ConnectionSpec spec_;
  ConnectionWords words_;
  SlotRings rings_;

  Mode mode_ = Mode::kTcp;
  std::uint32_t generation_ = 0;  // the last proposal that was considered
  std::uint64_t head_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t tail_ = 0;
  std::uint32_t capacity_log2_ = channel::kRingMinLog2;
  std::uint32_t resizing_to_ = 0;  // not 0: the far agent has been told of this capacity, and not answered

  Lane lane_ = Lane::kSmall;
  bool lane_wanted_ = false;  // the other lane, as soon as this one's requests are done
  std::uint32_t small_turns_ = 0;
  std::uint64_t last_sequence_ = 0;  // of lane_
  std::uint32_t in_flight_ = 0;      // bytes posted and not known to be done

  bool notify_ = true;           // the far agent wants to be woken
  bool cells_only_ = false;      // something was posted that woke nobody
  bool owes_immediate_ = false;  // ... and the far agent goes to sleep
  bool end_asked_ = false;
  bool waits_for_done_ = false;  // a completion is what comes next
};

}  // namespace vsocket::transport
