#include "node-agent/kube/event_limiter.h"

#include <algorithm>
#include <utility>

namespace vsocket::kube {
namespace {

constexpr double kPodBurst = 5, kNodeBurst = 50;
constexpr std::chrono::duration<double> kPodEvery{20}, kNodeEvery{1};
constexpr std::size_t kMostPods = 1024;

}  // namespace

void EventLimiter::Fill(Bucket& bucket, double burst, std::chrono::duration<double> one_every, Time now) {
  bucket.tokens = std::min(burst, bucket.tokens + std::max(0.0, (now - bucket.filled) / one_every));
  bucket.filled = now;
}

void EventLimiter::ForgetFull(Time now) {
  std::erase_if(pods_, [now](const auto& entry) {
    Bucket bucket = entry.second;
    Fill(bucket, kPodBurst, kPodEvery, now);
    return bucket.tokens >= kPodBurst;
  });
}

std::optional<std::uint64_t> EventLimiter::Admit(const std::string& pod, Time now) {
  if (!node_) node_ = Bucket{kNodeBurst, now, 0};
  Fill(*node_, kNodeBurst, kNodeEvery, now);
  if (!pods_.contains(pod) && pods_.size() >= kMostPods) {
    ForgetFull(now);
    if (pods_.size() >= kMostPods) return std::nullopt;
  }
  Bucket& bucket = pods_.try_emplace(pod, Bucket{kPodBurst, now, 0}).first->second;
  Fill(bucket, kPodBurst, kPodEvery, now);
  if (bucket.tokens < 1 || node_->tokens < 1) {
    ++bucket.left_out;
    return std::nullopt;
  }
  bucket.tokens -= 1;
  node_->tokens -= 1;
  return std::exchange(bucket.left_out, 0);
}

}  // namespace vsocket::kube
