#include "test/torture/plan.h"

#include <string.h>

static const uint64_t kForks = 1ULL << kForkWriter | 1ULL << kTakeover | 1ULL << kForkTurns | 1ULL << kInetd;
// These can stop in the middle and close with bytes unread; in the others a second thread or process still holds the socket.
static const uint64_t kCanReset = 1ULL << kLoop | 1ULL << kTurns | 1ULL << kTakeover;
static const uint64_t kResets = 1ULL << kReset | 1ULL << kAbort;

static uint64_t PlanTotal(struct Random* random, uint64_t max) {
  if (RandomChance(random, 5)) return 0;
  return RandomLog(random, max);
}

static void PlanConnection(const struct Options* options, struct Random* random, const enum EndStyle style[2],
                           struct ConnectionPlan* plan) {
  const uint64_t max = options->max_connection_bytes;
  for (unsigned side = 0; side < 2; ++side) plan->total[side] = PlanTotal(random, max);
  plan->closer = (unsigned)RandomBelow(random, 2);
  plan->echo_side = -1;
  plan->small_buffers = StyleAllowed(&options->styles, kGroupExtra, kSmallBuffers) && RandomChance(random, 15);
  plan->ending = RandomBit(random, options->styles.allowed[kGroupEnding]);
  for (unsigned side = 0; side < 2; ++side) {
    if (style[side] != kInetd) continue;
    plan->echo_side = (int)side;
    plan->ending = kShutdown;
    plan->small_buffers = false;  // ends that take turns rely on a segment fitting into the buffers of the path
    plan->total[side] = plan->total[1 - side];
    plan->echo_before_exec = RandomChance(random, 50) ? 0 : RandomLog(random, plan->total[side]);
  }
  if ((1ULL << plan->ending & kResets) != 0) {
    if ((1ULL << style[plan->closer] & kCanReset) == 0) plan->closer = 1 - plan->closer;
    if ((1ULL << style[plan->closer] & kCanReset) == 0) plan->ending = kShutdown;
  }
  if ((1ULL << plan->ending & kResets) != 0) {
    uint64_t* left = &plan->total[1 - plan->closer];
    if (*left < 16) *left = 16;
    plan->unread = 1 + RandomLog(random, *left - 1);
  }
}

void PlanBatch(const struct Options* options, unsigned lane, uint64_t batch, struct BatchPlan* out) {
  memset(out, 0, sizeof *out);
  struct Random random = RandomOf(options->seed, ((uint64_t)lane << 40) + batch + 1);
  const uint64_t styles = options->styles.allowed[kGroupEnd];
  // Forks are slow; a batch is more often without.
  const uint64_t quick = (styles & ~kForks) != 0 ? styles & ~kForks : styles;
  for (unsigned side = 0; side < 2; ++side) out->style[side] = RandomBit(&random, RandomChance(&random, 50) ? styles : quick);
  if (out->style[0] == kInetd && out->style[1] == kInetd) out->style[RandomBelow(&random, 2)] = kLoop;
  const bool both_loop = out->style[0] == kLoop && out->style[1] == kLoop;
  out->count = both_loop ? 1 + (unsigned)RandomBelow(&random, kMaxBatch) : 1;
  for (unsigned i = 0; i < out->count; ++i) {
    PlanConnection(options, &random, out->style, &out->connections[i]);
    out->connections[i].connection = (uint64_t)lane << 40 | batch << 4 | i;
  }
}

struct Segments SegmentsOf(uint64_t seed, const struct ConnectionPlan* plan) {
  struct Segments segments = {.random = RandomOf(seed, ~plan->connection)};
  return segments;
}

bool SegmentNext(struct Segments* segments, const struct ConnectionPlan* plan, unsigned* direction, uint64_t* size) {
  uint64_t left[2];
  for (unsigned side = 0; side < 2; ++side) left[side] = plan->total[side] - segments->done[side];
  if (left[0] == 0 && left[1] == 0) return false;
  uint64_t longest = 300 << 10;
  if (plan->echo_side >= 0) {
    // What goes in comes back before more goes in: the echo must never be stuck writing to an end that is stuck writing.
    const unsigned in = 1 - (unsigned)plan->echo_side;
    *direction = segments->done[in] > segments->done[1 - in] ? 1 - in : in;
    longest = *direction == in ? 8 << 10 : segments->done[in] - segments->done[1 - in];
    *size = *direction == in ? 1 + RandomLog(&segments->random, longest - 1) : longest;
  } else {
    if (plan->ending == kHalfClose && left[plan->closer] > 0) {
      const unsigned other = 1 - plan->closer;
      const uint64_t limit = SendLimitBeforeEof(plan, other);
      left[other] = limit > segments->done[other] ? limit - segments->done[other] : 0;
    }
    *direction = (unsigned)RandomBelow(&segments->random, 2);
    if (left[*direction] == 0) *direction = 1 - *direction;
    *size = 1 + RandomLog(&segments->random, longest - 1);
  }
  if (*size > left[*direction]) *size = left[*direction];
  segments->done[*direction] += *size;
  return true;
}

uint64_t SendLimitBeforeEof(const struct ConnectionPlan* plan, unsigned side) {
  if (plan->ending == kHalfClose && side != plan->closer) return plan->total[side] / 2;
  return plan->total[side];
}
