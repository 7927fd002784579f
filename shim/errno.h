// The boundary between our results (-errno) and the program's (errno, -1).
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <cerrno>
#include <csignal>

#include "shim/sys.h"

namespace vsocket::shim {

inline ssize_t ToProgram(ssize_t result) {
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

// For sends: EPIPE comes with SIGPIPE unless the call forbids it, raised at this thread as the kernel does (send(2)).
inline ssize_t SentToProgram(ssize_t result, int flags) {
  if (result == -EPIPE && !(flags & MSG_NOSIGNAL)) Sys(SYS_tgkill, Sys(SYS_getpid), Sys(SYS_gettid), SIGPIPE);
  return ToProgram(result);
}

}  // namespace vsocket::shim
