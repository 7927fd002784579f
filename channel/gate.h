// The gate: who may use a direction's ring, and how a receiver leaves it for good. One word of the receiver's SideWords, that both sides
// change by compare-and-swap only.
//
//   kOpen       nobody is on the ring                       sender: Take -> kTaken
//   kTaken      the sender is up, or about to be            sender: Leave, Announce -> kSwitching; receiver: Shut -> kShut
//   kSwitching  its SWITCH and replay are on the way        sender: EndLeave -> kOpen, Cut -> kCut; receiver: Shut -> kShut
//               ... or announced                            sender: Withdraw -> kTaken
//   kCut        a FIN has cut the replay off: it is in the ring only
//   kShut       the receiver must have TCP                  sender: Leave (SWITCH), Answer, EndLeave -> kAnswered; receiver: Go -> kGone
//   kShutEarly  ... and has not entered the ring            sender: Leave -> kAnsweredEarly (no SWITCH), or kAnswered (SWITCH);
//                                                           receiver: Go -> kGone, Enter -> kShut
//   kGone       the receiver has left, with nothing unread  sender: Leave -> kResumed (no SWITCH); receiver: ComeBack -> kShut, kShutEarly
//   kAnswered, kAnsweredEarly, kResumed: the sender has seen it; for good
//
// A receiver in kSwitching still has the ring, where it finds what a FIN or death cut off. One that shuts the gate then gives the ring up,
// so it waits until the whole replay is in its queue, or the sender has answered: from then on the end of a cut replay is a reset.
//
// kShutEarly is for a receiver with unread payload by TCP before the proposal's start. It could not take a SWITCH from behind that, and
// needs none: it does not read the ring, and what is in it follows that payload by TCP. (Not if a frame stands there already.)
//
// Go is for a receiver whose sender's program does nothing: the ring is drained, so no SWITCH is needed if the sender can never publish
// unseen. The two meet as in wake.h: the receiver stores kGone, fences and looks at the tail again (and comes back if it has moved); the
// sender publishes, fences and looks at the gate. Either the receiver sees the bytes, or the sender sees kGone and sends them by TCP, from
// the receiver's head on.
#pragma once

#include <atomic>
#include <cstdint>

namespace vsocket::channel {

enum class GateKind : std::uint32_t {
  kOpen = 0,
  kShut = 1,
  kTaken = 2,
  kGone = 3,
  kSwitching = 4,
  kAnswered = 5,
  kCut = 6,
  kResumed = 7,
  kShutEarly = 8,
  kAnsweredEarly = 9,
};

// The word: generation << 4 | kind. The generation is the sender's, in kTaken and kSwitching; else 0.
constexpr std::uint32_t GateWord(GateKind kind, std::uint32_t generation = 0) {
  return generation << 4 | static_cast<std::uint32_t>(kind);
}
constexpr GateKind KindOf(std::uint32_t word) {
  return static_cast<GateKind>(word & 15);
}
constexpr std::uint32_t GenerationBits(std::uint32_t generation) {
  return generation << 4 >> 4;
}
// The sender is on the ring, or its SWITCH is still to come, in this generation (its low 28 bits); 0: neither.
constexpr std::uint32_t HeldGeneration(std::uint32_t word) {
  return KindOf(word) == GateKind::kTaken || KindOf(word) == GateKind::kSwitching ? word >> 4 : 0;
}

using Gate = std::atomic<std::uint32_t>;

// The sender has left the ring, whether or not its SWITCH has arrived: it wants no room there any more.
[[nodiscard]] inline bool SenderHasLeft(const Gate& gate) {
  const GateKind kind = KindOf(gate.load(std::memory_order_seq_cst));
  return kind != GateKind::kTaken && kind != GateKind::kShut && kind != GateKind::kShutEarly && kind != GateKind::kGone;
}

[[nodiscard]] inline bool Change(Gate& gate, std::uint32_t from, std::uint32_t to) {
  return gate.compare_exchange_strong(from, to, std::memory_order_seq_cst);
}

// Sender. False: the receiver does not want it.
[[nodiscard]] inline bool Take(Gate& gate, std::uint32_t generation) {
  return Change(gate, GateWord(GateKind::kOpen), GateWord(GateKind::kTaken, generation));
}

// Sender: does the receiver wait for it to leave the ring, or has it left itself?
[[nodiscard]] inline bool MustLeave(const Gate& gate) {
  const GateKind kind = KindOf(gate.load(std::memory_order_seq_cst));
  return kind == GateKind::kShut || kind == GateKind::kShutEarly || kind == GateKind::kGone;
}

// Sender, about to leave the ring. True: a SWITCH must say so. False: the receiver reads TCP already, from its head on, or from the
// proposal's start on. `framed`: a frame of this generation has been sent.
[[nodiscard]] inline bool Leave(Gate& gate, std::uint32_t generation, bool framed) {
  for (int attempt = 0; attempt < 64; ++attempt) {  // an honest receiver changes it at most a few times
    const std::uint32_t word = gate.load(std::memory_order_seq_cst);
    switch (KindOf(word)) {
      case GateKind::kTaken:
        if (Change(gate, word, GateWord(GateKind::kSwitching, generation))) return true;
        break;
      case GateKind::kShut:
        if (Change(gate, word, GateWord(GateKind::kAnswered))) return true;
        break;
      case GateKind::kShutEarly:
        if (Change(gate, word, GateWord(framed ? GateKind::kAnswered : GateKind::kAnsweredEarly))) return framed;
        break;
      case GateKind::kGone:
        if (Change(gate, word, GateWord(GateKind::kResumed))) return false;
        break;
      default:
        return true;
    }
  }
  return true;
}

// Sender, that would leave for reasons of its own: says so first, so that a receiver with payload for TCP takes the SWITCH before it, and
// then looks whether now is the time. False: the receiver wants it to leave anyway.
[[nodiscard]] inline bool Announce(Gate& gate, std::uint32_t generation) {
  return Change(gate, GateWord(GateKind::kTaken, generation), GateWord(GateKind::kSwitching, generation));
}

// Sender, that has announced it: stays after all. False: the receiver counts on it.
[[nodiscard]] inline bool Withdraw(Gate& gate, std::uint32_t generation) {
  return Change(gate, GateWord(GateKind::kSwitching, generation), GateWord(GateKind::kTaken, generation));
}

// Sender on the way out, that has made sure that nothing but a reset can cut its replay off.
inline void Answer(Gate& gate) {
  (void)Change(gate, GateWord(GateKind::kShut), GateWord(GateKind::kAnswered));
}

// Sender: SWITCH and replay are out.
inline void EndLeave(Gate& gate, std::uint32_t generation) {
  if (Change(gate, GateWord(GateKind::kSwitching, generation), GateWord(GateKind::kOpen))) return;
  if (!Change(gate, GateWord(GateKind::kCut), GateWord(GateKind::kOpen))) Answer(gate);
}

// Sender on the way out, about to send a FIN before its replay is out. False: the receiver has shut the gate, and needs all of it.
[[nodiscard]] inline bool Cut(Gate& gate, std::uint32_t generation) {
  return Change(gate, GateWord(GateKind::kSwitching, generation), GateWord(GateKind::kCut));
}

// Receiver: from here on the sender cannot go up, and leaves at its next look. Returns what the gate said before. `early`: the receiver has
// not entered the sender's ring; kShutEarly if the sender is on it.
inline std::uint32_t Shut(Gate& gate, bool early) {
  std::uint32_t word = gate.load(std::memory_order_seq_cst);
  while (KindOf(word) == GateKind::kOpen || KindOf(word) == GateKind::kTaken || KindOf(word) == GateKind::kSwitching) {
    const GateKind to = early && KindOf(word) == GateKind::kTaken ? GateKind::kShutEarly : GateKind::kShut;
    if (gate.compare_exchange_weak(word, GateWord(to), std::memory_order_seq_cst)) break;
  }
  return word;
}

// Receiver, that has taken all payload before the proposal's start. False: it must not enter the ring, for what is in it comes by TCP.
[[nodiscard]] inline bool Enter(Gate& gate) {
  if (Change(gate, GateWord(GateKind::kShutEarly), GateWord(GateKind::kShut))) return true;
  const GateKind kind = KindOf(gate.load(std::memory_order_seq_cst));
  return kind != GateKind::kAnsweredEarly && kind != GateKind::kGone && kind != GateKind::kResumed;
}

// Receiver: has the sender left for one that has not entered, so that all that it sends is payload?
[[nodiscard]] inline bool IsAnsweredEarly(const Gate& gate) {
  return KindOf(gate.load(std::memory_order_acquire)) == GateKind::kAnsweredEarly;
}

// Receiver, with nothing unread: leaves without the sender. False: the sender is answering. After it, look at the tail again.
[[nodiscard]] inline bool Go(Gate& gate) {
  return Change(gate, GateWord(GateKind::kShut), GateWord(GateKind::kGone)) ||
         Change(gate, GateWord(GateKind::kShutEarly), GateWord(GateKind::kGone));
}

// Receiver, that found bytes after Go: waits for the sender after all. False: the sender has seen kGone, and sends them by TCP.
[[nodiscard]] inline bool ComeBack(Gate& gate, bool early) {
  return Change(gate, GateWord(GateKind::kGone), GateWord(early ? GateKind::kShutEarly : GateKind::kShut));
}

// A receiver that has left for good does not say what it reads by TCP.
[[nodiscard]] inline bool HasLeft(const Gate& gate) {
  const GateKind kind = KindOf(gate.load(std::memory_order_relaxed));
  return kind != GateKind::kOpen && kind != GateKind::kTaken && kind != GateKind::kSwitching && kind != GateKind::kCut;
}

}  // namespace vsocket::channel
