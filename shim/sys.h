// Raw system calls: the shim's own business with the kernel. They bypass libc (and so our own interposers and everybody else's), do not
// touch errno, and are no cancellation points. Return value: the kernel's, -errno on failure.
#pragma once

#include <sys/syscall.h>

#include <cstddef>
#include <cstdint>

namespace vsocket::shim {

inline long RawCall(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
#if defined(__x86_64__)
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
#else
#error "port RawCall to this architecture"
#endif
}

template <typename... Args>
inline long Sys(long number, Args... args) {
  return RawCall(number, (long)(args)...);  // NOLINT: pointers and integers alike become registers
}

// CLOCK_MONOTONIC in nanoseconds, by the vDSO.
std::uint64_t MonotonicNs();

// A cheap clock for spinning: ticks of unknown but constant rate.
inline std::uint64_t Ticks() {
#if defined(__x86_64__)
  std::uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (static_cast<std::uint64_t>(high) << 32) | low;
#else
  std::uint64_t value;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
  return value;
#endif
}

inline void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  __asm__ volatile("yield");
#endif
}

}  // namespace vsocket::shim
