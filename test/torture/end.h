// One end of a connection as its owner sees it, and the calls that move its bytes. Every call checks what it can: the bytes, the
// lengths, the error against the plan.
//
// Thread safety: the receiving half (rx, random_rx, in) belongs to one thread or process at a time, the sending half (tx, random_tx,
// out) to one, possibly another.
#pragma once

#include "test/torture/plan.h"

enum { kMaxIo = 300 << 10, kIoAgain = 0, kIoEof = -1, kIoReset = -2, kIoInterrupted = -3 };

// What is the same for all ends of a lane.
struct Lane {
  const struct Options* options;
  struct Share* share;
  unsigned index;
  unsigned side;
  bool signals;  // an interval timer interrupts this process ...
  bool restart;  // ... with SA_RESTART
  struct Random random;
};

struct End {
  struct Lane* lane;
  const struct ConnectionPlan* plan;
  struct EndStatus* status;
  unsigned side;
  int fd;
  int fd_tx;             // usually the same number; a dup of it when a thread of its own writes
  bool nonblocking;      // O_NONBLOCK is set
  bool always_dontwait;  // blocking, but every call says MSG_DONTWAIT
  bool receive_timeout, send_timeout;
  bool no_waitall;  // the peer may be waiting for an answer to less
  bool write_closed;
  bool short_receive;  // the last receive returned less than it asked for
  uint64_t tx, tx_goal, rx, rx_goal;
  uint64_t tx_key, rx_key;
  struct Random random_tx, random_rx;
  unsigned char* in;  // kMaxIo bytes each
  unsigned char* out;
};

// Takes `fd`; chooses how it blocks, and its socket options. `nonblocking`: O_NONBLOCK is already set.
void EndOpen(struct End* end, struct Lane* lane, const struct BatchPlan* batch, unsigned index, int fd, bool nonblocking);
// Closes the descriptors that are left (-1: none; by the plan: with a linger of 0), judges the end, and frees the buffers.
void EndClose(struct End* end);
// Replaces the descriptor by a duplicate, in one of the ways there are.
void EndDup(struct End* end);

// May this end see its connection reset?
bool EndMayReset(const struct End* end);
bool EndIsCloser(const struct End* end);
// Does this end leave its peer's last bytes unread?
bool EndStopsEarly(const struct End* end);

// Moves some bytes, at most `limit` > 0, by a call chosen at random. The number moved, or kIo*.
long SendSome(struct End* end, uint64_t limit);
// Receives some bytes, at most `limit`. limit == 0: expects the end of the stream, or a reset, and fails on a byte.
long RecvSome(struct End* end, uint64_t limit);

// SHUT_WR, once.
void EndShutdown(struct End* end);
// Checks that an unread byte is there; kIoAgain when not yet, else 1. kReset's closer calls it before it closes.
long EndPeekUnread(struct End* end);

// May a blocking call on this end stop short of what it was asked for? A signal may cut it, or a timeout, or a reset; and in a process that
// forks, a SIGCHLD nobody handles (see EndError).
bool EndMayStopShort(const struct End* end, bool sending);

// What a failed call means: kIoAgain, kIoInterrupted or kIoReset; any other errno fails the run. `may_block`: EAGAIN is not allowed.
long EndError(struct End* end, const char* call, bool sending, bool may_block, bool restartable);

// Bookkeeping of bytes moved.
void EndSent(struct End* end, uint64_t n);
void EndReceived(struct End* end, const void* data, uint64_t n, const char* call);  // checks them
void EndDiscarded(struct End* end, uint64_t n);

// For the watchdog. `writer`: the thread of its own that writes.
void EndActivity(struct End* end, bool writer, enum Activity activity);

// The text that names an end in a failure.
struct EndText {
  char text[256];
};
struct EndText EndDescribe(const struct End* end);

// SIGPIPE is caught and counted, by thread.
void SigpipeSetUp(void);
unsigned SigpipeCount(void);
