// A word in shared memory that processes wait on: futex(2), without FUTEX_PRIVATE_FLAG because the word is shared.
// Thread safety: any thread of any process that has the word mapped.
#pragma once

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// Seconds of CLOCK_MONOTONIC.
static inline double Now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline void FutexWake(_Atomic uint32_t* word) {
  syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

// Until the word is no longer `seen`, a wake, a signal or `deadline` (of Now()); callers look at the word again.
static inline void FutexWait(_Atomic uint32_t* word, uint32_t seen, double deadline) {
  const double left = deadline - Now();
  if (left <= 0) return;
  const struct timespec limit = {.tv_sec = (time_t)left, .tv_nsec = (long)((left - (double)(time_t)left) * 1e9)};
  syscall(SYS_futex, word, FUTEX_WAIT, seen, &limit, NULL, 0);
}
