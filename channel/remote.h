// A connection whose ends are on two nodes: what the switch protocol (switch.h) needs beside the words of one node.
//
// Each node has a slot of its own. In it the far side's half of the words is a copy that the node's agent keeps, and the agent rings and is
// rung like a side: it arms `data_waiter` and `space_waiter` of that half. Whoever changes a word that the far side must learn of (tail,
// proposal, attached, finished_generation, wants_tcp, eof_question) looks at the far half's data_waiter after it, and after `head` at its
// space_waiter.
//
//   propose   the sender stores the proposal, kProposed, and may put bytes into its ring at once. Nobody reads them yet.
//   commit    the peer's agent has put the proposal where the receiver looks, and said so: the sender's agent changes kProposed to
//             kCommitted. From then on the ring is mirrored, and frames may be sent.
//   abort     before that, the sender changes kProposed to kAborting, sends the ring's bytes by TCP as payload, and stores kIdle.
//             The receiver may have the proposal or not: where a frame would have to be it finds a byte that begins none.
//   down      as on one node, with a SWITCH; resume_at is the far head as its copy says it. kIdle when the replay is out.
//   end       the receiver that has seen the FIN asks; the sender's agent answers once it can vouch for the answer.
//   path      a proposal belongs to the path that was there when it was made. When that has gone the sender aborts, or comes down.
#pragma once

#include <atomic>
#include <cstdint>

#include "channel/layout.h"
#include "channel/switch.h"

namespace vsocket::channel {

// A ring that is mirrored is registered with a device, which pins its pages: it grows to 64 KiB and no further.
inline constexpr std::uint32_t kRemoteRingMaxLog2 = 16;
inline constexpr std::uint64_t kRemoteRingMax = 1ULL << kRemoteRingMaxLog2;
static_assert(kRemoteRingMaxLog2 >= kRingMinLog2 && kRemoteRingMaxLog2 <= kRingMaxLog2);

enum class Commit : std::uint32_t {
  kIdle = 0,       // the sender is on TCP, and everything it was told is sent is in its TCP socket
  kProposed = 1,   // it waits for the peer's agent
  kCommitted = 2,  // it is on the ring, or its SWITCH and replay are not out yet
  kAborting = 3,   // the ring's bytes are not all in its TCP socket yet
};

// generation << 2 | state; the generation's low 30 bits.
constexpr std::uint32_t CommitWord(Commit state, std::uint32_t generation) {
  return generation << 2 | static_cast<std::uint32_t>(state);
}
constexpr Commit StateOf(std::uint32_t commit_word) {
  return static_cast<Commit>(commit_word & 3);
}

// The sender's agent, or the sender: only one of the two wins. False: the other has.
[[nodiscard]] inline bool Settle(std::atomic<std::uint32_t>& commit, std::uint32_t generation, Commit outcome) {
  std::uint32_t from = CommitWord(Commit::kProposed, generation);
  // acq_rel: the sender that sees kCommitted also sees what the agent stored before it; the agent that loses sees the abort.
  return commit.compare_exchange_strong(from, CommitWord(outcome, generation), std::memory_order_acq_rel);
}

enum class EofAnswer : std::uint32_t {
  kNone = 0,
  kByTcp = 1,   // all of the stream has gone by TCP
  kInRing = 2,  // the ring holds it up to eof_position, and all of that is here
  kCut = 3,     // the sender died before everything it had accepted was on its way
};

// Receiver: is the proposal one that it has not entered? Some may never have reached it (they were aborted), so generations may be left
// out. The order is that of serial numbers: less than half the range apart.
[[nodiscard]] inline bool IsNewRemote(const SwitchReceiver& r, const Proposal& proposal) {
  return proposal.generation != 0 && static_cast<std::int32_t>(proposal.generation - r.generation) > 0 && proposal.start >= r.tcp_pos;
}

// Receiver: enters the ring when all payload before the proposal's start has been taken. False: not now.
[[nodiscard]] inline bool EnterRemoteRing(SwitchReceiver& r, const Proposal& proposal) {
  if (r.mode != SwitchReceiver::Mode::kTcp || !IsNewRemote(r, proposal) || proposal.start != r.tcp_pos) return false;
  r.mode = SwitchReceiver::Mode::kRing;
  r.generation = proposal.generation;
  r.marker = proposal.marker;
  return true;
}

// Receiver, in kRing, nothing taken from it and no frame seen: does this byte say that the proposal was aborted? It is payload then.
[[nodiscard]] constexpr bool SaysAborted(const SwitchReceiver& r, std::uint8_t byte) {
  return byte != r.marker && byte != static_cast<std::uint8_t>(r.marker + 1);
}

// Receiver: back to TCP after an abort, at the position where it entered.
inline void LeaveAborted(SwitchReceiver& r) {
  r.mode = SwitchReceiver::Mode::kTcp;
}

}  // namespace vsocket::channel
