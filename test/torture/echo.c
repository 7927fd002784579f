#include <errno.h>
#include <unistd.h>

#include "test/torture/engines.h"

int EchoMain(void) {
  static char buffer[65536];
  for (;;) {
    const ssize_t n = read(STDIN_FILENO, buffer, sizeof buffer);
    if (n == 0) return 0;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return 3;
    for (ssize_t at = 0; at < n;) {
      const ssize_t written = write(STDOUT_FILENO, buffer + at, (size_t)(n - at));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return 4;
      at += written;
    }
  }
}
