// Interposers that make, replace and end processes.
#include <fcntl.h>

#include <cerrno>

#include "shim/close.h"
#include "shim/errno.h"
#include "shim/hand_over.h"
#include "shim/process.h"
#include "shim/real.h"

namespace vsocket::shim {
namespace {

template <typename Call>
pid_t Fork(Call call) {
  BeforeFork();
  const pid_t child = call();
  const int saved = errno;
  AfterFork(child);
  errno = saved;
  return child;
}

void ForgetStandardStreams() {
  for (int fd = 0; fd <= 2; ++fd) ForgetReplaced(fd);
}

// `call` replaces this program, or fails.
template <typename Call>
int Exec(Call call) {
  BeforeExec();
  BeforeEnd(Ending::kExec);
  const int result = call();
  const int saved = errno;
  AfterFailedExec();
  errno = saved;
  return result;
}

int CountArguments(const char* first, va_list rest) {
  int count = 0;
  for (const char* argument = first; argument != nullptr; argument = va_arg(rest, const char*)) ++count;
  return count;
}

// exec*'s list of arguments as execv's array; room for `count` + 1. Leaves `rest` behind the terminating null, where execle has the
// environment.
void FillArguments(char** into, const char* first, va_list rest) {
  for (const char* argument = first; argument != nullptr; argument = va_arg(rest, const char*)) *into++ = const_cast<char*>(argument);
  *into = nullptr;
}

}  // namespace

// On the caller's stack: exec* are called in vfork children and signal handlers, where nothing may be allocated.
#define VSOCKET_ARGUMENTS(argv, rest, first)                                                                    \
  va_list counting_##rest;                                                                                      \
  va_start(counting_##rest, first);                                                                             \
  const int count_##rest = CountArguments(first, counting_##rest);                                              \
  va_end(counting_##rest);                                                                                      \
  char** argv = static_cast<char**>(__builtin_alloca(sizeof(char*) * (static_cast<size_t>(count_##rest) + 1))); \
  va_list rest;                                                                                                 \
  va_start(rest, first);                                                                                        \
  FillArguments(argv, first, rest)

VSOCKET_INTERPOSE(pid_t, fork, void) {
  return Fork(Real().fork);
}

VSOCKET_INTERPOSE(pid_t, _Fork, void) {
  return Fork(Real()._Fork != nullptr ? Real()._Fork : Real().fork);
}

#if defined(__SANITIZE_THREAD__)
// ThreadSanitizer forks for vfork, behind our back: the parent goes on at once, and would not know of the child.
VSOCKET_INTERPOSE(pid_t, vfork, void) {
  return Fork(Real().fork);
}
#endif

VSOCKET_INTERPOSE(pid_t, forkpty, int* master, char* name, const struct termios* modes, const struct winsize* size) {
  const pid_t child = Fork([&] { return Real().forkpty(master, name, modes, size); });
  if (child == 0) ForgetStandardStreams();
  return child;
}

// The parent ends inside libc and the child goes on in its place: the holds on connections change owner, their number does not.
VSOCKET_INTERPOSE(int, daemon, int keep_directory, int keep_streams) {
  if (InVforkChild()) return Real().daemon(keep_directory, keep_streams);
  BeforeFork();
  BeforeEnd(Ending::kExec);  // gives the parent's holds up; the child keeps those it was just given
  const int result = Real().daemon(keep_directory, keep_streams);
  const int saved = errno;
  if (result == 0) {
    TakeOver();
    if (!keep_streams) ForgetStandardStreams();
  } else {
    AfterFailedExec();
    AfterFork(-1);
  }
  errno = saved;
  return result;
}

VSOCKET_INTERPOSE(int, execve, const char* path, char* const* argv, char* const* environment) {
  return Exec([&] { return Real().execve(path, argv, environment); });
}

VSOCKET_INTERPOSE(int, execv, const char* path, char* const* argv) {
  return Exec([&] { return Real().execv(path, argv); });
}

VSOCKET_INTERPOSE(int, execvp, const char* file, char* const* argv) {
  return Exec([&] { return Real().execvp(file, argv); });
}

VSOCKET_INTERPOSE(int, execvpe, const char* file, char* const* argv, char* const* environment) {
  return Exec([&] { return Real().execvpe(file, argv, environment); });
}

VSOCKET_INTERPOSE(int, execl, const char* path, const char* first, ...) {
  VSOCKET_ARGUMENTS(argv, rest, first);
  va_end(rest);
  return Exec([&] { return Real().execv(path, argv); });
}

VSOCKET_INTERPOSE(int, execlp, const char* file, const char* first, ...) {
  VSOCKET_ARGUMENTS(argv, rest, first);
  va_end(rest);
  return Exec([&] { return Real().execvp(file, argv); });
}

VSOCKET_INTERPOSE(int, execle, const char* path, const char* first, ...) {
  VSOCKET_ARGUMENTS(argv, rest, first);
  char* const* environment = va_arg(rest, char* const*);
  va_end(rest);
  return Exec([&] { return Real().execve(path, argv, environment); });
}

VSOCKET_INTERPOSE(int, fexecve, int fd, char* const* argv, char* const* environment) {
  return Exec([&] { return Real().fexecve(fd, argv, environment); });
}

VSOCKET_INTERPOSE(int, execveat, int directory, const char* path, char* const* argv, char* const* environment, int flags) {
  return Exec([&] {
    if (Real().execveat != nullptr) return Real().execveat(directory, path, argv, environment, flags);
    return static_cast<int>(ToProgram(Sys(SYS_execveat, directory, path, argv, environment, flags)));
  });
}

VSOCKET_INTERPOSE(int, posix_spawn, pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions,
                  const posix_spawnattr_t* attributes, char* const* argv, char* const* environment) {
  BeforeExec();
  return Real().posix_spawn(pid, path, actions, attributes, argv, environment);
}

VSOCKET_INTERPOSE(int, posix_spawnp, pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions,
                  const posix_spawnattr_t* attributes, char* const* argv, char* const* environment) {
  BeforeExec();
  return Real().posix_spawnp(pid, file, actions, attributes, argv, environment);
}

VSOCKET_INTERPOSE(int, posix_spawn_file_actions_adddup2, posix_spawn_file_actions_t* actions, int fd, int target) {
  UseTcp(fd, channel::Reason::kHandedOver);  // the copy has no FD_CLOEXEC, whatever the original has
  return Real().posix_spawn_file_actions_adddup2(actions, fd, target);
}

VSOCKET_INTERPOSE(int, system, const char* command) {
  if (command != nullptr) BeforeExec();
  return Real().system(command);
}

VSOCKET_INTERPOSE(FILE*, popen, const char* command, const char* mode) {
  BeforeExec();
  return Real().popen(command, mode);
}

VSOCKET_INTERPOSE(void, _exit, int status) {
  BeforeEnd(Ending::kExit);
  Real()._exit(status);
}

VSOCKET_INTERPOSE(void, _Exit, int status) {
  BeforeEnd(Ending::kExit);
  Real()._Exit(status);
}

}  // namespace vsocket::shim
