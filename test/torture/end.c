#include "test/torture/end.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "test/torture/stream.h"

static _Thread_local volatile sig_atomic_t t_sigpipes;

static void OnSigpipe(int number) {
  (void)number;
  t_sigpipes = t_sigpipes + 1;
}

void SigpipeSetUp(void) {
  struct sigaction action = {.sa_handler = OnSigpipe, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  sigaction(SIGPIPE, &action, NULL);
}

unsigned SigpipeCount(void) {
  return (unsigned)t_sigpipes;
}

bool EndIsCloser(const struct End* end) {
  return end->plan->closer == end->side;
}

static bool PlanResets(const struct ConnectionPlan* plan) {
  return plan->ending == kReset || plan->ending == kAbort;
}

bool EndMayReset(const struct End* end) {
  return PlanResets(end->plan) && !EndIsCloser(end);
}

bool EndStopsEarly(const struct End* end) {
  return PlanResets(end->plan) && EndIsCloser(end);
}

struct EndText EndDescribe(const struct End* end) {
  struct EndText text;
  snprintf(text.text, sizeof text.text,
           "lane %u connection %llx %s (port %u) style %s ending %s%s fd %d sent %llu of %llu received %llu of %llu", end->lane->index,
           (unsigned long long)end->plan->connection, end->side == 0 ? "connector" : "acceptor", atomic_load(&end->status->port),
           StyleName(kGroupEnd, atomic_load(&end->status->style)), StyleName(kGroupEnding, end->plan->ending),
           EndIsCloser(end) ? " (closer)" : "", end->fd, (unsigned long long)end->tx, (unsigned long long)end->tx_goal,
           (unsigned long long)end->rx, (unsigned long long)end->rx_goal);
  return text;
}

static void SetTimeout(int fd, int option, unsigned milliseconds) {
  const struct timeval timeout = {.tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000};
  if (setsockopt(fd, SOL_SOCKET, option, &timeout, sizeof timeout) != 0) Fail("setsockopt timeout: %s", strerror(errno));
}

static void ChooseBlocking(struct End* end, enum EndStyle style) {
  struct Random* random = &end->random_rx;
  const struct Styles* styles = &end->lane->options->styles;
  const bool loop = style == kLoop;
  bool wanted = loop || (style != kForkTurns && style != kInetd && RandomChance(random, 30));
  const uint64_t flagged_sends = 1ULL << kSend | 1ULL << kSendto | 1ULL << kSendmsg | 1ULL << kSendmmsg;
  const uint64_t flagged_receives = 1ULL << kRecv | 1ULL << kRecvfrom | 1ULL << kRecvmsg | 1ULL << kRecvmmsg;
  if (wanted && !end->nonblocking && StyleAllowed(styles, kGroupExtra, kDontwait) && RandomChance(random, 30) &&
      (styles->allowed[kGroupSend] & flagged_sends) != 0 && (styles->allowed[kGroupRecv] & flagged_receives) != 0) {
    end->always_dontwait = true;
    return;
  }
  if (wanted == end->nonblocking) return;
  if (RandomChance(random, 50)) {
    int on = wanted;
    if (ioctl(end->fd, FIONBIO, &on) != 0) Fail("FIONBIO: %s", strerror(errno));
  } else {
    const int flags = fcntl(end->fd, F_GETFL);
    if (fcntl(end->fd, F_SETFL, wanted ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) != 0) Fail("F_SETFL: %s", strerror(errno));
  }
  end->nonblocking = wanted;
}

void EndOpen(struct End* end, struct Lane* lane, const struct BatchPlan* batch, unsigned index, int fd, bool nonblocking) {
  const struct ConnectionPlan* plan = &batch->connections[index];
  const unsigned side = lane->side;
  memset(end, 0, sizeof *end);
  end->lane = lane;
  end->plan = plan;
  end->side = side;
  end->fd = end->fd_tx = fd;
  end->nonblocking = nonblocking;
  end->status = &lane->share->lanes[lane->index].ends[side][index];
  end->tx_goal = plan->total[side];
  end->rx_goal = plan->total[1 - side] - (EndStopsEarly(end) ? plan->unread : 0);
  // An echo's bytes are those of the other direction.
  const unsigned content_in = plan->echo_side == (int)(1 - side) ? side : 1 - side;
  const unsigned content_out = plan->echo_side == (int)side ? 1 - side : side;
  end->rx_key = StreamKey(lane->options->seed, plan->connection, content_in);
  end->tx_key = StreamKey(lane->options->seed, plan->connection, content_out);
  end->random_rx = RandomOf(lane->options->seed ^ 0x7278, plan->connection * 2 + side);
  end->random_tx = RandomOf(lane->options->seed ^ 0x7478, plan->connection * 2 + side);
  end->in = malloc(kMaxIo);
  end->out = malloc(kMaxIo);
  if (end->in == NULL || end->out == NULL) Fail("malloc");
  ChooseBlocking(end, batch->style[side]);
  struct Random* random = &end->random_rx;
  if (StyleAllowed(&lane->options->styles, kGroupExtra, kTimeouts) && batch->style[side] != kInetd) {
    end->receive_timeout = RandomChance(random, 20);
    end->send_timeout = RandomChance(random, 20);
    if (end->receive_timeout) SetTimeout(fd, SO_RCVTIMEO, 5 + (unsigned)RandomBelow(random, 100));
    if (end->send_timeout) SetTimeout(fd, SO_SNDTIMEO, 5 + (unsigned)RandomBelow(random, 100));
  }
  const int no_delay = RandomChance(random, 70);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &no_delay, sizeof no_delay);
  if (plan->small_buffers) {
    // A receive buffer below loopback's MTU stalls kernel TCP for its timers; that is not what is looked for here.
    const bool sending = RandomChance(random, 50);
    const int size = (sending ? 16 << 10 : 128 << 10) << RandomBelow(random, 3);
    setsockopt(fd, SOL_SOCKET, sending ? SO_SNDBUF : SO_RCVBUF, &size, sizeof size);
  }
  struct EndStatus* status = end->status;
  atomic_store(&status->connection, plan->connection);
  atomic_store(&status->tx, 0);
  atomic_store(&status->rx, 0);
  atomic_store(&status->tx_goal, end->tx_goal);
  atomic_store(&status->rx_goal, end->rx_goal);
  atomic_store(&status->style, batch->style[side]);
  atomic_store(&status->ending, plan->ending);
  atomic_store(&status->reset_seen, 0);
  atomic_store(&status->eof_seen, 0);
  atomic_store(&status->activity[1], kIdle);
  atomic_store(&status->active, 1);
}

// The kernel tells of a reset once, and a call that has moved some bytes before it keeps that to itself (sendfile(2), splice(2)). But a
// connection that was reset takes no more bytes, and one that the peer has closed takes one more.
static bool IsReset(const struct End* end) {
  return end->fd >= 0 && send(end->fd, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EPIPE;
}

void EndClose(struct End* end) {
  const uint64_t rx = atomic_load(&end->status->rx);
  const bool reset_due = EndMayReset(end) && rx < end->plan->total[1 - end->side];
  if (reset_due && atomic_load(&end->status->reset_seen) == 0 && !IsReset(end)) {
    Fail("end of stream where a reset was due; %s", EndDescribe(end).text);
  }
  if (end->fd >= 0 && end->plan->ending == kAbort && EndIsCloser(end)) {
    const struct linger linger = {.l_onoff = 1, .l_linger = 0};
    if (setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) != 0) Fail("SO_LINGER: %s", strerror(errno));
  }
  if (end->fd >= 0 && close(end->fd) != 0) Fail("close: %s; %s", strerror(errno), EndDescribe(end).text);
  if (end->fd_tx != end->fd && close(end->fd_tx) != 0) Fail("close: %s; %s", strerror(errno), EndDescribe(end).text);
  end->fd = end->fd_tx = -1;
  free(end->in);
  free(end->out);
  EndActivity(end, false, kIdle);
  atomic_store(&end->status->active, 0);
}

void EndDup(struct End* end) {
  const bool one = end->fd_tx == end->fd;
  int fd = -1;
  switch (RandomBelow(&end->random_rx, 4)) {
    case 0:
      fd = dup(end->fd);
      break;
    case 1:
      fd = fcntl(end->fd, F_DUPFD_CLOEXEC, 3);
      break;
    case 2: {  // the same number again, through a detour
      const int detour = dup(end->fd);
      fd = dup2(detour, end->fd);
      close(detour);
      if (fd != end->fd) Fail("dup2: %s", strerror(errno));
      break;
    }
    default: {
      const int number = fcntl(end->fd, F_DUPFD, 3);
      fd = dup3(end->fd, number, O_CLOEXEC);
    }
  }
  if (fd < 0) Fail("dup: %s", strerror(errno));
  if (fd != end->fd) close(end->fd);
  end->fd = fd;
  if (one) end->fd_tx = fd;
  Count(&end->lane->share->extras[kDup], 1);
}

void EndShutdown(struct End* end) {
  if (end->write_closed) return;
  end->write_closed = true;
  if (shutdown(end->fd_tx, SHUT_WR) != 0 && !(errno == ENOTCONN && EndMayReset(end))) {
    Fail("shutdown: %s; %s", strerror(errno), EndDescribe(end).text);
  }
  atomic_fetch_add(&end->status->progress, 1);
}

long EndPeekUnread(struct End* end) {
  const ssize_t n = recv(end->fd, end->in, 1, MSG_PEEK | MSG_DONTWAIT);
  if (n < 0) return EndError(end, "recv(MSG_PEEK)", false, false, true);
  if (n == 0) Fail("end of stream where bytes are missing; %s", EndDescribe(end).text);
  return 1;
}

bool EndMayStopShort(const struct End* end, bool sending) {
  const uint64_t forks = 1ULL << kForkWriter | 1ULL << kTakeover | 1ULL << kForkTurns | 1ULL << kInetd;
  const bool timeout = sending ? end->send_timeout : end->receive_timeout;
  return end->nonblocking || timeout || end->lane->signals || EndMayReset(end) ||
         (end->lane->options->styles.allowed[kGroupEnd] & forks) != 0;
}

long EndError(struct End* end, const char* call, bool sending, bool may_block, bool restartable) {
  const int error = errno;
  const bool timeout = sending ? end->send_timeout : end->receive_timeout;
  const bool blocks = may_block && !end->nonblocking;
  if (error == EAGAIN || error == EWOULDBLOCK) {
    if (blocks && !timeout) Fail("%s: EAGAIN from a blocking call; %s", call, EndDescribe(end).text);
    return kIoAgain;
  }
  if (error == EINTR) {
    // With a timeout set, a SIGCHLD that nobody handles can end the call as well: it counts as pending when it arrives while the main
    // thread is in fork or posix_spawn with all signals blocked.
    if (!end->lane->signals && !timeout && restartable) Fail("%s: EINTR without a signal; %s", call, EndDescribe(end).text);
    if (end->lane->restart && restartable && !timeout) Fail("%s: EINTR in spite of SA_RESTART; %s", call, EndDescribe(end).text);
    Count(&end->lane->share->interrupted, 1);
    return kIoInterrupted;
  }
  if ((error == ECONNRESET || (error == EPIPE && sending)) && EndMayReset(end)) {
    if (atomic_exchange(&end->status->reset_seen, 1) == 0) Count(&end->lane->share->resets, 1);
    atomic_store(&end->status->eof_seen, 1);
    FutexWake(&end->status->eof_seen);
    return kIoReset;
  }
  Fail("%s: %s; %s", call, strerror(error), EndDescribe(end).text);
}

void EndSent(struct End* end, uint64_t n) {
  end->tx += n;
  atomic_store_explicit(&end->status->tx, end->tx, memory_order_relaxed);
  atomic_fetch_add_explicit(&end->status->progress, 1, memory_order_relaxed);
  Count(&end->lane->share->sent, n);
}

// The first bytes, as many as fit.
static void HexSample(char* hex, size_t room, const unsigned char* bytes, size_t n) {
  hex[0] = '\0';
  for (size_t i = 0; i < n && 2 * i + 3 <= room; ++i) snprintf(hex + 2 * i, room - 2 * i, "%02x", bytes[i]);
}

void EndReceived(struct End* end, const void* data, uint64_t n, const char* call) {
  const uint64_t total = end->plan->total[1 - end->side];
  const size_t right = StreamCheck(end->rx_key, end->rx, data, n);
  if (n > total - end->rx) {
    char hex[64];
    HexSample(hex, sizeof hex, (const unsigned char*)data + right, n - right);
    Fail("%s: %llu bytes, more than the peer sent (%zu of them right, then %s); %s", call, (unsigned long long)n, right, hex,
         EndDescribe(end).text);
  }
  if (right != n) {
    const unsigned char* wrong = (const unsigned char*)data + right;
    const size_t sample = n - right < 16 ? n - right : 16;
    const int64_t found = sample < 8 ? -1 : StreamFind(end->rx_key, end->rx + right, 8 << 20, wrong, sample);
    char hex[64];
    HexSample(hex, sizeof hex, wrong, sample);
    Fail("%s: wrong byte at position %llu (%zu of %llu bytes were right): %s, which belongs to position %lld of this stream; %s", call,
         (unsigned long long)(end->rx + right), right, (unsigned long long)n, hex, (long long)found, EndDescribe(end).text);
  }
  end->rx += n;
  atomic_store_explicit(&end->status->rx, end->rx, memory_order_relaxed);
  atomic_fetch_add_explicit(&end->status->progress, 1, memory_order_relaxed);
  Count(&end->lane->share->verified, n);
}

void EndDiscarded(struct End* end, uint64_t n) {
  const uint64_t total = end->plan->total[1 - end->side];
  if (n > total - end->rx) Fail("MSG_TRUNC: %llu bytes, more than the peer sent; %s", (unsigned long long)n, EndDescribe(end).text);
  end->rx += n;
  atomic_store_explicit(&end->status->rx, end->rx, memory_order_relaxed);
  atomic_fetch_add_explicit(&end->status->progress, 1, memory_order_relaxed);
  Count(&end->lane->share->discarded, n);
}

void EndActivity(struct End* end, bool writer, enum Activity activity) {
  atomic_store_explicit(&end->status->activity[writer], activity, memory_order_relaxed);
}
