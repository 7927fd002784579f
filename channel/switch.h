// The switch protocol: how one direction of a live TCP connection moves to its ring and back, at a byte boundary.
//
// Pure state machines: no socket, no memory of anybody else's; tests and the shim drive the same code. DESIGN: the sender decides.
//
//   up      the sender stores a Proposal {start, marker, generation} where the receiver looks after every kernel receive. Bytes of the
//           TCP stream below `start` are payload; from `start` on TCP carries frames only, and payload goes through the ring.
//   frames  BELL: one byte, the marker. SWITCH: one byte, marker + 1, then generation and resume_at, little endian.
//   down    the sender sends SWITCH: the stream goes on by TCP at position resume_at, the oldest byte it does not know to be consumed;
//           it replays the ring from there. A receiver that still has the ring reads it to its tail and skips that much of the TCP
//           stream, so it never waits for a replay that a busy sender has not finished.
//           Before the receiver has entered the ring, and no frame was sent, the sender leaves without SWITCH: the gate says so to a
//           receiver that comes to `start`, for which it is as if SWITCH had said resume_at = start.
//   again   generation g + 1 may be proposed once the receiver has published that it is done with g.
//
// The owner of a state machine changes it under a lock; what others guess from without it is Relaxed.
//
// A direction is in one generation at a time. Everything in a frame or proposal comes from the peer and is bounded here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/relaxed.h"

namespace vsocket::channel {

inline constexpr std::size_t kSwitchFrameSize = 1 + 4 + 8;

struct Proposal {
  std::uint32_t generation = 0;  // 0: none
  std::uint8_t marker = 0;
  std::uint64_t start = 0;
};

// Generations count up from 1; 0 means "none".
constexpr std::uint32_t NextGeneration(std::uint32_t generation) {
  return generation == UINT32_MAX ? 1 : generation + 1;
}

// The sending end of one direction.
struct SwitchSender {
  enum class Mode : std::uint8_t {
    kTcp,      // payload by TCP
    kRing,     // payload by the ring, frames by TCP
    kLeaving,  // SWITCH, and perhaps a replay, is on its way into the TCP socket; then kTcp
  };
  Relaxed<Mode> mode = Mode::kTcp;
  std::uint8_t marker = 0;
  std::uint8_t frame_sent = 0;  // of `frame`, in kLeaving
  std::uint8_t frame[kSwitchFrameSize] = {};
  std::uint32_t generation = 0;   // the last one proposed
  std::uint64_t replay_from = 0;  // kLeaving: next byte of the ring to send by TCP
  std::uint64_t replay_end = 0;
};

// Whether a next generation may be proposed: the receiver has finished the last one. `finished` is the peer's word.
[[nodiscard]] inline bool MayGoUp(const SwitchSender& s, std::uint32_t finished) {
  return s.mode == SwitchSender::Mode::kTcp && finished == s.generation;
}

// The proposal for going up at stream position `start`. `next_byte` is the payload byte that would follow by TCP: the marker and the
// SWITCH byte differ from it, so a receiver that cannot know whether the proposal held can tell by one byte.
[[nodiscard]] Proposal GoUp(SwitchSender& s, std::uint64_t start, std::uint8_t next_byte);

// Starts to leave the ring. Bytes [resume_at, end) of the ring are to follow the frame by TCP; resume_at == end: no replay.
void GoDown(SwitchSender& s, std::uint64_t resume_at, std::uint64_t end);

// As GoDown for a receiver that reads TCP already: no frame, the replay only.
void GoDownSilently(SwitchSender& s, std::uint64_t resume_at, std::uint64_t end);

// In kLeaving: the rest of the frame that is still to be sent. 0: only the replay is left.
[[nodiscard]] std::size_t PendingFrame(const SwitchSender& s, const std::uint8_t** bytes);

// In kLeaving: `size` bytes of the frame, or of the replay when the frame is out, were accepted by TCP. Ends in kTcp.
void SentWhileLeaving(SwitchSender& s, std::size_t size);

// The receiving end of one direction.
struct SwitchReceiver {
  enum class Mode : std::uint8_t {
    kTcp,       // payload by TCP
    kRing,      // payload by the ring; TCP carries frames
    kDraining,  // SWITCH seen: ring bytes below drain_until, then kTcp
  };
  Relaxed<Mode> mode = Mode::kTcp;
  std::uint8_t marker = 0;
  Relaxed<std::uint32_t> generation = 0;  // the last one entered
  std::uint64_t tcp_pos = 0;              // stream position of the next payload byte in the TCP receive queue (kTcp, kDraining)
  std::uint64_t drain_until = 0;          // kDraining: the ring's last tail
};

// Considers the peer's proposal, loaded after a kernel receive (or peek) of payload that reaches up to stream position `seen_to`.
// In kTcp: how many bytes from tcp_pos on are payload at most; the rest of what was seen are frames. SIZE_MAX: no bound.
[[nodiscard]] std::uint64_t PayloadBound(const SwitchReceiver& r, const Proposal& proposal);

// Is the proposal new? And is all payload before its start taken from TCP?
[[nodiscard]] bool IsNew(const SwitchReceiver& r, const Proposal& proposal);
[[nodiscard]] bool MayEnterRing(const SwitchReceiver& r, const Proposal& proposal);

// Enters the ring if it may. True when it did.
[[nodiscard]] bool EnterRing(SwitchReceiver& r, const Proposal& proposal);

// It may enter, but the sender has left: reads the ring up to `ring_tail`, and TCP from the proposal's start on, as after a SWITCH. Or, the
// whole replay being on its way, TCP only.
void EnterLeftRing(SwitchReceiver& r, const Proposal& proposal, std::uint64_t ring_tail);
void PassLeftRing(SwitchReceiver& r, const Proposal& proposal);

struct FrameScan {
  enum class Outcome : std::uint8_t {
    kMore,    // everything seen are complete bells; nothing else yet (also: a SWITCH not complete yet)
    kSwitch,  // a SWITCH ends the frames; `r` is in kDraining or kTcp now
    kBroken,  // not a frame: the peer breaks the protocol
  };
  Outcome outcome = Outcome::kMore;
  std::size_t consumed = 0;  // bytes to take off the TCP queue
  std::size_t bells = 0;
};

// In kRing: reads frames from the bytes at the front of the TCP queue. `ring_pos` is the receiver's position in the ring, `ring_tail` the
// published tail it has bounded.
[[nodiscard]] FrameScan ScanFrames(SwitchReceiver& r, const std::uint8_t* bytes, std::size_t size, std::uint64_t ring_pos,
                                   std::uint64_t ring_tail);

// In kDraining, when the ring has been read to its end: goes back to TCP, where bytes below `ring_pos` are to be skipped. Returns whether
// it did.
[[nodiscard]] bool FinishDraining(SwitchReceiver& r, std::uint64_t ring_pos);

// In kDraining: gives up the rest of the ring and takes it from the replay instead (the reader is about to lose the ring).
void AbandonRing(SwitchReceiver& r);

}  // namespace vsocket::channel
