// The page that all processes of a torture run share: how the two sides of a lane agree on batches, what each connection end is doing
// (for the watchdog), and the totals. Anonymous when one program runs both sides; a file when the sides are started apart (--share).
//
// Thread safety: every member is atomic; `repeat` is written before any other process exists.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "test/torture/styles.h"

enum { kMaxLanes = 64, kMaxBatch = 8 };

enum Activity {
  kIdle,
  kConnecting,
  kAccepting,
  kReceiving,
  kSending,
  kWaitingReadable,
  kWaitingWritable,
  kWaitingBoth,
  kAwaitingEof,
  kAwaitingReset,
  kAwaitingUnread,
  kAwaitingChild,
  kAwaitingTurn,
  kActivities
};

struct EndStatus {
  _Atomic uint64_t progress;  // changes with every step; compared by the watchdog
  _Atomic uint64_t connection;
  _Atomic uint64_t tx, tx_goal, rx, rx_goal;
  _Atomic uint32_t activity[2];  // of the thread or process that reads (or does both), and of the one that writes
  _Atomic uint32_t style, wait, ending, port;
  _Atomic uint32_t active;
  _Atomic uint32_t reset_seen, eof_seen;
};

struct LaneShare {
  _Atomic uint32_t announced;  // batches begun by the connector; a futex
  _Atomic uint32_t finished;   // 1 + the number of batches, set before the last futex wake; 0: more may follow
  _Atomic uint32_t port;       // of the acceptor's listener, host order; a futex; 0: not yet
  struct EndStatus ends[2][kMaxBatch];
  _Atomic uint32_t connection_of_port[65536];  // connector's port -> 1 + index in its batch
};

struct Share {
  _Atomic uint32_t ready, failed, stop, signals_seen;
  _Atomic uint64_t verified, discarded, sent, connections, resets, spurious, interrupted, forks, execs;
  _Atomic uint64_t sends[kSendOps], receives[kRecvOps], waits[kWaitKinds], ends[kEndStyles], endings[kEndings], extras[kExtras];
  char repeat[1024];
  struct LaneShare lanes[kMaxLanes];
};

// Maps the page: a fresh anonymous one (path == NULL), or the file. Ends the program when it cannot.
struct Share* ShareMap(const char* path);

// The page and the program's name for messages, for Fail. Set once at start.
void FailSetUp(struct Share* share);

// Prints what is wrong and the command line that repeats it, marks the run failed, and ends the process at once.
_Noreturn void Fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

void FutexWait(_Atomic uint32_t* word, uint32_t seen);
void FutexWake(_Atomic uint32_t* word);

const char* ActivityName(uint32_t activity);

static inline void Count(_Atomic uint64_t* counter, uint64_t n) {
  atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}
