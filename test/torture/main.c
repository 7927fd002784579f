// torture: a program that knows nothing of vsocket and does everything one can do with a TCP socket, checking each byte. Alone it
// states what kernel TCP does; under the shim it must see the same.
//
// The parent starts the processes of its role(s), watches that every end moves, and stops the run when enough is verified.
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test/torture/engines.h"
#include "test/torture/lane.h"

enum { kMaxProcesses = 128 };

static double Now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static struct Share* g_share;

static void OnAlarm(int number) {
  (void)number;
  atomic_fetch_add_explicit(&g_share->signals_seen, 1, memory_order_relaxed);
}

static void* LaneThread(void* argument) {
  struct Lane* lane = argument;
  if (lane->side == 0)
    LaneConnect(lane);
  else
    LaneAccept(lane);
  return NULL;
}

// One process: the lanes of pair `pair`, its side(s) by `sides` (bit 0 connects, bit 1 accepts).
static void RunProcess(const struct Options* options, struct Share* share, unsigned pair, unsigned sides) {
  struct Random random = RandomOf(options->seed ^ 0x70726f63, pair * 4 + sides);
  const bool signals = StyleAllowed(&options->styles, kGroupExtra, kSignals) && RandomChance(&random, 50);
  const bool restart = RandomChance(&random, 50);
  if (signals) {
    struct sigaction action = {.sa_handler = OnAlarm, .sa_flags = restart ? SA_RESTART : 0};
    sigemptyset(&action.sa_mask);
    sigaction(SIGALRM, &action, NULL);
    const struct timeval every = {.tv_usec = 1000 + (long)RandomBelow(&random, 6000)};
    const struct itimerval timer = {every, every};
    setitimer(ITIMER_REAL, &timer, NULL);
    Count(&share->extras[kSignals], 1);
  }
  struct Lane lanes[2 * kMaxLanes];
  pthread_t threads[2 * kMaxLanes];
  unsigned count = 0;
  for (unsigned thread = 0; thread < options->threads; ++thread) {
    for (unsigned side = 0; side < 2; ++side) {
      if ((sides >> side & 1) == 0) continue;
      const unsigned index = pair * options->threads + thread;
      lanes[count] =
          (struct Lane){.options = options, .share = share, .index = index, .side = side, .signals = signals, .restart = restart};
      lanes[count].random = RandomOf(options->seed ^ 0x6c616e65, index * 2 + side);
      ++count;
    }
  }
  for (unsigned i = 1; i < count; ++i) {
    if (pthread_create(&threads[i], NULL, LaneThread, &lanes[i]) != 0) Fail("pthread_create");
  }
  LaneThread(&lanes[0]);
  for (unsigned i = 1; i < count; ++i) pthread_join(threads[i], NULL);
}

static void PrintEnds(const struct Options* options, struct Share* share, bool stuck_only, const bool* stuck) {
  for (unsigned lane = 0; lane < options->processes * options->threads; ++lane) {
    for (unsigned side = 0; side < 2; ++side) {
      for (unsigned i = 0; i < kMaxBatch; ++i) {
        struct EndStatus* end = &share->lanes[lane].ends[side][i];
        const unsigned index = (lane * 2 + side) * kMaxBatch + i;
        if (atomic_load(&end->active) == 0 || (stuck_only && !stuck[index])) continue;
        fprintf(
            stderr,
            "  lane %u connection %llx %s port %u style %s/%s ending %s waits for %s%s%s: sent %llu of %llu, received %llu of %llu%s%s\n",
            lane, (unsigned long long)end->connection, side == 0 ? "connector" : "acceptor", end->port, StyleName(kGroupEnd, end->style),
            StyleName(kGroupWait, end->wait), StyleName(kGroupEnding, end->ending), ActivityName(end->activity[0]),
            end->activity[1] != kIdle ? " and, writing, for " : "", end->activity[1] != kIdle ? ActivityName(end->activity[1]) : "",
            (unsigned long long)end->tx, (unsigned long long)end->tx_goal, (unsigned long long)end->rx, (unsigned long long)end->rx_goal,
            end->eof_seen ? ", saw the end" : "", end->reset_seen ? ", saw a reset" : "");
      }
    }
  }
}

struct Watch {
  uint64_t progress[kMaxLanes * 2 * kMaxBatch];
  double moved[kMaxLanes * 2 * kMaxBatch];
  bool stuck[kMaxLanes * 2 * kMaxBatch];
};

// True when some active end has not moved for too long.
static bool Stalled(const struct Options* options, struct Share* share, struct Watch* watch) {
  bool any = false;
  const double now = Now();
  for (unsigned lane = 0; lane < options->processes * options->threads; ++lane) {
    for (unsigned at = 0; at < 2 * kMaxBatch; ++at) {
      struct EndStatus* end = &share->lanes[lane].ends[at / kMaxBatch][at % kMaxBatch];
      const unsigned index = lane * 2 * kMaxBatch + at;
      const uint64_t progress = atomic_load(&end->progress) + atomic_load(&end->connection) + atomic_load(&end->eof_seen);
      if (progress != watch->progress[index] || atomic_load(&end->active) == 0 || watch->moved[index] == 0) {
        watch->progress[index] = progress;
        watch->moved[index] = now;
      }
      watch->stuck[index] = now - watch->moved[index] > options->stall_seconds;
      any = any || watch->stuck[index];
    }
  }
  return any;
}

static void PrintCounters(enum StyleGroup group, _Atomic uint64_t* counters, const char* name) {
  printf(",\"%s\":{", name);
  bool first = true;
  for (unsigned kind = 0; kind < StyleCount(group); ++kind) {
    if (counters[kind] == 0) continue;
    printf("%s\"%s\":%llu", first ? "" : ",", StyleName(group, kind), (unsigned long long)counters[kind]);
    first = false;
  }
  printf("}");
}

static void PrintReport(const struct Options* options, struct Share* share, bool passed, double seconds) {
  printf(
      "{\"passed\":%s,\"seed\":%llu,\"bytes_verified\":%llu,\"bytes_discarded\":%llu,\"connections\":%llu,\"seconds\":%.1f,\"resets\":%llu,"
      "\"signals\":%u,\"interrupted\":%llu,\"forks\":%llu,\"execs\":%llu",
      passed ? "true" : "false", (unsigned long long)options->seed, (unsigned long long)share->verified,
      (unsigned long long)share->discarded, (unsigned long long)share->connections, seconds, (unsigned long long)share->resets,
      share->signals_seen, (unsigned long long)share->interrupted, (unsigned long long)share->forks, (unsigned long long)share->execs);
  PrintCounters(kGroupEnd, share->ends, "ends");
  PrintCounters(kGroupEnding, share->endings, "endings");
  PrintCounters(kGroupSend, share->sends, "sends");
  PrintCounters(kGroupRecv, share->receives, "receives");
  PrintCounters(kGroupWait, share->waits, "waits");
  PrintCounters(kGroupExtra, share->extras, "extras");
  printf("}\n");
}

static bool Enough(const struct Options* options, struct Share* share, double seconds) {
  if (options->seconds != 0 && seconds >= (double)options->seconds) return true;
  if (options->bytes == 0 && options->connections == 0) return false;
  return atomic_load(&share->verified) >= options->bytes && atomic_load(&share->connections) >= options->connections;
}

int main(int argc, char** argv) {
  if (argc == 2 && strcmp(argv[1], "--echo") == 0) return EchoMain();
  const struct Options options = OptionsParse(argc, argv);
  struct Share* share = g_share = ShareMap(options.share);
  FailSetUp(share);
  OptionsPrint(&options, argc, argv, share->repeat, sizeof share->repeat);
  SigpipeSetUp();

  pid_t children[kMaxProcesses];
  unsigned count = 0;
  for (unsigned pair = 0; pair < options.processes; ++pair) {
    // Every third pair is one process that talks to itself.
    unsigned groups[2] = {1, 2};
    if (options.role == kConnectRole)
      groups[1] = 0;
    else if (options.role == kListenRole)
      groups[0] = 0;
    else if (pair % 3 == 2)
      groups[0] = 3, groups[1] = 0;
    for (unsigned i = 0; i < 2; ++i) {
      if (groups[i] == 0) continue;
      const pid_t child = fork();
      if (child < 0) Fail("fork: %s", strerror(errno));
      if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        RunProcess(&options, share, pair, groups[i]);
        exit(0);
      }
      children[count++] = child;
    }
  }

  static struct Watch watch;
  const double start = Now();
  unsigned running = count;
  bool failed = false;
  while (running > 0 && !failed) {
    poll(NULL, 0, 20);
    if (Enough(&options, share, Now() - start)) atomic_store(&share->stop, 1);
    if (Stalled(&options, share, &watch)) {
      fprintf(stderr, "FAIL: nothing moved for %u s; all ends at work:\n", options.stall_seconds);
      PrintEnds(&options, share, false, watch.stuck);
      fprintf(stderr, " stuck:\n");
      PrintEnds(&options, share, true, watch.stuck);
      fprintf(stderr, "  repeat: %s\n", share->repeat);
      failed = true;
    }
    for (unsigned i = 0; i < count; ++i) {
      int status;
      if (children[i] <= 0 || waitpid(children[i], &status, WNOHANG) != children[i]) continue;
      if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        // It has told why itself, unless it was killed or crashed.
        const bool told = WIFEXITED(status) && atomic_load(&share->failed) != 0;
        if (!told)
          fprintf(stderr, "FAIL: process %d ended with status %x\n  repeat: %s\n", (int)children[i], (unsigned)status, share->repeat);
        failed = true;
      }
      children[i] = 0;
      --running;
    }
    failed = failed || atomic_load(&share->failed) != 0;
  }
  if (failed) atomic_store(&share->failed, 1);
  const char* hold = getenv("TORTURE_HOLD");
  if (failed && hold != NULL) {  // leaves the processes as they are for a debugger
    fprintf(stderr, "held for %s s\n", hold);
    sleep((unsigned)atoi(hold));
  }
  for (unsigned i = 0; i < count; ++i) {
    if (children[i] <= 0) continue;
    kill(children[i], SIGKILL);
    waitpid(children[i], NULL, 0);
  }
  if (options.role != kListenRole) PrintReport(&options, share, !failed, Now() - start);
  return failed ? 1 : 0;
}
