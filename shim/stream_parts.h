// What the halves of the stream share; for stream_*.cc only.
#pragma once

#include "channel/gate.h"
#include "channel/wake.h"
#include "shim/stream.h"

namespace vsocket::shim {

using RxMode = channel::SwitchReceiver::Mode;
using TxMode = channel::SwitchSender::Mode;

// The connection cannot go on (the peer broke the protocol, or the channel was revoked): the kernel socket is reset, and the program sees
// ECONNRESET once, then EOF and EPIPE.
void Kill(Sock* sock, int fd, const char* why);

// Stands before the locks of an attempt: when the attempt is over and the connection was killed, whoever did it, this process lets go of
// its memory. The descriptor may stay open for long, and revoked memory that is still mapped is held against the program.
class LetGoAtEnd {
 public:
  LetGoAtEnd(SockRef ref, int fd) : ref_(ref), fd_(fd) {}
  ~LetGoAtEnd() {
    if (ref_.sock->dead.load(std::memory_order_relaxed) != 0) LetGoIfKilled();
  }
  LetGoAtEnd(const LetGoAtEnd&) = delete;
  LetGoAtEnd& operator=(const LetGoAtEnd&) = delete;

 private:
  void LetGoIfKilled() const;
  SockRef ref_;
  int fd_;
};

[[nodiscard]] inline std::size_t TotalSize(const struct iovec* parts, int count) {
  std::size_t total = 0;
  for (int i = 0; i < count; ++i) total += parts[i].iov_len;
  return total;
}

// How far a side has sent, by whichever way it last did.
[[nodiscard]] inline std::uint64_t PublishedPosition(const channel::SideWords& words) {
  const std::uint64_t by_ring = words.tail.load(std::memory_order_acquire);
  const std::uint64_t by_tcp = words.tcp_sent.load(std::memory_order_acquire);
  return by_ring > by_tcp ? by_ring : by_tcp;
}

// True when the agent has revoked the channel.
[[nodiscard]] inline bool IsRevoked(const Sock* sock, const Channel& ch) {
  return ch.slot->revoked.load(std::memory_order_relaxed) == sock->epoch || ch.region->revoked.load(std::memory_order_relaxed) != 0;
}

// True while the agent lives, or has not been gone for long.
[[nodiscard]] bool LeaseHolds(const Channel& ch);

// rx_lock. Reads frames off the TCP queue in kRing, or notices FIN and errors. Looks at the tail after the FIN, so that what was sent
// before it is found.
void TakeFrames(Sock* sock, int fd, const Channel& ch);

// Both locks, before the last descriptor is closed. What is unread of ours the kernel would count as unread payload, and reset: takes all
// frames, and a replay of what was read already, also those on their way, and lets no more be sent. The connection can only be closed then.
void RefuseFrames(Sock* sock, int fd, const Channel& ch);

// rx_lock. In kTcp: enters the ring when the peer has proposed and all payload before its start is taken, and takes the frames that are
// there already. True when it did.
bool ConsiderProposal(Sock* sock, int fd, const Channel& ch);
channel::Proposal LoadProposal(const Channel& ch);

// rx_lock, kTcp. Is there payload (or the end) in the TCP queue, when the kernel says the socket is readable? Skips what was read from the
// ring already.
[[nodiscard]] bool PayloadByTcp(Sock* sock, int fd, const Channel& ch);

// rx_lock. In kDraining: back to TCP once the ring is read; tells the peer.
void ConsiderDrained(Sock* sock, const Channel& ch);

// tx_lock. Goes up if everything allows it. `next_byte`: the payload byte to come, or anything.
bool ConsiderGoingUp(Sock* sock, const Channel& ch, std::uint8_t next_byte);

// tx_lock. As ConsiderGoingUp, for connections that will not stay there.
bool GoUpNow(Sock* sock, const Channel& ch, std::uint8_t next_byte);

// The kernel has ended the connection with `error` (errno; 0: a FIN). Whether the program is to see it is judged at the end of the stream,
// or when it asks (EndError).
void NoteKernelEnd(Sock* sock, int error);

// rx_lock. Frames of the peer that were sent, or are about to be, and not taken off the queue.
[[nodiscard]] inline std::uint32_t MissingBells(const Sock* sock, const Channel& ch) {
  return ch.theirs->bells.load(std::memory_order_seq_cst) - sock->bells_seen;
}

// rx_lock. An RST makes the peer's kernel drop what it has not sent. Is all that the peer ever sent here, read or still to be read? And all
// that it is about to send?
[[nodiscard]] bool AllSentIsHere(const Sock* sock, int fd, const Channel& ch);
[[nodiscard]] bool AllOfferedIsHere(const Sock* sock, int fd, const Channel& ch);

// rx_lock. Judges a noted error: ECONNRESET and EPIPE that only our own frames have caused, at a peer that had read all there was and of
// which nothing is lost, are a FIN to the program. The errno it is to see; 0: none.
[[nodiscard]] int EndError(const Sock* sock, int fd, const Channel& ch, int error);

// tx_lock. Leaves the ring: SWITCH, then the replay, as far as TCP takes them now. 0, -EAGAIN (call Flush again) or an error.
int StartLeaving(Sock* sock, int fd, const Channel& ch);
int Flush(Sock* sock, int fd, const Channel& ch);

// tx_lock, kRing. StartLeaving for reasons of our own: not while the peer's payload is on its way by TCP. Should the peer die meanwhile,
// our SWITCH would make its kernel drop what it has not delivered. False: not now.
bool LeaveIfAllIsHere(Sock* sock, int fd, const Channel& ch);

// tx_lock, kRing. The ring is full and could be bigger, but not while there is something in it: by TCP until it is empty, which also takes
// as much unread as programs are used to that send before anybody receives. False: it is as big as it gets.
bool OutgrowRing(Sock* sock, int fd, const Channel& ch);

// tx_lock. While a replay is under way to a receiver that has left its ring, what TCP has not taken is nowhere else: should this process
// die, the stream must end with a reset, not with a FIN that says it is whole. Begins before the SWITCH, ends with the replay.
void GuardReplay(Sock* sock, int fd);
void EndGuard(Sock* sock, int fd);

// The program ends its stream: a replay to a receiver that has left its ring is finished first, as long as the peer takes it (10 s at
// most). Any other may be cut off: the gate says so.
void FinishReplay(SockRef ref, int fd);

// tx_lock. One BELL frame, if this direction is framed. 0 or the kernel's error.
enum class BellFor : std::uint8_t { kData, kRoom };
int Bell(Sock* sock, int fd, const Channel& ch, BellFor what);

// Rings whoever TakeWaiter named. tx_lock held / not held.
void RingLocked(Sock* sock, int fd, const Channel& ch, std::uint32_t target, BellFor what);
void RingForRoom(SockRef ref, int fd, std::uint32_t target);

// Once in about a millisecond of busy use: the kernel's side of the connection, the lease, the peer's gate, test flaps. tx_lock.
void LookAround(Sock* sock, int fd, const Channel& ch);

}  // namespace vsocket::shim
