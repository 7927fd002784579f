#include "test/torture/share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// Of linux/futex.h, which musl does not bring.
enum { kFutexWait = 0, kFutexWake = 1 };

static struct Share* g_share;

struct Share* ShareMap(const char* path) {
  int fd = -1;
  int flags = MAP_SHARED | MAP_ANONYMOUS;
  if (path != NULL) {
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(struct Share)) != 0) {
      perror(path);
      exit(2);
    }
    flags = MAP_SHARED;
  }
  void* memory = mmap(NULL, sizeof(struct Share), PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, 0);
  if (memory == MAP_FAILED) {
    perror("mmap");
    exit(2);
  }
  if (fd >= 0) close(fd);
  return memory;
}

void FailSetUp(struct Share* share) {
  g_share = share;
}

// snprintf and write only: a failure may be met in the child of a process with threads.
void Fail(const char* format, ...) {
  char text[3072];
  // The first failure is the one to look at; what follows it is mostly its echo.
  const bool first = g_share == NULL || atomic_exchange(&g_share->failed, 1) == 0;
  int used = snprintf(text, sizeof text, "%s pid %d: ", first ? "FAIL" : "afterwards", (int)getpid());
  va_list arguments;
  va_start(arguments, format);
  used += vsnprintf(text + used, sizeof text - (size_t)used - 1200, format, arguments);
  va_end(arguments);
  if (used > (int)sizeof text - 1200) used = (int)sizeof text - 1200;
  used += snprintf(text + used, sizeof text - (size_t)used, "\n");
  if (first && g_share != NULL) used += snprintf(text + used, sizeof text - (size_t)used, "  repeat: %s\n", g_share->repeat);
  ssize_t ignored = write(STDERR_FILENO, text, (size_t)used);
  (void)ignored;
  const char* hold = getenv("TORTURE_HOLD");
  // Leaves the connection as it is for a debugger.
  for (unsigned left = first && hold != NULL ? (unsigned)atoi(hold) : 0; left > 0; left = sleep(left)) {
  }
  _exit(1);
}

void FutexWait(_Atomic uint32_t* word, uint32_t seen) {
  syscall(SYS_futex, word, kFutexWait, seen, NULL, NULL, 0);
}

void FutexWake(_Atomic uint32_t* word) {
  syscall(SYS_futex, word, kFutexWake, 1 << 30, NULL, NULL, 0);
}

const char* ActivityName(uint32_t activity) {
  static const char* const kNames[kActivities] = {
      "idle",          "connect", "accept",       "receive", "send", "readable", "writable", "readable or writable",
      "end of stream", "reset",   "unread bytes", "child",   "turn"};
  return activity < kActivities ? kNames[activity] : "?";
}
