// The gate: who may use a direction's ring, and how a receiver leaves it for good. One word of the receiver's SideWords, that both sides
// change by compare-and-swap only.
//
//   kOpen        nobody is on the ring                      sender: Take -> kTaken
//   kTaken       the sender is up, or about to be           sender: Leave -> kRetreating, or kSwitching; receiver: Enter -> kEntered,
//                                                           Shut -> kShutEarly
//   kEntered     ... and the receiver reads the ring        sender: Leave, Announce -> kSwitching; receiver: Shut -> kShut
//   kSwitching   its SWITCH and replay are on the way       sender: EndLeave -> kOpen, Cut -> kCut; receiver: Shut -> kShut
//                ... or announced                           sender: Withdraw -> kEntered
//   kCut         a FIN has cut the replay off: it is in the ring only
//   kRetreating  its replay is on the way, without SWITCH   sender: EndLeave -> kRetreated; receiver: Shut -> kShutBehind
//   kRetreated   ... and out                                sender: Take -> kTaken; receiver: Shut -> kShut
//   kShut        the receiver must have TCP                 sender: Leave (SWITCH), Answer, EndLeave -> kAnswered; receiver: Go -> kGone
//   kShutEarly   ... and has not entered the ring           sender: Leave -> kAnsweredEarly (no SWITCH), or kAnswered (SWITCH);
//                                                           receiver: Go -> kGone, Enter -> kShut
//   kShutBehind  ... nor could it, before the sender left   sender: Answer, EndLeave -> kAnsweredEarly
//   kGone        the receiver has left, nothing unread      sender: Leave -> kResumed (no SWITCH); receiver: ComeBack -> kShut, kShutEarly
//   kAnswered, kAnsweredEarly, kResumed: the sender has seen it; for good
//
// A receiver in kSwitching still has the ring, where it finds what a FIN or death cut off. One that shuts the gate then gives the ring up,
// so it waits until the whole replay is in its queue, or the sender has answered: from then on the end of a cut replay is a reset.
//
// A receiver that has not entered may have unread payload by TCP before the proposal's start. Whoever has the connection next could not
// take a SWITCH from behind that. So none is sent (unless a bell stands there already): what is in the ring follows that payload by TCP.
// A receiver that comes to the proposal's start in kRetreating has the ring as in kSwitching; and in kShutBehind, to give it up.
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
  kEntered = 10,
  kRetreating = 11,
  kRetreated = 12,
  kShutBehind = 13,
};

// The word: generation << 4 | kind. The generation is the sender's, while it is on the ring or leaves it; else 0.
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
  const GateKind kind = KindOf(word);
  const bool held = kind == GateKind::kTaken || kind == GateKind::kEntered || kind == GateKind::kSwitching || kind == GateKind::kRetreating;
  return held ? word >> 4 : 0;
}
// The sender is up, and nobody wants it to leave.
constexpr bool IsUp(std::uint32_t word) {
  return KindOf(word) == GateKind::kTaken || KindOf(word) == GateKind::kEntered;
}

using Gate = std::atomic<std::uint32_t>;

// The sender has left the ring, whether or not its SWITCH has arrived: it wants no room there any more.
[[nodiscard]] inline bool SenderHasLeft(const Gate& gate) {
  const std::uint32_t word = gate.load(std::memory_order_seq_cst);
  const GateKind kind = KindOf(word);
  return !IsUp(word) && kind != GateKind::kShut && kind != GateKind::kShutEarly && kind != GateKind::kGone;
}

[[nodiscard]] inline bool Change(Gate& gate, std::uint32_t from, std::uint32_t to) {
  return gate.compare_exchange_strong(from, to, std::memory_order_seq_cst);
}

// Sender. False: the receiver does not want it.
[[nodiscard]] inline bool Take(Gate& gate, std::uint32_t generation) {
  const std::uint32_t word = gate.load(std::memory_order_seq_cst);
  if (KindOf(word) != GateKind::kOpen && KindOf(word) != GateKind::kRetreated) return false;
  return Change(gate, word, GateWord(GateKind::kTaken, generation));
}

// Sender: does the receiver wait for it to leave the ring, or has it left itself?
[[nodiscard]] inline bool MustLeave(const Gate& gate) {
  const GateKind kind = KindOf(gate.load(std::memory_order_seq_cst));
  return kind == GateKind::kShut || kind == GateKind::kShutEarly || kind == GateKind::kGone;
}

// Sender, about to leave the ring. True: a SWITCH must say so. False: the receiver reads TCP, from its head on, or from the proposal's
// start on. `framed`: a frame of this generation has been sent, or nothing unread would stand before it.
[[nodiscard]] inline bool Leave(Gate& gate, std::uint32_t generation, bool framed) {
  for (int attempt = 0; attempt < 64; ++attempt) {  // an honest receiver changes it at most a few times
    const std::uint32_t word = gate.load(std::memory_order_seq_cst);
    switch (KindOf(word)) {
      case GateKind::kTaken:
        if (Change(gate, word, GateWord(framed ? GateKind::kSwitching : GateKind::kRetreating, generation))) return framed;
        break;
      case GateKind::kEntered:
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
// then looks whether now is the time. False: the receiver has not entered, or wants it to leave anyway.
[[nodiscard]] inline bool Announce(Gate& gate, std::uint32_t generation) {
  return Change(gate, GateWord(GateKind::kEntered, generation), GateWord(GateKind::kSwitching, generation));
}

// Sender, that has announced it: stays after all. False: the receiver counts on it.
[[nodiscard]] inline bool Withdraw(Gate& gate, std::uint32_t generation) {
  return Change(gate, GateWord(GateKind::kSwitching, generation), GateWord(GateKind::kEntered, generation));
}

// Sender on the way out, that has made sure that nothing but a reset can cut its replay off.
inline void Answer(Gate& gate) {
  if (Change(gate, GateWord(GateKind::kShut), GateWord(GateKind::kAnswered))) return;
  (void)Change(gate, GateWord(GateKind::kShutBehind), GateWord(GateKind::kAnsweredEarly));
}

// Sender: SWITCH and replay are out.
inline void EndLeave(Gate& gate, std::uint32_t generation) {
  if (Change(gate, GateWord(GateKind::kSwitching, generation), GateWord(GateKind::kOpen))) return;
  if (Change(gate, GateWord(GateKind::kRetreating, generation), GateWord(GateKind::kRetreated, generation))) return;
  if (!Change(gate, GateWord(GateKind::kCut), GateWord(GateKind::kOpen))) Answer(gate);
}

// Sender on the way out, about to send a FIN before its replay is out. False: the receiver has shut the gate, and needs all of it.
[[nodiscard]] inline bool Cut(Gate& gate, std::uint32_t generation) {
  return gate.load(std::memory_order_seq_cst) == GateWord(GateKind::kRetreating, generation) ||
         Change(gate, GateWord(GateKind::kSwitching, generation), GateWord(GateKind::kCut));
}

// Sender on the way out: has the receiver shut the gate after that had begun?
[[nodiscard]] inline bool IsShutMeanwhile(const Gate& gate) {
  const GateKind kind = KindOf(gate.load(std::memory_order_relaxed));
  return kind == GateKind::kShut || kind == GateKind::kShutBehind;
}

// Receiver: from here on the sender cannot go up, and leaves at its next look. Returns what the gate said before.
inline std::uint32_t Shut(Gate& gate) {
  std::uint32_t word = gate.load(std::memory_order_seq_cst);
  for (;;) {
    GateKind to = GateKind::kShut;
    switch (KindOf(word)) {
      case GateKind::kTaken:
        to = GateKind::kShutEarly;
        break;
      case GateKind::kRetreating:
        to = GateKind::kShutBehind;
        break;
      case GateKind::kOpen:
      case GateKind::kEntered:
      case GateKind::kSwitching:
      case GateKind::kRetreated:
        break;
      default:
        return word;
    }
    if (gate.compare_exchange_weak(word, GateWord(to), std::memory_order_seq_cst)) return word;
  }
}

// Receiver, that has taken all payload before the proposal's start: what comes next?
enum class Entry : std::uint8_t {
  kRing,   // the ring, to its end
  kDrain,  // the ring up to its tail, and TCP after it, from the proposal's start on: as after a SWITCH
  kTcp,    // all that was in the ring, by TCP
};
[[nodiscard]] inline Entry Enter(Gate& gate) {
  for (int attempt = 0; attempt < 64; ++attempt) {  // an honest sender changes it at most a few times
    const std::uint32_t word = gate.load(std::memory_order_seq_cst);
    switch (KindOf(word)) {
      case GateKind::kTaken:
        if (Change(gate, word, GateWord(GateKind::kEntered, word >> 4))) return Entry::kRing;
        break;
      case GateKind::kShutEarly:
        if (Change(gate, word, GateWord(GateKind::kShut))) return Entry::kRing;
        break;
      case GateKind::kRetreating:
      case GateKind::kShutBehind:
        return Entry::kDrain;
      case GateKind::kRetreated:
      case GateKind::kAnsweredEarly:
      case GateKind::kGone:
      case GateKind::kResumed:
        return Entry::kTcp;
      default:
        return Entry::kRing;  // frames are next in the TCP queue
    }
  }
  return Entry::kRing;
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
  const std::uint32_t word = gate.load(std::memory_order_relaxed);
  const GateKind kind = KindOf(word);
  return HeldGeneration(word) == 0 && kind != GateKind::kOpen && kind != GateKind::kCut && kind != GateKind::kRetreated;
}

}  // namespace vsocket::channel
