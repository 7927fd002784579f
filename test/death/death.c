// death: kills one of two connected processes at a random point, again and again; the other must receive every byte that a send of the
// dead one accepted, then see the end: what kernel TCP does. Knows nothing of vsocket.
//
// A slot is a manager process. It forks both parties of a round ahead of time, lets them go through a futex, watches what the victim's
// sends have accepted in a shared page, kills, and judges what the survivor saw. A survivor that sees no end within 10 s fails the run.
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test/death/futex.h"
#include "test/death/round.h"

enum { kMaxSlots = 32, kPatienceSeconds = 10, kAhead = 2 };

struct Options {
  uint64_t seed, rounds, seconds;
  unsigned slots;
  const char* address;
};

struct Totals {
  _Atomic uint64_t kills, bytes, ends_eof, ends_reset;
  _Atomic uint32_t failed, stop;
  _Atomic uint32_t news;  // a futex: counts the rounds that are over, and what has failed
};

static struct Options g_options = {.rounds = 1000, .slots = 3, .address = "127.0.0.1"};
static struct Totals* g_totals;

// False at the deadline.
static bool WaitFor(_Atomic uint32_t* word, uint32_t wanted, double deadline) {
  for (uint32_t seen; (seen = atomic_load(word)) != wanted;) {
    if (Now() >= deadline) return false;
    FutexWait(word, seen, deadline);
  }
  return true;
}

static void TellMain(void) {
  atomic_fetch_add(&g_totals->news, 1);
  FutexWake(&g_totals->news);
}

static _Noreturn void Die(const char* what) {
  fprintf(stderr, "FAIL death: %s: %s\n", what, strerror(errno));
  atomic_store(&g_totals->failed, 1);
  TellMain();
  exit(1);
}

static int Listen(struct sockaddr_in* address) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  *address = (struct sockaddr_in){.sin_family = AF_INET};
  if (inet_pton(AF_INET, g_options.address, &address->sin_addr) != 1) Die("--address");
  socklen_t length = sizeof *address;
  if (fd < 0 || bind(fd, (struct sockaddr*)address, length) != 0 || listen(fd, 8) != 0) Die("listen");
  getsockname(fd, (struct sockaddr*)address, &length);
  return fd;
}

// One party: waits for the start, connects or accepts, runs to the end.
static _Noreturn void Party(const struct RoundPlan* plan, unsigned side, int listener, const struct sockaddr_in* address,
                            struct RoundPage* page, uint32_t number) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  WaitFor(&page->started, number, Now() + 3600);
  int fd;
  if (side == 0) {
    close(listener);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr*)address, sizeof *address) != 0) Die("connect");
  } else {
    fd = accept(listener, NULL, NULL);
    if (fd < 0) Die("accept");
    close(listener);
  }
  RoundRun(g_options.seed, plan, side, fd, page);
  if (side != plan->victim) {
    atomic_store(&page->finished, number);
    FutexWake(&page->finished);
  }
  exit(0);  // not _exit: what a library does at the end of a program belongs to the test
}

struct Prepared {
  struct RoundPlan plan;
  struct RoundPage* page;
  int listener;
  struct sockaddr_in address;
  pid_t party[2];
};

static void Prepare(struct Prepared* round, unsigned slot, uint64_t number) {
  round->plan = RoundPlanOf(g_options.seed, slot, number);
  memset(round->page, 0, sizeof *round->page);
  for (unsigned side = 0; side < 2; ++side) {
    round->party[side] = fork();
    if (round->party[side] < 0) Die("fork");
    if (round->party[side] == 0) Party(&round->plan, side, round->listener, &round->address, round->page, (uint32_t)number + 1);
  }
}

static void AwaitKillTime(const struct Prepared* round, uint64_t number) {
  // The victim may be unable to get that far: its peer's pace, its own end. The clock bounds the wait.
  if (round->plan.kill_after > 0) WaitFor(&round->page->kill_due, (uint32_t)number + 1, Now() + 0.2);
  // Not a wait for anything: the random moment of the kill is what the test is about.
  const struct timespec delay = {.tv_nsec = (long)round->plan.kill_delay_us * 1000};
  if (delay.tv_nsec > 0) nanosleep(&delay, NULL);
}

static void Play(struct Prepared* round, unsigned slot, uint64_t number) {
  struct RoundPage* page = round->page;
  const unsigned victim = round->plan.victim;
  atomic_store(&page->started, (uint32_t)number + 1);
  FutexWake(&page->started);
  AwaitKillTime(round, number);
  kill(round->party[victim], SIGKILL);
  int status;
  waitpid(round->party[victim], &status, 0);
  const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  const char* wrong = NULL;
  // A victim killed before it connected leaves an acceptor that nobody calls.
  const bool connected = atomic_load(&page->offered[victim]) > 0 || atomic_load(&page->received[1 - victim]) > 0;
  if (!WaitFor(&page->finished, (uint32_t)number + 1, Now() + (connected ? kPatienceSeconds : 0.3))) {
    if (connected) wrong = "the survivor saw no end within 10 s";
    // For a debugger, when a person asks for it.
    if (getenv("DEATH_HOLD") != NULL && wrong != NULL) sleep((unsigned)atoi(getenv("DEATH_HOLD")));
    kill(round->party[1 - victim], SIGKILL);
  }
  waitpid(round->party[1 - victim], &status, 0);
  if (wrong == NULL && WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) wrong = "the survivor crashed";
  if (wrong == NULL && connected) wrong = RoundJudge(&round->plan, page);
  if (wrong != NULL) {
    fprintf(stderr,
            "FAIL death: slot %u round %llu: %s [received %llu accepted %llu]\n  repeat: death --seed %llu --slots %u --address %s\n", slot,
            (unsigned long long)number, wrong, (unsigned long long)page->received[1 - victim], (unsigned long long)page->accepted[victim],
            (unsigned long long)g_options.seed, g_options.slots, g_options.address);
    atomic_store(&g_totals->failed, 1);
    return;
  }
  if (!killed || !connected) return;
  atomic_fetch_add(&g_totals->kills, 1);
  atomic_fetch_add(&g_totals->bytes, atomic_load(&page->received[1 - victim]));
  atomic_fetch_add(atomic_load(&page->end[1 - victim]) == kEndEof ? &g_totals->ends_eof : &g_totals->ends_reset, 1);
}

static void Manage(unsigned slot) {
  struct Prepared rounds[kAhead];
  for (unsigned i = 0; i < kAhead; ++i) {
    rounds[i].page = mmap(NULL, sizeof(struct RoundPage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (rounds[i].page == MAP_FAILED) Die("mmap");
    rounds[i].listener = Listen(&rounds[i].address);
    Prepare(&rounds[i], slot, i);
  }
  for (uint64_t number = 0; atomic_load(&g_totals->stop) == 0 && atomic_load(&g_totals->failed) == 0; ++number) {
    struct Prepared* round = &rounds[number % kAhead];
    Play(round, slot, number);
    TellMain();
    // A victim that died between connect and accept leaves its connection in the queue: a fresh listener forgets it.
    close(round->listener);
    round->listener = Listen(&round->address);
    Prepare(round, slot, number + kAhead);
  }
  for (unsigned i = 0; i < kAhead; ++i) {
    for (unsigned side = 0; side < 2; ++side) {
      kill(rounds[i].party[side], SIGKILL);
      waitpid(rounds[i].party[side], NULL, 0);
    }
  }
}

static void Parse(int argc, char** argv) {
  static const struct option kLong[] = {{"seed", 1, NULL, 's'},  {"rounds", 1, NULL, 'r'},  {"seconds", 1, NULL, 'S'},
                                        {"slots", 1, NULL, 'l'}, {"address", 1, NULL, 'a'}, {NULL, 0, NULL, 0}};
  g_options.seed = (uint64_t)(Now() * 1e6) % 1000000007;
  for (int choice; (choice = getopt_long(argc, argv, "", kLong, NULL)) != -1;) {
    switch (choice) {
      case 's':
        g_options.seed = strtoull(optarg, NULL, 0);
        break;
      case 'r':
        g_options.rounds = strtoull(optarg, NULL, 0);
        break;
      case 'S':
        g_options.seconds = strtoull(optarg, NULL, 0);
        break;
      case 'l':
        g_options.slots = (unsigned)strtoul(optarg, NULL, 0);
        break;
      case 'a':
        g_options.address = optarg;
        break;
      default:
        fprintf(stderr, "usage: death [--seed N] [--rounds N | --seconds N] [--slots N] [--address IPv4]\n");
        exit(2);
    }
  }
  if (g_options.slots < 1 || g_options.slots > kMaxSlots) g_options.slots = 3;
}

static bool Over(double start) {
  if (atomic_load(&g_totals->failed) != 0) return true;
  return g_options.seconds != 0 ? Now() - start >= (double)g_options.seconds : atomic_load(&g_totals->kills) >= g_options.rounds;
}

int main(int argc, char** argv) {
  Parse(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  g_totals = mmap(NULL, sizeof *g_totals, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (g_totals == MAP_FAILED) return 2;
  pid_t managers[kMaxSlots];
  for (unsigned slot = 0; slot < g_options.slots; ++slot) {
    managers[slot] = fork();
    if (managers[slot] == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      Manage(slot);
      exit(0);
    }
  }
  const double start = Now();
  const double end = g_options.seconds != 0 ? start + (double)g_options.seconds : start + 1e6;
  for (uint32_t seen; seen = atomic_load(&g_totals->news), !Over(start);) FutexWait(&g_totals->news, seen, end);
  atomic_store(&g_totals->stop, 1);
  for (unsigned slot = 0; slot < g_options.slots; ++slot) waitpid(managers[slot], NULL, 0);
  const bool passed = atomic_load(&g_totals->failed) == 0;
  printf(
      "{\"passed\":%s,\"seed\":%llu,\"kills_survived\":%llu,\"bytes_verified\":%llu,\"ends_of_stream\":%llu,\"resets\":%llu,\"seconds\":%."
      "1f}\n",
      passed ? "true" : "false", (unsigned long long)g_options.seed, (unsigned long long)g_totals->kills,
      (unsigned long long)g_totals->bytes, (unsigned long long)g_totals->ends_eof, (unsigned long long)g_totals->ends_reset, Now() - start);
  return passed ? 0 : 1;
}
