// How long to wait before the next attempt. Thread safety: none.
#pragma once

#include <algorithm>
#include <chrono>
#include <random>

namespace vsocket::kube {

class Backoff {
 public:
  Backoff(std::chrono::milliseconds first, std::chrono::milliseconds longest, std::uint64_t seed)
      : first_(first), longest_(longest), next_(first), random_(seed) {}

  // Twice as long each time, up to the longest; of that somewhere in the upper half, so that nodes that failed together do not come back
  // together.
  std::chrono::milliseconds Next() {
    const auto most = next_;
    next_ = std::min(longest_, next_ * 2);
    return std::chrono::milliseconds(std::uniform_int_distribution<std::int64_t>(most.count() / 2, most.count())(random_));
  }
  void Reset() { next_ = first_; }

 private:
  const std::chrono::milliseconds first_, longest_;
  std::chrono::milliseconds next_;
  std::mt19937_64 random_;
};

}  // namespace vsocket::kube
