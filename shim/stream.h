// The stream of an attached connection: one attempt at a time, never sleeping. What the kernel's socket code is to a TCP connection, this
// is to one that has a channel: it moves payload by ring or TCP as the direction's mode says, switches directions up and down, reads
// frames, and tells readiness. wait.h adds sleeping, calls_*.cc the program's interface.
//
// Every function returns bytes or 0, or -errno. Thread safety: any thread; each takes the Sock's locks itself.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstdint>

#include "shim/regions.h"
#include "shim/sock.h"

namespace vsocket::shim {

// The channel is gone (it was brought down for good): the caller uses the kernel's call.
inline constexpr ssize_t kNotAttached = -4096;

// Receives what is there. flags: MSG_PEEK and MSG_TRUNC (discard) are honoured; waiting is the caller's. -EAGAIN: nothing yet. 0: end.
ssize_t TryReceive(SockRef ref, int fd, const struct iovec* parts, int count, int flags);

// Sends what there is room for. -EAGAIN: no room. -EPIPE: the caller raises SIGPIPE.
ssize_t TrySend(SockRef ref, int fd, const struct iovec* parts, int count, int flags);

// For a send that will not wait for the room it did not find: the next room is an edge for EPOLLET, and whoever sleeps already, for bytes
// or because there was room, is rung for it. True: there is room by now, try again.
bool RoomAfterAll(SockRef ref);

// Fills the ring in place from a file. *offset may be null (the file's own position). As TrySend otherwise.
ssize_t TrySendFile(SockRef ref, int fd, int in_fd, off_t* offset, size_t size);

// What is ready on the ring side. `kernel_ready`: the kernel reports the socket readable or in error, so frames, FIN or RST are looked at.
struct Readiness {
  bool in = false;            // a receive would not block
  bool out = false;           // a send would not block, and there is room worth a wake-up
  bool in_by_kernel = false;  // the direction is on TCP: ask the kernel
  bool out_by_kernel = false;
  bool only_fin = false;      // the kernel's ERR and HUP are of a reset that the program is not to see
  std::uint64_t in_mark = 0;  // stream position up to which bytes have arrived, by ring or TCP: it grows with each edge for EPOLLET
};
Readiness Look(SockRef ref, int fd, bool kernel_ready);

// Cheap enough to spin on: bytes arrived or room appeared on the ring? Takes no lock, makes no system call.
bool RingHasData(const Sock* sock);
bool RingHasRoom(const Sock* sock);
std::uint64_t RingTail(const Sock* sock);  // the peer's published tail

// Arms this side's waiter words for a sleep and re-checks (wake.h A1-A3). True: nothing is ready, the caller may sleep in the kernel
// on `*kernel_events` of the socket (POLLIN, POLLOUT). False: do not sleep, something is (or may be) ready. AfterSleep either way.
bool PrepareToSleep(SockRef ref, int fd, bool want_in, bool want_out, std::uint32_t target, short* kernel_events);
void AfterSleep(SockRef ref);

// Brings both directions down to TCP for good, waiting for the peer's replay, and records why. The program's next call goes to the kernel.
void LeaveForGood(SockRef ref, int fd, channel::Reason reason);

// The last close of the last process: takes our frames off the receive queue so that the kernel sends what TCP would have (FIN, or RST when
// the program left bytes unread), and gives the channel back.
void FinishSock(Sock* sock, int fd);

// Before the last descriptor is closed: what the peer has not read goes by TCP, as far as there is room; all of it when the peer has left
// its ring, as long as it takes it (10 s at most).
void SettleBeforeClose(SockRef ref, int fd);

// Around shutdown(2), `how` as there. 0, or -errno instead of the kernel's call.
int SettleBeforeShutdown(SockRef ref, int fd, int how);
void NoteShutdown(SockRef ref, int how);

// What SO_ERROR is to say when the kernel says `error`: an end that only frames of ours have made abortive is none.
int JudgeError(SockRef ref, int fd, int error);

// Bytes the program could read from the ring.
std::uint64_t UnreadOnRing(SockRef ref);

// A granted channel begins: with both halves quiet and the counts proven equal to the kernel's. Called by upgrade.cc with both locks held.
bool Attach(Sock* sock, int fd, const Channel& channel, std::uint64_t sent, std::uint64_t received);

}  // namespace vsocket::shim
