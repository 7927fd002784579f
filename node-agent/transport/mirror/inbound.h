// The direction of a connection that comes from the far side: its ring is written by the far agent, the words that tell of it are stored
// here, and what the local reader has consumed is told to the far agent.
//
// Invariants: told <= head <= position <= told + capacity. `position` is what the pod's tail says; the far agent may break the last bound
// only by breaking the protocol, for it knows `told`.
//
// Thread safety: none.
#pragma once

#include <cstdint>

#include "channel/remote.h"
#include "node-agent/transport/mirror/context.h"

namespace vsocket::transport {

class Inbound {
 public:
  Inbound(const ConnectionSpec& spec, const ConnectionWords& words);

  // From the far agent. False: it breaks the protocol.
  [[nodiscard]] bool OnPropose(LinkContext& link, const Record& proposal);
  [[nodiscard]] bool OnImmediate(LinkContext& link, std::uint32_t immediate);
  [[nodiscard]] bool OnResize(LinkContext& link, const Record& record);
  [[nodiscard]] bool OnTellEnd(LinkContext& link, const Record& record);
  // The position cell that the far agent writes. While it polls, this side looks there.
  [[nodiscard]] bool LookAtCell(LinkContext& link, PositionCell& cell);

  // What has the pod read, or wished? Tells the far agent what it needs now; `lazily` too: anything it does not know.
  void Look(LinkContext& link, bool lazily);
  // After arming: has the pod changed anything that Look has not seen?
  [[nodiscard]] bool HasNews() const;
  // The pod's reader has something before it, or may read more by TCP: it will change its head, and is to ring.
  [[nodiscard]] bool ExpectsHead() const { return !on_ring_ || head_ != position_; }
  // The head has moved and the far agent has not been told.
  [[nodiscard]] bool OwesHead() const { return head_ != told_word_; }
  // The end has been asked for, and the answer is to come.
  [[nodiscard]] bool IsOwed() const { return asked_ != 0 && words_.far->eof_answer.load(std::memory_order_relaxed) == 0; }

  // A reader that is awake needs nobody to be woken for it.
  [[nodiscard]] bool IsQuiet() const { return quiet_; }
  [[nodiscard]] bool ShouldQuieten() const { return !quiet_ && awake_in_a_row_ >= kAwakeInARow; }
  void Quieten(LinkContext& link);
  void EndQuiet(LinkContext& link);
  void FillIn(PathReport* report) const;

 private:
  static constexpr std::uint32_t kAwakeInARow = 8;

  [[nodiscard]] bool Advance(LinkContext& link, std::uint64_t position);
  void LookAtHead();
  void Tell(LinkContext& link);
  [[nodiscard]] bool IsUrgent() const;
  [[nodiscard]] Record RecordOf(RecordType type) const;

  ConnectionSpec spec_;
  ConnectionWords words_;

  bool on_ring_ = false;  // a proposal is in place
  std::uint32_t generation_ = 0;
  std::uint32_t capacity_log2_ = channel::kRingMinLog2;
  std::uint64_t position_ = 0;
  std::uint64_t head_ = 0;  // the pod's word, as it was; in the ring's bounds when on_ring_ and the reader has entered
  std::uint64_t told_ = 0;  // of the ring: told <= position
  std::uint64_t told_word_ = 0;
  std::uint32_t told_finished_ = 0, told_wants_tcp_ = 0, told_attached_ = 0;
  std::uint32_t finished_ = 0, wants_tcp_ = 0, attached_ = 0;
  std::uint32_t asked_ = 0;

  bool quiet_ = false;
  std::uint32_t awake_in_a_row_ = 0;
};

}  // namespace vsocket::transport
