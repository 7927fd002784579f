// One thread, several connections, a readiness interface: how event-driven servers run.
#include <string.h>
#include <unistd.h>

#include "test/torture/engines.h"
#include "test/torture/waiter.h"

struct LoopEnd {
  struct End* end;
  short ready;      // what may be tried without waiting
  bool peer_ended;  // an event said so: a short read is not the last one
  bool done;
};

static uint64_t SendLimit(const struct End* end) {
  return atomic_load(&end->status->eof_seen) != 0 ? end->tx_goal : SendLimitBeforeEof(end->plan, end->side);
}

static short Want(const struct LoopEnd* state) {
  const struct End* end = state->end;
  short want = 0;
  const bool saw_end = atomic_load(&end->status->eof_seen) != 0;
  if (end->tx < SendLimit(end) && !atomic_load(&end->status->reset_seen)) want |= POLLOUT;
  if (!saw_end && (end->rx < end->rx_goal || EndStopsEarly(end) || end->plan->ending != kClose || !EndIsCloser(end))) want |= POLLIN;
  return want;
}

static bool IsDone(struct End* end) {
  const bool saw_end = atomic_load(&end->status->eof_seen) != 0;
  const bool received = end->rx == end->rx_goal;
  switch (end->plan->ending) {
    case kShutdown:
    case kHalfClose:
      return end->write_closed && saw_end;
    case kClose:
      return end->tx == end->tx_goal && received && (EndIsCloser(end) || saw_end);
    case kAbort:
      if (EndIsCloser(end)) return received;
      return saw_end;
    case kReset:
      if (EndIsCloser(end)) return received && EndPeekUnread(end) == 1;
      return saw_end;
    default:
      return false;
  }
}

static void Receive(struct Waiter* waiter, struct LoopEnd* state, bool trust_short) {
  struct End* end = state->end;
  for (uint64_t tries = 1 + RandomBelow(waiter->random, 4); tries > 0; --tries) {
    if ((Want(state) & POLLIN) == 0) return;
    if (EndStopsEarly(end) && end->rx == end->rx_goal) {
      state->ready &= (short)~POLLIN;  // before the look at the unread bytes: those that come later are an event
      return;
    }
    const long n = RecvSome(end, end->rx_goal - end->rx);
    if (n == kIoInterrupted) continue;
    if (n == kIoAgain) state->ready &= (short)~POLLIN;
    if (n <= 0) return;
    if (trust_short && end->short_receive && !state->peer_ended) {
      // epoll(7): a short read from a stream means that there is no more; the next byte is a new event.
      Count(&end->lane->share->extras[kDrainedByShortRead], 1);
      state->ready &= (short)~POLLIN;
      return;
    }
  }
}

static void Send(struct Waiter* waiter, struct LoopEnd* state) {
  struct End* end = state->end;
  for (uint64_t tries = 1 + RandomBelow(waiter->random, 4); tries > 0; --tries) {
    const uint64_t limit = SendLimit(end);
    if (end->tx >= limit || atomic_load(&end->status->reset_seen)) return;
    const long n = SendSome(end, limit - end->tx);
    if (n == kIoAgain) state->ready &= (short)~POLLOUT;
    if (n == kIoAgain || n == kIoReset) return;
  }
}

static void Step(struct Waiter* waiter, struct LoopEnd* state, unsigned index, bool trust_short) {
  struct End* end = state->end;
  if ((state->ready & POLLIN) != 0) Receive(waiter, state, trust_short);
  if ((state->ready & POLLOUT) != 0) Send(waiter, state);
  if (end->tx == end->tx_goal && (end->plan->ending == kShutdown || end->plan->ending == kHalfClose)) EndShutdown(end);
  if (IsDone(end)) {
    WaiterRemove(waiter, index);
    EndClose(end);
    state->done = true;
    return;
  }
  if (StyleAllowed(&end->lane->options->styles, kGroupExtra, kDup) && RandomBelow(waiter->random, 200) == 0) {
    WaiterRemove(waiter, index);
    EndDup(end);
    WaiterAdd(waiter, index, end->fd);
  }
  const short want = Want(state);
  EndActivity(end, false,
              want == 0 ? kAwaitingUnread : (want == POLLIN ? kWaitingReadable : (want == POLLOUT ? kWaitingWritable : kWaitingBoth)));
}

void RunLoop(struct Lane* lane, struct End ends[], unsigned count) {
  struct Waiter waiter;
  const struct Styles* styles = &lane->options->styles;
  WaiterOpen(&waiter, RandomBit(&lane->random, styles->allowed[kGroupWait]), lane, &lane->random);
  const bool edge = WaiterIsEdge(&waiter);
  const bool trust_short = edge && StyleAllowed(styles, kGroupExtra, kDrainedByShortRead) && RandomChance(&lane->random, 50);
  struct LoopEnd states[kMaxBatch];
  memset(states, 0, sizeof states);
  for (unsigned i = 0; i < count; ++i) {
    states[i].end = &ends[i];
    atomic_store(&ends[i].status->wait, waiter.kind);
    // Some programs try first and wait afterwards.
    states[i].ready = RandomChance(&lane->random, 50) ? POLLIN | POLLOUT : 0;
    WaiterAdd(&waiter, i, ends[i].fd);
  }
  for (unsigned left = count; left > 0;) {
    short want[kMaxBatch] = {0};
    bool ready = false;
    for (unsigned i = 0; i < count; ++i) {
      if (states[i].done) continue;
      Step(&waiter, &states[i], i, trust_short);
      if (states[i].done) {
        --left;
        continue;
      }
      if (!edge) states[i].ready = 0;
      want[i] = Want(&states[i]);
      ready = ready || (states[i].ready & want[i]) != 0;
    }
    if (left == 0) break;
    short got[kMaxBatch];
    WaiterWait(&waiter, want, got, ready);
    for (unsigned i = 0; i < count; ++i) {
      states[i].ready |= (short)(got[i] & (POLLIN | POLLOUT));
      if ((got[i] & POLLRDHUP) != 0) states[i].peer_ended = true;
    }
  }
  WaiterClose(&waiter);
}
