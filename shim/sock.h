// What the shim knows of one TCP connection, and where it keeps it.
//
// A Sock lives in an arena that a process shares with its forks (MAP_SHARED), as the kernel's socket is shared: positions, modes and
// locks are the connection's, not a process's. It holds no pointers: addresses are per process (Region table), and a fork that was
// compromised must not gain more than the sockets it already shares.
//
// The fd table is per process: fd -> SockRef. A SockRef carries a generation, so a thread that slept while another closed the socket
// notices (Sock::generation) instead of working on whoever got the place next.
//
// Locking: rx_lock guards the receiving half, tx_lock the sending half. Order: rx_lock before tx_lock. Nobody sleeps while holding one.
// What is read without them is atomic: Relaxed where the reader only guesses, or had it from who set the phase (acquire, release). Whoever
// comes with an old SockRef may read any of it while the place is another connection's; what it then does under a lock it does not (Stale).
#pragma once

#include <atomic>
#include <cstdint>

#include "base/relaxed.h"
#include "channel/layout.h"
#include "channel/reason.h"
#include "channel/ring.h"
#include "channel/switch.h"
#include "shim/lock.h"

namespace vsocket::shim {

inline constexpr std::uint32_t kMaxSocks = 1u << 18;
inline constexpr std::uint8_t kKilled = 2;  // Sock::dead

// How far a connection has come. Only forward, but for kAsked -> kPlain (denied, or no answer) and -> kPlain when a channel is given up.
enum class Phase : std::uint8_t {
  kFree = 0,
  kIdle,       // a socket, not connected (or a listener)
  kPlain,      // connected: calls go straight to the kernel, counted
  kAsked,      // as kPlain; the agent has been asked
  kGranted,    // a channel is there; calls are taken one at a time until none is inside the kernel and the counts are proven
  kAttaching,  // for a moment: a plain call that begins now waits for the outcome
  kAttached,   // the channel is in use: each direction by its SwitchSender / SwitchReceiver
};

struct alignas(64) Sock {
  // Receiving half (rx_lock).
  Lock rx_lock;
  std::atomic<std::uint8_t> fin_seen{0};  // the kernel said EOF
  std::atomic<std::uint8_t> framed{0};    // rx.mode == kRing, for those who do not hold rx_lock: the peer reads our frames' answers
  std::atomic<std::uint8_t> shut_rd{0};
  std::atomic<std::uint16_t> error{0};  // errno the kernel gave and the program has not seen yet
  bool only_fin = false;                // that error was judged: to the program the peer has closed, not reset (EndError)
  std::uint32_t bells_seen = 0;         // BELL frames taken off the queue
  channel::ConsumerState in;
  channel::SwitchReceiver rx;

  // Sending half (tx_lock).
  alignas(64) Lock tx_lock;
  std::atomic<std::uint8_t> shut_wr{0};
  std::atomic<std::uint32_t> nospace{0};  // sends that found no room: each makes the next room an edge for EPOLLET
  std::uint16_t up_attempts = 0;          // in a row, while the receiver still had bytes to read
  bool outgrown = false;                  // the ring was too small: the next one is bigger
  bool grown = false;                     // the ring is bigger than the smallest, or has been: its pages are still there (trim.h)
  channel::ProducerState out;
  channel::SwitchSender tx;
  bool guarded = false;  // a replay is under way to somebody without the ring: SO_LINGER is ours (GuardReplay)
  int linger[2] = {};    // guarded: the program's own
  std::uint64_t up_since_ns = 0;
  std::uint64_t idle_at = 0;     // grown: where `out` stood at the last look
  std::uint64_t up_at = 0;       // where the last proposal started
  std::uint32_t up_bells = 0;    // bells sent before it
  std::uint64_t look_again = 0;  // Ticks() at which a busy sender looks at the kernel's side again
  std::uint64_t ask_again = 0;   // Ticks() before which the agent is not asked for a grant again (grant.cc)
  std::uint8_t unheard = 0;      // looks for the grant since it was asked

  // Both.
  alignas(64) std::atomic<Phase> phase{Phase::kFree};
  std::atomic<bool> initiator{false};    // sent the SYN
  std::atomic<std::uint16_t> pinned{0};  // channel::Reason for staying on TCP for good; kNone: none
  std::atomic<std::uint16_t> denied{0};  // channel::Reason of the last refusal that may pass; kNone since it was on a ring
  std::atomic<std::uint32_t> generation{0};
  std::atomic<std::uint32_t> processes{0};  // that have it in their fd table
  std::atomic<std::uint32_t> inside_tx{0};  // kPlain: calls inside the kernel
  std::atomic<std::uint32_t> inside_rx{0};
  std::atomic<std::uint64_t> plain_tx{0};  // payload bytes by plain calls; the stream position while kPlain
  std::atomic<std::uint64_t> plain_rx{0};
  std::atomic<std::uint32_t> turns{0};  // changes from receiving to sending
  std::atomic<std::uint8_t> last_was_rx{0};
  std::atomic<std::uint8_t> shim_waits{0};  // the program waits for this socket through us: no bell needed between its waits
  std::atomic<std::uint8_t> dead{0};        // 1: reset, what arrived before may still be read; kKilled: nothing may, and for good
  std::atomic<std::uint32_t> sleepers{0};   // waits in progress on this socket, in all processes
  std::atomic<std::uint8_t> watched{0};     // has been in an epoll set
  std::atomic<std::uint8_t> nodelay{0};     // the program's own TCP_NODELAY while we need it on
  std::atomic<std::uint8_t> cork{0};        // the program's own TCP_CORK while we need it off
  Relaxed<std::uint64_t> cookie = 0;        // SO_COOKIE; 0: not read yet
  Relaxed<std::uint64_t> region_id = 0;
  Relaxed<std::uint64_t> ask_at_ns = 0;    // not before
  Relaxed<std::uint64_t> ask_after = 0;    // bytes moved: until then nobody looks at the clock for it
  std::uint64_t ring_tx = 0, ring_rx = 0;  // bytes that went by the ring, for statistics
  Relaxed<std::uint32_t> region = 0;       // index in the process's region table
  Relaxed<std::uint32_t> slot = 0;
  Relaxed<std::uint32_t> epoch = 0;
  Relaxed<std::uint32_t> side = 0;
  Relaxed<std::uint32_t> next_free = 0;  // arena free list; who reads it of a place that is free no more fails to pop it
  // All of it is set anew for the next connection in this place by Renew (sock.cc).
};

// Nobody but this thread can be at it now: no other process has it, and this one has no other thread.
inline bool AloneWith(const Sock* sock) {
  return OnlyThread() && sock->processes.load(std::memory_order_relaxed) == 1;
}

// The kernel has reset the connection.
inline void NoteReset(Sock* sock) {
  std::uint8_t alive = 0;
  sock->dead.compare_exchange_strong(alive, 1, std::memory_order_relaxed);
}

struct SockRef {
  Sock* sock = nullptr;
  std::uint32_t generation = 0;
  explicit operator bool() const { return sock != nullptr; }
  [[nodiscard]] bool Stale() const { return sock->generation.load(std::memory_order_relaxed) != generation; }
};

// False: no memory; the shim stays out of the way for good.
bool InitSocks();

// The connection behind an fd of this process, or none. Wait-free.
SockRef FindSock(int fd);

// A new socket in this process. Null: the arena is full, the socket is simply not tracked.
Sock* TrackNew(int fd, Phase phase, bool initiator);

// `copy` refers to the same connection as `fd` now (dup). Replaces what the table said of `copy`.
void TrackCopy(int fd, int copy);

// This process gives up `fd`. When it was the last fd of the last process, the caller finishes the Sock and calls FreeSock; when it was
// only this process's last, the caller lets go of what the process held for it.
struct Dropped {
  Sock* sock = nullptr;
  bool last_here = false;
  bool last = false;
};
// `last_here(sock)` is called while the process still holds it: the last process of all may free it at any moment after that.
Dropped Untrack(int fd, void (*last_here)(Sock* sock));
void FreeSock(Sock* sock);

// Around fork, of which one is under way at a time. Before it every connection gains a holder for the child; what other threads open and
// close meanwhile the child settles for itself (`shared`: its forker has called ShareForFork). Unshare: fork failed.
void ShareForFork();
void UnshareAfterFailedFork();
void HoldAfterFork(bool shared);

// The process ends, or becomes another program: it gives up all its holds at once; and takes them again if exec fails.
void DropAllHolds();
void TakeAllHolds();

// Calls visit(fd, SockRef) for each tracked fd of this process.
using SockVisitor = void (*)(int fd, SockRef ref, void* context);
void ForEachSock(SockVisitor visit, void* context);

// Calls visit(sock) once for each connection of this process, however many fds it has.
void ForEachHeld(void (*visit)(Sock* sock));

// Arena index of a Sock, for keys; and back (null when out of range).
std::uint32_t IndexOf(const Sock* sock);
Sock* SockAt(std::uint32_t index);

}  // namespace vsocket::shim
