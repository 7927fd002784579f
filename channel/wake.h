// Sleep and wake: how a side that waits for bytes or room is never left asleep.
//
//   waiter                                   maker (publishes bytes, or frees room)
//   A1 word = target          (release)      B1 tail / head = new     (release)
//   A2 SleepWakeFence                        B2 SleepWakeFence
//   A3 ready? -> do not sleep                B3 word armed? -> exchange it to kNobody, ring that target
//   A4 sleep in the kernel
//
// The fences pair: either A3 sees B1, or B3 sees A1 (store buffering is the one reordering that would break it). The exchange makes one
// ring out of many: a maker that finds kNobody knows that somebody else rings. A waiter
// disarms when it is awake; a bell that comes late finds an awake waiter and is drained later. test/models/wake.pml checks this.
//
// One sleep may arm many words with one wake object, and one ring is enough for it:
//
//   A0 rung = 0               (relaxed)      B4 rung? -> leave it
//                                            B5 rung = 1, ring; back to 0 if that fails (makers are serialised from B4 on)
//
// A0 comes before A1, a release, and B4 after B3's exchange, an acquire: who finds a word armed finds `rung` as A0 left it, or set by a
// maker whose ring comes after that. Set before the ring, so that a maker that is late makes a ring too many, never one too few.
// test/models/rung.pml checks this.
#pragma once

#include <atomic>

#include "channel/layout.h"

namespace vsocket::channel {

inline void SleepWakeFence() {
#if defined(__SANITIZE_THREAD__) && defined(__x86_64__)
  // ThreadSanitizer does not model fences. An RMW of a word that all share would be as strong, but would order all threads in its eyes: it
  // would hardly see a race any more. Nothing that is not atomic relies on this fence.
  __asm__ volatile("mfence" ::: "memory");
#elif defined(__SANITIZE_THREAD__)
  __asm__ volatile("dmb ish" ::: "memory");
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

// A0, for a target that is a wake object.
inline void ExpectRing(std::atomic<std::uint32_t>& rung) {
  if (rung.load(std::memory_order_relaxed) != 0) rung.store(0, std::memory_order_relaxed);
}

// A1 and A2. The caller re-checks after it.
inline void Arm(std::atomic<std::uint32_t>& word, std::uint32_t target) {
  word.store(target, std::memory_order_release);
  SleepWakeFence();
}

inline void Disarm(std::atomic<std::uint32_t>& word) {
  if (word.load(std::memory_order_relaxed) != kNobody) word.store(kNobody, std::memory_order_relaxed);
}

// B2 and B3: whom the caller has to ring now; kNobody mostly. The value is the peer's choice: an index out of range means kTcpBell.
[[nodiscard]] inline std::uint32_t TakeWaiter(std::atomic<std::uint32_t>& word) {
  SleepWakeFence();
  if (word.load(std::memory_order_relaxed) == kNobody) return kNobody;
  const std::uint32_t target = word.exchange(kNobody, std::memory_order_acq_rel);
  return target < kFirstWakeFd + kWakeFdsPerSide ? target : static_cast<std::uint32_t>(kTcpBell);
}

// A side is writable again, and worth a wake-up, when this much of the ring is free. The waiter's re-check and the consumer's decision to
// ring use the same number, or a sleeper could be left with room.
constexpr std::uint64_t WritableRoom(std::uint32_t capacity_log2) {
  return 1ULL << (capacity_log2 - 2);
}

}  // namespace vsocket::channel
