#include "test/death/round.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "test/death/futex.h"
#include "test/torture/stream.h"

enum { kMaxIo = 128 << 10, kSlowIo = 4 << 10 };

struct Party {
  const struct RoundPlan* plan;
  struct RoundPage* page;
  struct Random random;
  unsigned side;
  int fd;
  bool nonblocking;
  int epoll;  // edge-triggered; -1: poll is used
  bool sends;
  bool send_broken;
  uint64_t tx, rx, tx_key, rx_key;
  uint32_t ready;  // POLLIN, POLLOUT: not known to be exhausted
};

struct RoundPlan RoundPlanOf(uint64_t seed, unsigned slot, uint64_t round) {
  struct Random random = RandomOf(seed, (uint64_t)slot << 32 | round);
  struct RoundPlan plan = {.id = (uint64_t)slot << 32 | round};
  plan.victim = (unsigned)RandomBelow(&random, 2);
  plan.both_send = RandomChance(&random, 40);
  plan.kill_after = RandomLog(&random, 4 << 20);
  plan.kill_delay_us = RandomChance(&random, 50) ? 0 : (unsigned)RandomBelow(&random, 1000);
  plan.slow_survivor = RandomChance(&random, 50);
  return plan;
}

static void Fault(struct Party* party, const char* what, int error) {
  snprintf(party->page->fault, sizeof party->page->fault, "side %u: %s (%s) at received %llu", party->side, what, strerror(error),
           (unsigned long long)party->rx);
  atomic_store(&party->page->fault_errno, (uint32_t)error);
  atomic_store(&party->page->end[party->side], kEndFault);
}

static bool Again(int error) {
  return error == EAGAIN || error == EINTR;
}

// Once: the manager then kills, or waits a little longer on purpose.
static void TellKiller(struct RoundPage* page) {
  const uint32_t number = atomic_load(&page->started);
  if (atomic_exchange(&page->kill_due, number) != number) FutexWake(&page->kill_due);
}

// False when the connection is over for sending.
static void SendOnce(struct Party* party) {
  static unsigned char buffer[kMaxIo];
  const size_t size = 1 + RandomLog(&party->random, kMaxIo - 1);
  StreamFill(party->tx_key, party->tx, buffer, size);
  atomic_store(&party->page->offered[party->side], party->tx + size);
  ssize_t n;
  switch (RandomBelow(&party->random, 3)) {
    case 0:
      n = send(party->fd, buffer, size, MSG_NOSIGNAL);
      break;
    case 1:
      n = write(party->fd, buffer, size);
      break;
    default: {
      struct iovec pieces[2] = {{buffer, size / 2}, {buffer + size / 2, size - size / 2}};
      n = writev(party->fd, pieces, 2);
    }
  }
  if (n > 0) {
    party->tx += (uint64_t)n;
    atomic_store(&party->page->accepted[party->side], party->tx);
    if (party->side == party->plan->victim && party->tx >= party->plan->kill_after) TellKiller(party->page);
  } else if (n < 0 && Again(errno)) {
    atomic_store(&party->page->offered[party->side], party->tx);
    if (errno == EAGAIN) party->ready &= ~(uint32_t)POLLOUT;
  } else if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) {
    party->send_broken = true;
  } else {
    Fault(party, "send", n < 0 ? errno : 0);
  }
}

static enum RoundEnd ReceiveOnce(struct Party* party) {
  static unsigned char buffer[kMaxIo];
  const bool slow = party->plan->slow_survivor && party->side != party->plan->victim;
  const size_t size = 1 + RandomLog(&party->random, slow ? kSlowIo : kMaxIo - 1);
  const ssize_t n = RandomChance(&party->random, 50) ? recv(party->fd, buffer, size, 0) : read(party->fd, buffer, size);
  if (n > 0) {
    const size_t right = StreamCheck(party->rx_key, party->rx, buffer, (size_t)n);
    party->rx += right;
    atomic_store(&party->page->received[party->side], party->rx);
    if (right == (size_t)n) return kEndNone;
    Fault(party, "wrong byte", 0);
    return kEndFault;
  }
  if (n == 0) return party->send_broken ? kEndReset : kEndEof;
  if (errno == EAGAIN) party->ready &= ~(uint32_t)POLLIN;
  if (Again(errno)) return kEndNone;
  if (errno == ECONNRESET || errno == EPIPE) return kEndReset;
  Fault(party, "receive", errno);
  return kEndFault;
}

static void Wait(struct Party* party) {
  const bool sending = party->sends && !party->send_broken;
  if (party->epoll < 0) {
    struct pollfd wait = {.fd = party->fd, .events = (short)(POLLIN | (sending ? POLLOUT : 0))};
    if (poll(&wait, 1, -1) < 0) return;
    if ((wait.revents & ~POLLOUT) != 0) party->ready |= POLLIN;
    if ((wait.revents & ~POLLIN) != 0) party->ready |= POLLOUT;
    return;
  }
  struct epoll_event event;
  if (epoll_wait(party->epoll, &event, 1, -1) != 1) return;
  if ((event.events & ~(uint32_t)EPOLLOUT) != 0) party->ready |= POLLIN;
  if ((event.events & ~(uint32_t)EPOLLIN) != 0) party->ready |= POLLOUT;
}

static enum RoundEnd RunBoth(struct Party* party) {
  for (;;) {
    const bool sending = party->sends && !party->send_broken;
    const uint32_t useful = party->ready & (uint32_t)(POLLIN | (sending ? POLLOUT : 0));
    if (useful == 0) {
      Wait(party);
      continue;
    }
    if ((useful & POLLOUT) != 0 && RandomChance(&party->random, 60)) SendOnce(party);
    if (atomic_load(&party->page->end[party->side]) == kEndFault) return kEndFault;
    if ((useful & POLLIN) == 0) continue;
    const enum RoundEnd end = ReceiveOnce(party);
    if (end != kEndNone) return end;
    if (party->epoll < 0) party->ready = 0;
  }
}

static enum RoundEnd RunBlocking(struct Party* party) {
  for (;;) {
    if (party->sends) {
      SendOnce(party);
      if (party->send_broken) return kEndReset;
      if (atomic_load(&party->page->end[party->side]) == kEndFault) return kEndFault;
    } else {
      const enum RoundEnd end = ReceiveOnce(party);
      if (end != kEndNone) return end;
    }
  }
}

void RoundRun(uint64_t seed, const struct RoundPlan* plan, unsigned side, int fd, struct RoundPage* page) {
  struct Party party = {
      .plan = plan, .page = page, .random = RandomOf(seed ^ 0xdead, plan->id * 2 + side), .side = side, .fd = fd, .epoll = -1};
  party.sends = plan->both_send || plan->victim == side;
  party.tx_key = StreamKey(seed, plan->id, side);
  party.rx_key = StreamKey(seed, plan->id, 1 - side);
  // With one direction only, a blocking call can do it; the sender then notices nothing but errors.
  if (plan->both_send || RandomChance(&party.random, 50)) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    if (RandomChance(&party.random, 50)) {
      party.epoll = epoll_create1(EPOLL_CLOEXEC);
      struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET};
      epoll_ctl(party.epoll, EPOLL_CTL_ADD, fd, &event);
    }
    const enum RoundEnd end = RunBoth(&party);
    if (end != kEndFault) atomic_store(&page->end[side], end);
    if (party.epoll >= 0) close(party.epoll);
  } else {
    const enum RoundEnd end = RunBlocking(&party);
    if (end != kEndFault) atomic_store(&page->end[side], end);
  }
  close(fd);
}

const char* RoundJudge(const struct RoundPlan* plan, struct RoundPage* page) {
  static char text[512];
  const unsigned survivor = 1 - plan->victim;
  const uint32_t end = atomic_load(&page->end[survivor]);
  const uint64_t received = atomic_load(&page->received[survivor]);
  const uint64_t accepted = atomic_load(&page->accepted[plan->victim]);
  const uint64_t offered = atomic_load(&page->offered[plan->victim]);
  const char* wrong = NULL;
  if (end == kEndFault)
    wrong = page->fault;
  else if (received > offered)
    wrong = "more bytes than were offered";
  else if (end == kEndEof && received < accepted)
    wrong = "bytes that a send accepted are lost before an end of stream";
  else if (!plan->both_send && end != kEndEof)
    wrong = "a reset, though nothing was unread";
  else if (end == kEndNone)
    wrong = "no end";
  if (wrong == NULL) return NULL;
  snprintf(text, sizeof text, "%s: received %llu, accepted %llu, offered %llu, end %u, victim side %u, %s", wrong,
           (unsigned long long)received, (unsigned long long)accepted, (unsigned long long)offered, end, plan->victim,
           plan->both_send ? "both send" : "only the victim sends");
  return text;
}
