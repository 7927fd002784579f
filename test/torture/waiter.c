#include "test/torture/waiter.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

static const uint64_t kEpollKinds = 1ULL << kEpollLevel | 1ULL << kEpollEdge | 1ULL << kEpollOneshot | 1ULL << kEpollExclusive |
                                    1ULL << kEpollPwait | 1ULL << kEpollPwait2 | 1ULL << kEpollNested | 1ULL << kEpollPolled;

bool WaiterIsEdge(const struct Waiter* waiter) {
  return waiter->kind == kEpollEdge;
}

void WaiterOpen(struct Waiter* waiter, enum WaitKind kind, struct Lane* lane, struct Random* random) {
  memset(waiter, 0, sizeof *waiter);
  waiter->kind = kind;
  waiter->lane = lane;
  waiter->random = random;
  waiter->bounded = RandomChance(random, 20);
  waiter->epoll = waiter->outer = -1;
  for (unsigned i = 0; i < kMaxBatch; ++i) waiter->fds[i] = -1;
  if ((kEpollKinds >> kind & 1) != 0) waiter->epoll = epoll_create1(EPOLL_CLOEXEC);
  if (kind == kEpollNested) {
    waiter->outer = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(waiter->outer, EPOLL_CTL_ADD, waiter->epoll, &event) != 0) Fail("epoll_ctl of an epoll: %s", strerror(errno));
  }
}

void WaiterClose(struct Waiter* waiter) {
  if (waiter->outer >= 0) close(waiter->outer);
  if (waiter->epoll >= 0) close(waiter->epoll);
}

static void Control(struct Waiter* waiter, int operation, unsigned index, uint32_t events) {
  struct epoll_event event = {.events = events, .data.u64 = index};
  if (epoll_ctl(waiter->epoll, operation, waiter->fds[index], &event) != 0) {
    Fail("epoll_ctl(%d) of fd %d: %s", operation, waiter->fds[index], strerror(errno));
  }
}

void WaiterAdd(struct Waiter* waiter, unsigned index, int fd) {
  waiter->fds[index] = fd;
  waiter->registered[index] = 0;
  if (waiter->epoll < 0) return;
  switch (waiter->kind) {
    case kEpollEdge:
      Control(waiter, EPOLL_CTL_ADD, index, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
      break;
    case kEpollOneshot:
      Control(waiter, EPOLL_CTL_ADD, index, EPOLLONESHOT);
      break;
    case kEpollExclusive:
      Control(waiter, EPOLL_CTL_ADD, index, EPOLLEXCLUSIVE);
      break;
    default:
      Control(waiter, EPOLL_CTL_ADD, index, 0);
  }
}

void WaiterRemove(struct Waiter* waiter, unsigned index) {
  // Closing the last descriptor removes it as well: sometimes that is relied on. (A dup would keep the registration alive.)
  if (waiter->epoll >= 0) Control(waiter, EPOLL_CTL_DEL, index, 0);
  waiter->fds[index] = -1;
}

static uint32_t EpollBits(short want) {
  return ((want & POLLIN) != 0 ? EPOLLIN | EPOLLRDHUP : 0u) | ((want & POLLOUT) != 0 ? EPOLLOUT : 0u);
}

static void Register(struct Waiter* waiter, const short want[kMaxBatch]) {
  for (unsigned i = 0; i < kMaxBatch; ++i) {
    if (waiter->fds[i] < 0 || waiter->kind == kEpollEdge) continue;
    if (waiter->kind == kEpollOneshot) {
      Control(waiter, EPOLL_CTL_MOD, i, EpollBits(want[i]) | EPOLLONESHOT);
    } else if (want[i] != waiter->registered[i]) {
      if (waiter->kind == kEpollExclusive) {  // EPOLL_CTL_MOD is not allowed for these, nor is EPOLLRDHUP
        Control(waiter, EPOLL_CTL_DEL, i, 0);
        Control(waiter, EPOLL_CTL_ADD, i, (EpollBits(want[i]) & ~(uint32_t)EPOLLRDHUP) | EPOLLEXCLUSIVE);
      } else {
        Control(waiter, EPOLL_CTL_MOD, i, EpollBits(want[i]));
      }
    }
    waiter->registered[i] = want[i];
  }
}

static int EpollWaitOnce(struct Waiter* waiter, struct epoll_event* events, int max, int timeout, const sigset_t* mask) {
  switch (waiter->kind) {
    case kEpollPwait:
      return epoll_pwait(waiter->epoll, events, max, timeout, mask);
#ifdef __GLIBC__
    case kEpollPwait2: {
      const struct timespec limit = {.tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000L};
      return epoll_pwait2(waiter->epoll, events, max, timeout < 0 ? NULL : &limit, mask);
    }
#endif
    case kEpollNested: {
      struct epoll_event outer;
      const int n = epoll_wait(waiter->outer, &outer, 1, timeout);
      return n > 0 ? epoll_wait(waiter->epoll, events, max, 0) : n;
    }
    case kEpollPolled: {
      struct pollfd inner = {.fd = waiter->epoll, .events = POLLIN};
      const int n = poll(&inner, 1, timeout);
      return n > 0 ? epoll_wait(waiter->epoll, events, max, 0) : n;
    }
    default:
      return epoll_wait(waiter->epoll, events, max, timeout);
  }
}

static int WaitEpoll(struct Waiter* waiter, const short want[kMaxBatch], short got[kMaxBatch], int timeout, const sigset_t* mask) {
  Register(waiter, want);
  struct epoll_event events[kMaxBatch];
  const int max = 1 + (int)RandomBelow(waiter->random, kMaxBatch);
  const int n = EpollWaitOnce(waiter, events, max, timeout, mask);
  for (int i = 0; i < n; ++i) {
    const uint64_t index = events[i].data.u64;
    if (index >= kMaxBatch || waiter->fds[index] < 0)
      Fail("epoll: an event of a socket that is not registered (%llx)", (unsigned long long)index);
    const uint32_t bits = events[i].events;
    if ((bits & EPOLLIN) != 0) got[index] |= POLLIN;
    if ((bits & EPOLLOUT) != 0) got[index] |= POLLOUT;
    if ((bits & EPOLLRDHUP) != 0) got[index] |= POLLIN | POLLRDHUP;
    if ((bits & (EPOLLERR | EPOLLHUP)) != 0) got[index] |= POLLIN | POLLOUT | POLLRDHUP;
  }
  return n;
}

static int WaitPoll(struct Waiter* waiter, const short want[kMaxBatch], short got[kMaxBatch], int timeout, const sigset_t* mask) {
  struct pollfd fds[kMaxBatch];
  for (unsigned i = 0; i < kMaxBatch; ++i) {
    fds[i].fd = want[i] != 0 ? waiter->fds[i] : -1;
    fds[i].events = want[i];
    fds[i].revents = 0;
  }
  int n;
  if (waiter->kind == kPpoll) {
    const struct timespec limit = {.tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000L};
    n = ppoll(fds, kMaxBatch, timeout < 0 ? NULL : &limit, mask);
  } else {
    n = poll(fds, kMaxBatch, timeout);
  }
  if (n < 0) return n;
  int set = 0;
  for (unsigned i = 0; i < kMaxBatch; ++i) {
    const short bits = fds[i].revents;
    if (bits == 0) continue;
    ++set;
    if (fds[i].fd < 0 || (bits & POLLNVAL) != 0) Fail("poll: revents %x for fd %d", (unsigned)bits, fds[i].fd);
    if ((bits & ~(want[i] | POLLERR | POLLHUP)) != 0) Fail("poll: revents %x where %x was asked for", (unsigned)bits, (unsigned)want[i]);
    got[i] = (short)(bits & (POLLIN | POLLOUT));
    if ((bits & (POLLERR | POLLHUP)) != 0) got[i] = POLLIN | POLLOUT | POLLRDHUP;
  }
  if (set != n) Fail("poll: returned %d, %d descriptors have events", n, set);
  return n;
}

static int WaitSelect(struct Waiter* waiter, const short want[kMaxBatch], short got[kMaxBatch], int timeout, const sigset_t* mask) {
  fd_set readable;
  fd_set writable;
  FD_ZERO(&readable);
  FD_ZERO(&writable);
  int top = -1;
  for (unsigned i = 0; i < kMaxBatch; ++i) {
    if (waiter->fds[i] < 0 || want[i] == 0) continue;
    if (waiter->fds[i] >= FD_SETSIZE) Fail("fd %d is too large for select", waiter->fds[i]);
    if ((want[i] & POLLIN) != 0) FD_SET(waiter->fds[i], &readable);
    if ((want[i] & POLLOUT) != 0) FD_SET(waiter->fds[i], &writable);
    if (waiter->fds[i] > top) top = waiter->fds[i];
  }
  int n;
  if (waiter->kind == kPselect) {
    const struct timespec limit = {.tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000L};
    n = pselect(top + 1, &readable, &writable, NULL, timeout < 0 ? NULL : &limit, mask);
  } else {
    struct timeval limit = {.tv_sec = timeout / 1000, .tv_usec = timeout % 1000 * 1000L};
    n = select(top + 1, &readable, &writable, NULL, timeout < 0 ? NULL : &limit);
  }
  if (n < 0) return n;
  int set = 0;
  for (unsigned i = 0; i < kMaxBatch; ++i) {
    if (waiter->fds[i] < 0 || want[i] == 0) continue;
    if (FD_ISSET(waiter->fds[i], &readable)) got[i] |= POLLIN, ++set;
    if (FD_ISSET(waiter->fds[i], &writable)) got[i] |= POLLOUT, ++set;
    if ((got[i] & ~want[i]) != 0) Fail("select: a bit nobody asked for, fd %d", waiter->fds[i]);
  }
  if (set != n) Fail("select: returned %d, %d bits are set", n, set);
  return n;
}

void WaiterWait(struct Waiter* waiter, const short want[kMaxBatch], short got[kMaxBatch], bool now) {
  memset(got, 0, kMaxBatch * sizeof *got);
  Count(&waiter->lane->share->waits[waiter->kind], 1);
  const int timeout = now ? 0 : (waiter->bounded ? 1 + (int)RandomBelow(waiter->random, 50) : -1);
  sigset_t alarm_only;
  sigemptyset(&alarm_only);
  sigaddset(&alarm_only, SIGALRM);
  const sigset_t* mask = RandomChance(waiter->random, 50) ? NULL : &alarm_only;
  int n;
  if (waiter->epoll >= 0)
    n = WaitEpoll(waiter, want, got, timeout, mask);
  else if (waiter->kind == kSelect || waiter->kind == kPselect)
    n = WaitSelect(waiter, want, got, timeout, mask);
  else
    n = WaitPoll(waiter, want, got, timeout, mask);
  // epoll_wait is ended even by a signal without a handler (see EndError).
  if (n < 0 && !(errno == EINTR && (waiter->lane->signals || waiter->epoll >= 0)))
    Fail("%s: %s", StyleName(kGroupWait, waiter->kind), strerror(errno));
  // A nested epoll may find nothing any more where its outer one saw something; else an unlimited wait must not end empty.
  if (n == 0 && timeout < 0 && waiter->kind != kEpollNested && waiter->kind != kEpollPolled) {
    Fail("%s: an unlimited wait returned 0", StyleName(kGroupWait, waiter->kind));
  }
}

void WaitFor(struct End* end, struct Random* random, int fd, short want) {
  struct Waiter waiter;
  WaiterOpen(&waiter, RandomBit(random, end->lane->options->styles.allowed[kGroupWait]), end->lane, random);
  WaiterAdd(&waiter, 0, fd);
  const short wants[kMaxBatch] = {want};
  short got[kMaxBatch];
  WaiterWait(&waiter, wants, got, false);
  WaiterRemove(&waiter, 0);
  WaiterClose(&waiter);
}
