// How payload is copied into and out of rings.
//
// Measured between two processors (bench/README.md, "Copies"): a vector loop, and so memmove(3) below its own threshold and wherever
// source and destination lie within 64 bytes of each other modulo the page, waits for each cache line that the other processor holds, and
// loses up to nine tenths of the speed; where a stream meets such an offset is chance, and stays so for the whole connection. String
// instructions own whole lines without reading them first, at any alignment.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstring>

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#include <cpuid.h>
#define VSOCKET_STRING_COPY 1
#endif

namespace vsocket::channel {

// From here on starting a string instruction (some 30 cycles) is repaid.
inline constexpr std::size_t kStringCopyMin = 1024;

#ifdef VSOCKET_STRING_COPY
// Enhanced REP MOVSB (Intel SDM vol. 2, CPUID leaf 7: EBX bit 9). Asked once a process: in a virtual machine CPUID leaves the guest.
inline bool HasFastStrings() {
  enum : unsigned char { kUnknown, kNo, kYes };
  static constinit std::atomic<unsigned char> known = kUnknown;  // relaxed: whoever asks at the same time finds the same
  unsigned char answer = known.load(std::memory_order_relaxed);
  if (answer == kUnknown) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    answer = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & (1U << 9U)) != 0 ? kYes : kNo;
    known.store(answer, std::memory_order_relaxed);
  }
  return answer == kYes;
}
#endif

// The ranges do not overlap. With size 0 either may be null.
// (Otherwise memmove: a library without symbol versions gets glibc's oldest memcpy, which does not choose by processor.)
inline void CopyBytes(void* to, const void* from, std::size_t size) {
  if (size == 0) return;
#ifdef VSOCKET_STRING_COPY
  if (size >= kStringCopyMin && HasFastStrings()) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
    return;
  }
#endif
  std::memmove(to, from, size);
}

}  // namespace vsocket::channel
