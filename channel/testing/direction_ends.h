// The two honest ends of one direction without sockets, for tests: they use ring.h, switch.h and wake.h in the order in which the shim's
// stream_send.cc and stream_receive.cc use them, over a TcpQueue. An end keeps its truth in private members and believes no word.
//
// Between two touches of what the other end can change an end calls `interleave`, so that a test can let anything happen there.
// Thread safety: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "channel/ring.h"
#include "channel/switch.h"
#include "channel/testing/tcp_queue.h"
#include "channel/wake.h"

namespace vsocket::channel::testing {

// The words and memory of one direction, as one end sees them. `ring` holds kRingMax bytes.
struct DirectionView {
  SideWords* mine;
  SideWords* theirs;
  std::byte* ring;
  TcpQueue* tcp;
};

class SenderEnd {
 public:
  // Both ends have moved `position` bytes before the slot was theirs.
  SenderEnd(const DirectionView& view, std::uint64_t position);

  // As many bytes as TCP or the ring takes now; rings an armed receiver. Nothing: the peer broke the ring, and nothing else may be called.
  [[nodiscard]] std::optional<std::size_t> Send(std::span<const std::uint8_t> bytes);

  // Proposes the ring for the byte to come, when the receiver has finished with the last generation. False: not now.
  bool GoUp(std::uint8_t next_byte);

  // Leaves the ring: SWITCH, and the replay, as far as TCP takes them now. False: the peer broke the ring.
  [[nodiscard]] bool GoDown();

  // Goes on with what GoDown began.
  void Flush();

  // One BELL frame, when on the ring.
  void Bell();

  // Another capacity for the ring, if it is drained. False: the peer broke the ring.
  [[nodiscard]] bool TryResize(std::uint32_t capacity_log2);

  // For a test that begins near the last generation there is; before the first GoUp.
  void StartGenerationsAfter(std::uint32_t generation) { tx_.generation = generation; }

  [[nodiscard]] const ProducerState& Ring() const { return out_; }
  [[nodiscard]] const SwitchSender& Switch() const { return tx_; }
  [[nodiscard]] std::uint32_t LastWaiter() const { return last_waiter_; }  // what TakeWaiter gave last

  std::function<void()> interleave = [] {};

 private:
  DirectionView view_;
  ProducerState out_;
  SwitchSender tx_;
  std::uint32_t last_waiter_ = kNobody;
};

class ReceiverEnd {
 public:
  ReceiverEnd(const DirectionView& view, std::uint64_t position);

  enum class Outcome : std::uint8_t {
    kBytes,    // `size` of them, at least one
    kNothing,  // would block; the waiter's word is armed
    kEnd,      // FIN, and all before it has been read
    kBroken,   // the peer broke the protocol, and nothing else may be called
  };
  struct Received {
    Outcome outcome;
    std::size_t size = 0;
  };

  // Bytes from wherever they are. `frame_batch`: how much of the TCP queue one look for frames sees, at least kSwitchFrameSize.
  // With `peek` they stay.
  [[nodiscard]] Received Receive(std::span<std::uint8_t> into, std::size_t frame_batch, bool peek = false);

  // In kRing: takes the frames that TCP holds, though the ring may not be empty (a readiness call does so). False: the peer broke the
  // protocol.
  [[nodiscard]] bool TakeFrames(std::size_t frame_batch);

  // In kDraining: takes the rest from the replay. The caller knows that all of the replay will come.
  void Abandon();

  void StartGenerationsAfter(std::uint32_t generation);

  [[nodiscard]] const ConsumerState& Ring() const { return in_; }
  [[nodiscard]] const SwitchReceiver& Switch() const { return rx_; }
  [[nodiscard]] std::uint64_t Bells() const { return bells_; }
  [[nodiscard]] std::uint64_t Skipped() const { return skipped_; }  // bytes of replays that had been read from the ring

  std::function<void()> interleave = [] {};

 private:
  [[nodiscard]] Proposal LoadProposal();
  [[nodiscard]] bool ConsiderProposal();
  void ConsiderDrained();
  [[nodiscard]] Received ReceiveByTcp(std::span<std::uint8_t> into, bool peek);
  [[nodiscard]] Received ReceiveByRing(std::span<std::uint8_t> into, bool peek);
  DirectionView view_;
  ConsumerState in_;
  SwitchReceiver rx_;
  bool fin_seen_ = false;
  std::uint64_t bells_ = 0;
  std::uint64_t skipped_ = 0;
};

}  // namespace vsocket::channel::testing
