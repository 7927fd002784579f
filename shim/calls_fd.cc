// Interposers that copy, move and describe descriptors, and the few that would use a connection inside libc.
#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "shim/close.h"
#include "shim/epoll_set.h"
#include "shim/errno.h"
#include "shim/hand_over.h"
#include "shim/own_fds.h"
#include "shim/process.h"
#include "shim/real.h"

namespace vsocket::shim {
namespace {

constexpr int kLastStandardStream = 2;

// `copy` stands for what `fd` stands for.
void NoteCopy(int fd, int copy) {
  const bool tracked = static_cast<bool>(FindSock(fd));
  if ((!tracked && FindSet(fd) == nullptr) || InVforkChild()) return;
  // A child's descriptors are copied before its memory: of a copy made between the two it would know, and not have it.
  NoFork no_fork;
  tracked ? TrackCopy(fd, copy) : CopySet(fd, copy);
}

// dup and F_DUPFD: the kernel has chosen the number. stdio, and whatever is executed, use the lowest three unseen.
int Copied(int fd, int copy) {
  if (copy < 0) return copy;
  if (copy <= kLastStandardStream) UseTcp(fd, channel::Reason::kHandedOver);
  NoteCopy(fd, copy);
  return copy;
}

// dup2 and dup3 with arguments the kernel will accept; `call` does it.
template <typename Call>
int Replace(int fd, int target, Call call) {
  if (IsOwnFd(target)) return static_cast<int>(ToProgram(-EBUSY));  // dup2(2) knows it as a race with open; the number is not free
  if (target >= 0 && target <= kLastStandardStream) UseTcp(fd, channel::Reason::kHandedOver);
  const Dropped dropped = BeginClose(target);
  const int result = call();
  EndClose(dropped);
  if (result >= 0) NoteCopy(fd, target);
  return result;
}

bool IsOpen(int fd) {
  return Sys(SYS_fcntl, fd, F_GETFD, 0) >= 0;
}

int Control(int fd, int command, void* argument, int (*real)(int, int, ...)) {
  const int number = static_cast<int>(reinterpret_cast<std::intptr_t>(argument));
  switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
      return Copied(fd, real(fd, command, argument));
    case F_SETFD:
      if (!(number & FD_CLOEXEC) && IsOwnFd(fd)) return static_cast<int>(ToProgram(-EBADF));  // ours are nobody else's
      break;
    case F_SETFL:
      if (number & O_ASYNC) UseTcp(fd, channel::Reason::kUnsupportedCall);
      break;
    case F_SETOWN:
    case F_SETOWN_EX:
    case F_SETSIG:
      UseTcp(fd, channel::Reason::kUnsupportedCall);
      break;
    default:
      break;
  }
  return real(fd, command, argument);
}

struct Range {
  unsigned first, last;
};

void CloseTracked(int fd, SockRef, void* context) {
  const Range& range = *static_cast<const Range*>(context);
  if (static_cast<unsigned>(fd) < range.first || static_cast<unsigned>(fd) > range.last) return;
  const Dropped dropped = BeginClose(fd);
  Sys(SYS_close, fd);
  EndClose(dropped);
}

// True when other threads may share this thread's descriptor table: CLOSE_RANGE_UNSHARE then closes in a table of this thread only.
bool HasThreads() {
  struct stat tasks = {};
  return Sys(SYS_newfstatat, AT_FDCWD, "/proc/self/task", &tasks, 0) < 0 || tasks.st_nlink > 3;
}

int CloseRange(unsigned first, unsigned last, int flags) {
  if (Real().close_range != nullptr) return Real().close_range(first, last, flags);
  return static_cast<int>(ToProgram(Sys(SYS_close_range, first, last, flags)));
}

// The kernel's close_range around our own descriptors, which are close-on-exec anyway.
int CloseAround(Range range, int flags) {
  unsigned from = range.first;
  for (;;) {
    const int own = from <= INT32_MAX ? NextOwnFd(static_cast<int>(from)) : -1;
    const bool within = own >= 0 && static_cast<unsigned>(own) <= range.last;
    if (!within || static_cast<unsigned>(own) > from) {
      const int result = CloseRange(from, within ? static_cast<unsigned>(own) - 1 : range.last, flags);
      if (result < 0 || !within) return result;
    }
    if (static_cast<unsigned>(own) == range.last) return 0;
    from = static_cast<unsigned>(own) + 1;
  }
}

unsigned EndOfTable() {
  struct rlimit limit = {1024, 1024};
  Sys(SYS_prlimit64, 0, RLIMIT_NOFILE, nullptr, &limit);
  return limit.rlim_cur < (1u << 20) ? static_cast<unsigned>(limit.rlim_cur) : (1u << 20);
}

void CloseOurNotes(Range range, int flags) {
  if (InVforkChild() || ((flags & CLOSE_RANGE_UNSHARE) && HasThreads())) return;
  ForEachSock(CloseTracked, &range);
  const unsigned end = EndOfTable();
  for (unsigned fd = range.first; fd < end && fd <= range.last; ++fd) {
    if (FindSet(static_cast<int>(fd)) != nullptr) DropSet(static_cast<int>(fd));
  }
}

bool KernelHasCloseRange() {
  return Sys(SYS_close_range, ~0u, ~0u, 0) != -ENOSYS;
}

// Before Linux 5.9: one by one, as libc does.
void CloseOneByOne(unsigned first) {
  const unsigned end = EndOfTable();
  for (unsigned fd = first; fd < end; ++fd) {
    if (!IsOwnFd(static_cast<int>(fd))) Sys(SYS_close, fd);
  }
}

}  // namespace

VSOCKET_INTERPOSE(int, dup, int fd) {
  return Copied(fd, Real().dup(fd));
}

VSOCKET_INTERPOSE(int, dup2, int fd, int target) {
  if (fd == target || !IsOpen(fd)) return Real().dup2(fd, target);  // closes nothing
  return Replace(fd, target, [&] { return Real().dup2(fd, target); });
}

VSOCKET_INTERPOSE(int, dup3, int fd, int target, int flags) {
  if (fd == target || (flags & ~O_CLOEXEC) || !IsOpen(fd)) return Real().dup3(fd, target, flags);
  return Replace(fd, target, [&] { return Real().dup3(fd, target, flags); });
}

// The third argument is an int, a long or a pointer, or not there; a register holds it either way, and libc passes it on likewise.
VSOCKET_INTERPOSE(int, fcntl, int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  return Control(fd, command, argument, Real().fcntl);
}

VSOCKET_INTERPOSE(int, fcntl64, int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  return Control(fd, command, argument, Real().fcntl64 != nullptr ? Real().fcntl64 : Real().fcntl);
}

VSOCKET_INTERPOSE(int, close_range, unsigned first, unsigned last, int flags) {
  if (flags & CLOSE_RANGE_CLOEXEC || flags & ~CLOSE_RANGE_UNSHARE || first > last || !KernelHasCloseRange()) {
    return CloseRange(first, last, flags);  // closes nothing
  }
  CloseOurNotes({first, last}, flags);
  return CloseAround({first, last}, flags);
}

VSOCKET_INTERPOSE(void, closefrom, int low) {
  const unsigned first = low > 0 ? static_cast<unsigned>(low) : 0;
  CloseOurNotes({first, ~0u}, 0);
  if (CloseAround({first, ~0u}, 0) < 0) CloseOneByOne(first);
}

VSOCKET_INTERPOSE(FILE*, fdopen, int fd, const char* mode) {
  UseTcp(fd, channel::Reason::kUnsupportedCall);
  return Real().fdopen(fd, mode);
}

VSOCKET_INTERPOSE(int, vdprintf, int fd, const char* format, va_list arguments) {
  UseTcp(fd, channel::Reason::kUnsupportedCall);
  return Real().vdprintf(fd, format, arguments);
}

VSOCKET_INTERPOSE(int, dprintf, int fd, const char* format, ...) {
  UseTcp(fd, channel::Reason::kUnsupportedCall);
  va_list arguments;
  va_start(arguments, format);
  const int result = Real().vdprintf(fd, format, arguments);
  va_end(arguments);
  return result;
}

}  // namespace vsocket::shim
