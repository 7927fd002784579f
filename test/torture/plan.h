// What both ends of a connection agree on without a word: a pure function of (seed, lane, batch). Thread safety: pure.
#pragma once

#include "test/torture/options.h"
#include "test/torture/random.h"
#include "test/torture/share.h"

// Sides: 0 is the connector, 1 the acceptor. Direction d is what side d sends.
struct ConnectionPlan {
  uint64_t connection;  // unique in the run
  uint64_t total[2];    // bytes of each direction, were the connection to run to its end
  enum Ending ending;
  unsigned closer;            // the side that closes, resets, aborts or half-closes first
  uint64_t unread;            // kReset, kAbort: what the closer leaves unread of its peer's bytes; >= 1
  int echo_side;              // this side echoes what it gets (kInetd); -1: none
  uint64_t echo_before_exec;  // bytes it echoes itself before it executes the echo program
  bool small_buffers;
};

struct BatchPlan {
  unsigned count;
  enum EndStyle style[2];
  struct ConnectionPlan connections[kMaxBatch];
};

void PlanBatch(const struct Options* options, unsigned lane, uint64_t batch, struct BatchPlan* out);

// The order in which ends that take turns move the bytes: both walk the same list.
struct Segments {
  struct Random random;
  uint64_t done[2];
};

struct Segments SegmentsOf(uint64_t seed, const struct ConnectionPlan* plan);

// The next segment; false when all bytes are moved.
bool SegmentNext(struct Segments* segments, const struct ConnectionPlan* plan, unsigned* direction, uint64_t* size);

// How much side `side` may send before it has seen its peer's end of stream.
uint64_t SendLimitBeforeEof(const struct ConnectionPlan* plan, unsigned side);
