// When to try again what has failed: twice as long after each failure, up to a bound, and never all nodes of a cluster at the same moment.
//
// Thread safety: none.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>

namespace vsocket::peer {

class Backoff {
 public:
  Backoff(std::uint64_t first_ns, std::uint64_t longest_ns, std::uint64_t seed)
      : first_ns_(first_ns), longest_ns_(longest_ns), random_(seed) {}

  // The wait after one more failure: uniform between half of the step and the whole of it.
  std::uint64_t Next() {
    step_ns_ = step_ns_ == 0 ? first_ns_ : std::min(longest_ns_, step_ns_ * 2);
    return std::uniform_int_distribution<std::uint64_t>(step_ns_ / 2, step_ns_)(random_);
  }
  void Reset() { step_ns_ = 0; }

 private:
  const std::uint64_t first_ns_, longest_ns_;
  std::mt19937_64 random_;
  std::uint64_t step_ns_ = 0;
};

}  // namespace vsocket::peer
