// The styles that run one connection by blocking steps: turns, two threads, and the ones that fork.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/torture/engines.h"
#include "test/torture/waiter.h"

bool SendAll(struct End* end, uint64_t n) {
  while (n > 0) {
    const long moved = SendSome(end, n);
    if (moved == kIoReset) return false;
    if (moved > 0) n -= (uint64_t)moved;
    if (moved == kIoAgain) WaitFor(end, &end->random_tx, end->fd_tx, POLLOUT);
  }
  return true;
}

bool RecvAll(struct End* end, uint64_t n) {
  while (n > 0) {
    const long moved = RecvSome(end, n);
    if (moved == kIoReset || moved == kIoEof) return false;
    if (moved > 0) n -= (uint64_t)moved;
    if (moved == kIoAgain) WaitFor(end, &end->random_rx, end->fd, POLLIN);
  }
  return true;
}

static bool EndsByShutdown(const struct End* end) {
  return end->plan->ending == kShutdown || end->plan->ending == kHalfClose;
}

void WriteToGoal(struct End* end, bool writer) {
  const uint64_t first = SendLimitBeforeEof(end->plan, end->side);
  EndActivity(end, writer, kSending);
  if (end->tx < first && !SendAll(end, first - end->tx)) return;
  if (first < end->tx_goal) {
    EndActivity(end, writer, kAwaitingEof);
    while (atomic_load(&end->status->eof_seen) == 0) FutexWait(&end->status->eof_seen, 0);
    EndActivity(end, writer, kSending);
    if (!SendAll(end, end->tx_goal - end->tx)) return;
  }
  if (EndsByShutdown(end)) EndShutdown(end);
  EndActivity(end, writer, kIdle);
}

void ReadToEnd(struct End* end) {
  EndActivity(end, false, kReceiving);
  if (end->rx < end->rx_goal && !RecvAll(end, end->rx_goal - end->rx)) return;
  if (end->plan->ending == kClose && EndIsCloser(end)) return;
  if (EndStopsEarly(end)) {
    if (end->plan->ending == kAbort) return;
    EndActivity(end, false, kAwaitingUnread);
    while (EndPeekUnread(end) == kIoAgain) WaitFor(end, &end->random_rx, end->fd, POLLIN);
    return;
  }
  EndActivity(end, false, EndMayReset(end) ? kAwaitingReset : kAwaitingEof);
  for (;;) {
    const long n = RecvSome(end, 0);
    if (n == kIoReset || n == kIoEof) return;
    if (n == kIoAgain) WaitFor(end, &end->random_rx, end->fd, POLLIN);
  }
}

// One segment of the schedule. False when the connection is over for this end (reset, or its early stop).
static bool RunSegment(struct End* end, unsigned direction, uint64_t size) {
  if (direction == end->side) {
    EndActivity(end, false, kSending);
    if (!SendAll(end, size)) return false;
    if (end->tx == end->tx_goal && EndsByShutdown(end)) EndShutdown(end);
    return true;
  }
  EndActivity(end, false, kReceiving);
  const uint64_t take = end->rx + size > end->rx_goal ? end->rx_goal - end->rx : size;
  return RecvAll(end, take) && take == size;
}

static void FinishTurns(struct End* end) {
  if (EndsByShutdown(end)) EndShutdown(end);
  if (atomic_load(&end->status->eof_seen) == 0) ReadToEnd(end);
}

void RunTurns(struct End* end) {
  struct Segments segments = SegmentsOf(end->lane->options->seed, end->plan);
  const bool dups = StyleAllowed(&end->lane->options->styles, kGroupExtra, kDup);
  unsigned direction;
  uint64_t size;
  if (end->tx_goal == 0 && EndsByShutdown(end)) EndShutdown(end);
  while (SegmentNext(&segments, end->plan, &direction, &size)) {
    if (!RunSegment(end, direction, size)) break;
    if (dups && RandomBelow(&end->random_rx, 100) == 0) EndDup(end);
  }
  FinishTurns(end);
  EndClose(end);
}

// Copies of other lanes' sockets would hold back their ends of stream until this child is gone, and this child may be waiting for
// theirs in turn.
static void CloseOtherConnections(const struct End* end) {
  for (int fd = 3; fd < 256; ++fd) {
    int domain;
    socklen_t length = sizeof domain;
    if (fd == end->fd || fd == end->fd_tx || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0) continue;
    if (domain == AF_INET || domain == AF_INET6) close(fd);
  }
}

int ForkChild(struct End* end) {
  struct Lane* lane = end->lane;
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) Fail("fork: %s", strerror(errno));
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    lane->signals = false;  // timers are not inherited
    CloseOtherConnections(end);
  } else {
    Count(&lane->share->forks, 1);
  }
  return (int)child;
}

void AwaitChild(struct End* end, int child) {
  EndActivity(end, false, kAwaitingChild);
  int status;
  pid_t done;
  do {
    done = waitpid(child, &status, 0);
  } while (done < 0 && errno == EINTR);
  if (done != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
    Fail("child %d ended with status %x; %s", child, (unsigned)status, EndDescribe(end).text);
}

void RunTakeover(struct End* end) {
  struct Segments segments = SegmentsOf(end->lane->options->seed, end->plan);
  uint64_t before = RandomLog(&end->random_rx, 40);
  unsigned direction;
  uint64_t size;
  if (end->tx_goal == 0 && EndsByShutdown(end)) EndShutdown(end);
  bool more = true;
  for (; more && before > 0; --before) {
    more = SegmentNext(&segments, end->plan, &direction, &size);
    if (more && !RunSegment(end, direction, size)) {
      FinishTurns(end);
      EndClose(end);
      return;
    }
  }
  // The parent's copy goes before the child's, or after: a socket lives as long as any copy does.
  const bool close_early = RandomChance(&end->random_rx, 50);
  const int child = ForkChild(end);
  if (child == 0) {
    while (more && SegmentNext(&segments, end->plan, &direction, &size)) {
      if (!RunSegment(end, direction, size)) break;
    }
    FinishTurns(end);
    if (end->plan->ending == kAbort && EndIsCloser(end)) EndClose(end);
    _exit(0);
  }
  if (close_early || (end->plan->closer == end->side && end->plan->ending != kShutdown && end->plan->ending != kHalfClose)) {
    close(end->fd);  // the peer waits for the last copy to go
    end->fd = end->fd_tx = -1;
  }
  AwaitChild(end, child);
  EndClose(end);
}

void RunForkTurns(struct End* end) {
  int turns[2][2];  // [i]: the pipe on which process i (0 parent, 1 child) is handed its turn
  if (pipe(turns[0]) != 0 || pipe(turns[1]) != 0) Fail("pipe: %s", strerror(errno));
  struct Segments segments = SegmentsOf(end->lane->options->seed, end->plan);
  const int child = ForkChild(end);
  const unsigned self = child == 0;
  if (end->tx_goal == 0 && EndsByShutdown(end) && self == 0) EndShutdown(end);
  unsigned direction;
  uint64_t size;
  char token = 'g';
  for (unsigned turn = 0; SegmentNext(&segments, end->plan, &direction, &size); ++turn) {
    if (turn % 2 != self) {
      // The other process moves these; what it moved is known, unless it says that the connection is over.
      if (direction == end->side)
        end->tx += size;
      else
        end->rx += size;
      continue;
    }
    if (turn > 0) {
      EndActivity(end, false, kAwaitingTurn);
      while (read(turns[self][0], &token, 1) < 0 && errno == EINTR) {
      }
    }
    if (token == 'r') break;
    if (!RunSegment(end, direction, size)) token = 'r';
    if (write(turns[1 - self][1], &token, 1) != 1) Fail("write to a pipe: %s", strerror(errno));
    if (token == 'r') break;
  }
  if (child == 0) _exit(0);
  for (unsigned i = 0; i < 2; ++i) {
    close(turns[i][1]);
    if (i == 1) close(turns[i][0]);
  }
  AwaitChild(end, child);
  close(turns[0][0]);
  end->write_closed = end->write_closed || (end->tx_goal > 0 && EndsByShutdown(end));  // by whoever sent the last byte
  FinishTurns(end);
  EndClose(end);
}

static void* Writer(void* argument) {
  WriteToGoal(argument, true);
  return NULL;
}

void RunThreads(struct End* end) {
  if (StyleAllowed(&end->lane->options->styles, kGroupExtra, kDup) && RandomChance(&end->random_rx, 50)) {
    end->fd_tx = dup(end->fd);
    if (end->fd_tx < 0) Fail("dup: %s", strerror(errno));
  }
  pthread_t writer;
  if (pthread_create(&writer, NULL, Writer, end) != 0) Fail("pthread_create");
  ReadToEnd(end);
  pthread_join(writer, NULL);
  EndClose(end);
}

void RunForkWriter(struct End* end) {
  const int child = ForkChild(end);
  if (child == 0) {
    WriteToGoal(end, true);
    _exit(0);
  }
  ReadToEnd(end);
  AwaitChild(end, child);
  EndClose(end);
}
