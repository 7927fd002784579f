// A word that is written under a lock and also read without it, by readers that only guess: whether to look once more, whom to ask. A guess
// publishes nothing and relies on nothing else having been written, so relaxed order is enough, and a load or store costs what that of a
// plain member does. Where order does matter, std::atomic says which.
//
// Not for counters of several writers: += and the like are a load and a store.
//
// Thread safety: one writer at a time, any number of readers.
#pragma once

#include <atomic>

namespace vsocket {

template <typename T>
class Relaxed {
  static_assert(std::atomic<T>::is_always_lock_free);

 public:
  constexpr Relaxed() = default;
  constexpr Relaxed(T value) : value_(value) {}  // NOLINT: as good as a T
  Relaxed(const Relaxed& other) : value_(other) {}
  Relaxed& operator=(const Relaxed& other) { return *this = static_cast<T>(other); }  // NOLINT: to itself is no harm
  Relaxed& operator=(T value) {
    value_.store(value, std::memory_order_relaxed);
    return *this;
  }
  operator T() const { return value_.load(std::memory_order_relaxed); }  // NOLINT: as good as a T

  T operator++() {
    const T value = static_cast<T>(*this) + 1;
    *this = value;
    return value;
  }
  T operator--() {
    const T value = static_cast<T>(*this) - 1;
    *this = value;
    return value;
  }
  T operator++(int) { return ++*this - 1; }
  T operator--(int) { return --*this + 1; }

 private:
  std::atomic<T> value_{};
};

}  // namespace vsocket
