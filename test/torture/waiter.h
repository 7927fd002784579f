// Waiting for several sockets at once, by each of the readiness interfaces. Thread safety: none.
#pragma once

#include <poll.h>

#include "test/torture/end.h"

struct Waiter {
  enum WaitKind kind;
  struct Lane* lane;
  struct Random* random;
  bool bounded;        // waits carry a time limit; else only an event (or a signal) ends them
  int epoll;           // -1: not an epoll kind
  int outer;           // kEpollNested: an epoll that holds `epoll`
  int fds[kMaxBatch];  // -1: unused
  short registered[kMaxBatch];
};

void WaiterOpen(struct Waiter* waiter, enum WaitKind kind, struct Lane* lane, struct Random* random);
void WaiterClose(struct Waiter* waiter);
void WaiterAdd(struct Waiter* waiter, unsigned index, int fd);
void WaiterRemove(struct Waiter* waiter, unsigned index);

// Is readiness reported once a change, so that the caller must remember it?
bool WaiterIsEdge(const struct Waiter* waiter);

// Waits until something in `want` (POLLIN, POLLOUT; by index) may be done. Sets in `got` POLLIN and POLLOUT as far as reported, and
// POLLRDHUP when the event said that the peer has ended its stream (an error or hang-up counts as all three). `now`: does not wait.
void WaiterWait(struct Waiter* waiter, const short want[kMaxBatch], short got[kMaxBatch], bool now);

// Waits for one end by a kind chosen at random.
void WaitFor(struct End* end, struct Random* random, int fd, short want);
