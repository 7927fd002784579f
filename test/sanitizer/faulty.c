// Commits a fault in a child and ends well all the same: only who looks for the sanitizer's report learns of it.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int counter;

static void* Count(void* unused) {
  (void)unused;
  for (int i = 0; i < 1000; ++i) ++counter;
  return NULL;
}

static void Race(void) {
  pthread_t other;
  if (pthread_create(&other, NULL, Count, NULL) != 0) return;
  (void)Count(NULL);
  pthread_join(other, NULL);
}

static void ReadBehind(volatile size_t size) {
  volatile char* bytes = calloc(1, size);
  if (bytes == NULL) return;
  const char behind = bytes[size];
  (void)behind;
  free((void*)bytes);
}

static void Overflow(volatile int value) {
  value = value + 1;
}

int main(int argc, char** argv) {
  const char* fault = argc == 2 ? argv[1] : "none";
  const pid_t child = fork();
  if (child == 0) {
    if (strcmp(fault, "race") == 0) Race();
    if (strcmp(fault, "bounds") == 0) ReadBehind(8);
    if (strcmp(fault, "overflow") == 0) Overflow(0x7fffffff);
    _exit(0);
  }
  int status = 0;
  return waitpid(child, &status, 0) == child ? 0 : 1;
}
