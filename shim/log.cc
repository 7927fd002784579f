#include "shim/log.h"

#include <fcntl.h>

#include <cstdlib>
#include <cstring>

#include "shim/own_fds.h"
#include "shim/sys.h"
#include "shim/text.h"

namespace vsocket::shim {

bool log_enabled = false;

namespace {
int log_fd = 2;
}

void LoadLog() {
  const char* wish = std::getenv("VSOCKET_LOG");
  if (wish == nullptr || *wish == '\0' || std::strcmp(wish, "off") == 0) return;
  log_enabled = true;
  const char* colon = std::strchr(wish, ':');
  if (colon == nullptr) return;
  const long fd = Sys(SYS_openat, AT_FDCWD, colon + 1, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) {
    log_enabled = false;
    return;
  }
  log_fd = KeepOwnFd(static_cast<int>(fd));
}

void LogText(const char* format, int number, const char* text) {
  Line<512> line;
  line.Add("vsocket[").Add(static_cast<std::uint64_t>(Sys(SYS_getpid))).Add("] ");
  char one[2] = {};
  for (; *format != '\0'; ++format) {
    if (*format != '%') {
      one[0] = *format;
      line.Add(one);
      continue;
    }
    ++format;
    if (*format == 's') line.Add(text);
    if (*format == 'd') {
      if (number < 0) line.Add("-");
      line.Add(static_cast<std::uint64_t>(number < 0 ? -static_cast<long>(number) : number));
    }
  }
  line.Add("\n");
  Sys(SYS_write, log_fd, line.Data(), line.Size());
}

}  // namespace vsocket::shim
