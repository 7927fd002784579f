// One end of a mirrored connection that lives on its rings from the first byte, for test traffic between real devices: it proposes at
// position 0, never comes down, and checks every byte that it receives.
//
// Thread safety: none; one thread uses all ends of a process.
#pragma once

#include <cstdint>
#include <functional>

#include "channel/remote.h"
#include "channel/ring.h"
#include "channel/wake.h"

namespace vsocket::transport::testing {

class RingEnd {
 public:
  RingEnd(channel::SlotHeader* slot, std::byte* rings, std::uint32_t side, std::uint64_t number, std::function<void()> ring_agent);

  // Goes up as soon as the far end is there.
  void ConsiderGoingUp();
  // As many of `want` bytes as there is room for.
  std::uint64_t Send(std::uint64_t want);
  // What is there, at most `most`. Clears `right` when a byte is wrong.
  std::uint64_t Receive(std::uint64_t most);
  // Arms both words with `target`. False: something is there after all. `wants_room`: sending waits for room.
  bool Arm(std::uint32_t target, bool wants_room);
  void Disarm();

  [[nodiscard]] bool PathLost() const { return up_ && path_ != far_->path.load(std::memory_order_acquire); }
  [[nodiscard]] std::uint64_t Sent() const { return out_.pos; }
  [[nodiscard]] std::uint64_t Received() const { return in_.pos; }
  [[nodiscard]] bool Right() const { return right_; }

 private:
  bool Refresh();
  void Touched(std::atomic<std::uint32_t>& waiter);
  [[nodiscard]] const std::uint8_t* Pattern(bool sent, std::uint64_t position) const;

  channel::SideWords* mine_;
  channel::SideWords* far_;
  std::byte* out_ring_;
  std::byte* in_ring_;
  std::function<void()> ring_agent_;
  std::uint64_t shift_[2] = {};  // where in the pattern the received stream begins, and the sent one
  channel::ProducerState out_;
  channel::ConsumerState in_;
  channel::SwitchReceiver rx_;
  std::uint32_t path_ = 0;
  bool up_ = false;
  bool right_ = true;
};

}  // namespace vsocket::transport::testing
