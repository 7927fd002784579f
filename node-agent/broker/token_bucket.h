// A token bucket in whole bytes that loses nothing to rounding, however long it runs and however often it is looked at.
//
// Thread safety: none.
#pragma once

#include <algorithm>
#include <cstdint>

namespace vsocket::broker {

class TokenBucket {
 public:
  // What an idle bucket holds: the time of its rate that a burst may take.
  static constexpr std::uint64_t kBurstNs = 25'000'000;
  static constexpr std::int64_t kLeastBurst = 1500;  // bytes; about a packet, so that the slowest limit lets one through
  // What a bucket whose senders were waiting is credited with at most, when nobody has looked at it for long.
  static constexpr std::uint64_t kLateNs = 100'000'000;

  // Starts full. 1 <= bits_per_second <= 10^15.
  TokenBucket(std::uint64_t bits_per_second, std::uint64_t now_ns)
      : bits_per_second_(bits_per_second), tokens_(BytesIn(kBurstNs, bits_per_second)), filled_ns_(now_ns) {}

  void SetRate(std::uint64_t bits_per_second, std::uint64_t now_ns) {
    Refill(now_ns, false);
    bits_per_second_ = bits_per_second;
    tokens_ = std::min(tokens_, Burst());
  }

  // Credits the time since the last call. `waiting`: somebody has been waiting for tokens all the time. The bucket then lags behind only
  // because nobody looked, and holds more than a burst.
  void Refill(std::uint64_t now_ns, bool waiting) {
    if (now_ns <= filled_ns_) return;
    const std::uint64_t elapsed = std::min(now_ns - filled_ns_, kSecond);
    filled_ns_ = now_ns;
    // bits = rate * elapsed / 10^9, in two parts that fit into 64 bits.
    const std::uint64_t fraction = bits_per_second_ % kSecond * elapsed + nanobits_;
    const std::uint64_t bits = bits_per_second_ / kSecond * elapsed + fraction / kSecond + bits_;
    nanobits_ = fraction % kSecond;
    bits_ = bits % 8;
    tokens_ =
        std::min(tokens_ + static_cast<std::int64_t>(bits / 8), waiting ? std::max(Burst(), BytesIn(kLateNs, bits_per_second_)) : Burst());
  }

  [[nodiscard]] std::uint64_t BitsPerSecond() const { return bits_per_second_; }
  [[nodiscard]] std::int64_t Tokens() const { return tokens_; }  // bytes; below 0: a debt
  [[nodiscard]] std::int64_t Burst() const { return BytesIn(kBurstNs, bits_per_second_); }
  void Take(std::int64_t bytes) { tokens_ -= bytes; }
  void GiveBack(std::int64_t bytes) { tokens_ += bytes; }

  // Bytes of the rate in a time of at most a second, but not less than kLeastBurst.
  static std::int64_t BytesIn(std::uint64_t ns, std::uint64_t bits_per_second) {
    const std::uint64_t bits = bits_per_second / kSecond * ns + bits_per_second % kSecond * ns / kSecond;
    return std::max(kLeastBurst, static_cast<std::int64_t>(bits / 8));
  }

 private:
  static constexpr std::uint64_t kSecond = 1'000'000'000;

  std::uint64_t bits_per_second_;
  std::int64_t tokens_;
  std::uint64_t filled_ns_;
  std::uint64_t nanobits_ = 0, bits_ = 0;  // what is not a whole byte yet
};

}  // namespace vsocket::broker
