// A value that somebody else can change or choose.
//
// Shared memory, control messages and files handed in by a pod all hold values a hostile party picks. `Untrusted<T>` has no implicit
// conversion: the only ways out are the ones that state a bound. The value is loaded from shared memory exactly once (see
// `LoadUntrusted`), so the bound that was checked is the bound that holds.
//
// Thread safety: a plain value; copies are independent.
#pragma once

#include <atomic>
#include <type_traits>

namespace vsocket {

template <typename T>
class Untrusted {
  static_assert(std::is_integral_v<T>, "only integers cross the trust boundary; pointers and structs never do");

 public:
  explicit constexpr Untrusted(T value) : value_(value) {}

  // True, and `*out` set, when lo <= value <= hi. `*out` is not touched otherwise.
  [[nodiscard]] constexpr bool Within(T lo, T hi, T* out) const {
    if (value_ < lo || value_ > hi) return false;
    *out = value_;
    return true;
  }

  [[nodiscard]] constexpr T ClampedTo(T lo, T hi) const { return value_ < lo ? lo : (value_ > hi ? hi : value_); }

  [[nodiscard]] constexpr bool Is(T expected) const { return value_ == expected; }

  // For texts and counters that are shown and never used as an index, size or decision.
  [[nodiscard]] constexpr T ForDisplay() const { return value_; }

 private:
  T value_;
};

template <typename T>
[[nodiscard]] inline Untrusted<T> LoadUntrusted(const std::atomic<T>& word, std::memory_order order) {
  return Untrusted<T>(word.load(order));
}

}  // namespace vsocket
