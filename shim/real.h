// The functions the program would have called without us: the next definition after ours in the dynamic linker's order (libc's, or that
// of another preloaded library). One pointer a row of calls.def; null where this libc has no such function.
#pragma once

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <termios.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>

namespace vsocket::shim {

struct RealCalls {
#define VSOCKET_CALL(name, result, parameters, support, note) result(*name) parameters;
#include "shim/calls.def"
#undef VSOCKET_CALL
};

extern RealCalls real_calls;
extern std::atomic<bool> ready;  // release: the pointers are there; whoever sees it may call

// Loads configuration, finds the real functions and makes the arena; once, before anything else. Safe to call from any interposer:
// another library's constructor may come before ours.
void Start();

inline const RealCalls& Real() {
  if (__builtin_expect(!ready.load(std::memory_order_acquire), 0)) Start();
  return real_calls;
}

// Declares the function that takes the place of `name`: the body follows. The assembler name keeps our C++ declaration apart from libc's,
// whose attributes and exception specifications differ between libcs.
#define VSOCKET_INTERPOSE(result, name, ...)                                                           \
  extern "C" __attribute__((visibility("default"))) result vsocket_##name(__VA_ARGS__) __asm__(#name); \
  extern "C" result vsocket_##name(__VA_ARGS__)

}  // namespace vsocket::shim
