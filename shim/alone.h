// A process with one thread needs no locked instructions for what it shares with no other process: they cost more than all else that a
// plain call does here. A signal handler comes and goes within one instruction of what it interrupts, so a load and a store are enough for
// whatever is as before when it has gone.
#pragma once

// glibc 2.32: not zero while no other thread exists; it falls in pthread_create, before there is one. Not in musl or older glibc, whose
// programs take the locked way.
extern "C" {
extern char __libc_single_threaded __attribute__((weak));  // NOLINT: the name is libc's
}

namespace vsocket::shim {

inline bool OnlyThread() {
  return &__libc_single_threaded != nullptr && *static_cast<volatile char*>(&__libc_single_threaded) != 0;
}

}  // namespace vsocket::shim
