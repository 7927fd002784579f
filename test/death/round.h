// One round of the death test: two processes share a connection until one of them is killed; the other must see all that was accepted.
// Thread safety: RoundPage's members are atomic and each is written by one process, as named.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "test/torture/random.h"

enum RoundEnd { kEndNone, kEndEof, kEndReset, kEndFault };

// What the round is, from (seed, slot, round) alone.
struct RoundPlan {
  uint64_t id;
  unsigned victim;         // side: 0 connector, 1 acceptor
  bool both_send;          // else only the victim sends, and nothing can be unread at its death
  bool slow_survivor;      // reads little at a time: when the victim dies its kernel still has much to deliver
  uint64_t kill_after;     // bytes that the victim's sends have accepted ...
  unsigned kill_delay_us;  // ... and then so long
};

struct RoundPage {
  _Atomic uint32_t started;      // manager: the parties may go; a futex. The round's number + 1
  _Atomic uint32_t finished;     // survivor: has seen the end; a futex. The round's number + 1
  _Atomic uint32_t kill_due;     // victim: kill_after bytes are accepted; a futex. The round's number + 1, as in `started`
  _Atomic uint64_t accepted[2];  // side: stored after each send returned
  _Atomic uint64_t offered[2];   // side: stored before each send; what may have arrived at most
  _Atomic uint64_t received[2];  // side: verified
  _Atomic uint32_t end[2];       // side: RoundEnd
  _Atomic uint32_t fault_errno;
  char fault[256];  // what is wrong, when end is kEndFault
};

struct RoundPlan RoundPlanOf(uint64_t seed, unsigned slot, uint64_t round);

// Runs one side on a connected socket until the connection ends, then closes it. `loops`: choices of this side.
void RoundRun(uint64_t seed, const struct RoundPlan* plan, unsigned side, int fd, struct RoundPage* page);

// The judgement of the round after both are done: NULL, or what is wrong (static storage).
const char* RoundJudge(const struct RoundPlan* plan, struct RoundPage* page);
