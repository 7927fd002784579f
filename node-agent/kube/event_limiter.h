// How many events a pod, and the node, may have. Token buckets. Thread safety: none.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace vsocket::kube {

class EventLimiter {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // How many events of the pod were left out since the last that was let through; nothing: this one is left out too.
  std::optional<std::uint64_t> Admit(const std::string& pod, Time now);
  [[nodiscard]] std::size_t Pods() const { return pods_.size(); }

 private:
  struct Bucket {
    double tokens = 0;
    Time filled;
    std::uint64_t left_out = 0;
  };
  static void Fill(Bucket& bucket, double burst, std::chrono::duration<double> one_every, Time now);
  void ForgetFull(Time now);

  std::map<std::string, Bucket> pods_;
  std::optional<Bucket> node_;
};

}  // namespace vsocket::kube
