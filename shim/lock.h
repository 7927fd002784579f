// A lock in memory shared by a process and its forks. It survives the death of its holder: the word is the holder's thread id, and a
// waiter that finds no such thread takes the lock over. All that is done under it commits by one store, so a dead holder's half-done work
// is simply not there.
//
// Not recursive: a signal handler that interrupts the holder and comes back to the same lock is told so (Acquire returns false).
#pragma once

#include <atomic>
#include <cstdint>

#include "shim/alone.h"

namespace vsocket::shim {

std::uint32_t ThreadId();  // cached per thread
void ForgetThreadId();     // in the child after fork
bool SeenOtherThreads();   // more than one thread of this process has been here
// No thread of this process has that number now. In a vfork child this says nothing of its parent's threads.
[[nodiscard]] bool ThreadHasEnded(std::uint32_t thread);

class Lock {
 public:
  // False: this very thread holds it already (a signal handler interrupted it).
  [[nodiscard]] bool Acquire() {
    std::uint32_t free = 0;
    const std::uint32_t me = ThreadId();
    if (word_.compare_exchange_strong(free, me, std::memory_order_acquire, std::memory_order_relaxed)) return true;
    return AcquireSlow(me);
  }
  // For who knows that nobody else can want it but a signal handler: the process has one thread, and shares the lock with none.
  [[nodiscard]] bool AcquireAlone() {
    const std::uint32_t me = ThreadId();
    if (word_.load(std::memory_order_relaxed) != 0) return AcquireSlow(me);
    word_.store(me, std::memory_order_relaxed);
    return true;
  }
  [[nodiscard]] bool TryAcquire() {
    std::uint32_t free = 0;
    return word_.compare_exchange_strong(free, ThreadId(), std::memory_order_acquire, std::memory_order_relaxed);
  }
  void Release() {
    if (word_.exchange(0, std::memory_order_release) & kContended) WakeOne();
  }
  void ReleaseAlone() { word_.store(0, std::memory_order_release); }
  [[nodiscard]] bool HeldByMe() const { return (word_.load(std::memory_order_relaxed) & ~kContended) == ThreadId(); }
  void Reset() { word_.store(0, std::memory_order_relaxed); }

 private:
  static constexpr std::uint32_t kContended = 0x80000000u;
  bool AcquireSlow(std::uint32_t me);
  void WakeOne();
  std::atomic<std::uint32_t> word_{0};
};

class Holding {
 public:
  // `alone`: see AcquireAlone.
  explicit Holding(Lock& lock, bool alone = false) : lock_(lock), alone_(alone), held_(alone ? lock.AcquireAlone() : lock.Acquire()) {}
  ~Holding() { Unlock(); }
  Holding(const Holding&) = delete;
  Holding& operator=(const Holding&) = delete;
  [[nodiscard]] bool Held() const { return held_; }
  void Unlock() {
    if (held_) alone_ ? lock_.ReleaseAlone() : lock_.Release();
    held_ = false;
  }

 private:
  Lock& lock_;
  const bool alone_;
  bool held_;
};

}  // namespace vsocket::shim
