// What a pod's bandwidth annotations say.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace vsocket::model {

inline constexpr char kIngressBandwidth[] = "kubernetes.io/ingress-bandwidth";
inline constexpr char kEgressBandwidth[] = "kubernetes.io/egress-bandwidth";

// Bits per second, as the kubelet bounds them (pkg/util/bandwidth: 1k to 1P).
inline constexpr std::int64_t kLeastBandwidth = 1000;
inline constexpr std::int64_t kMostBandwidth = 1'000'000'000'000'000;

struct BandwidthLimit {
  std::uint64_t bits_per_second = 0;
  std::string text;  // as written: "10M"
  bool operator==(const BandwidthLimit&) const = default;
};

struct Bandwidth {
  std::optional<BandwidthLimit> ingress, egress;  // nullopt: no limit
  std::string problem;                            // not empty: an annotation that cannot be understood, and why
  bool operator==(const Bandwidth&) const = default;
};

Bandwidth BandwidthOf(const std::map<std::string, std::string>& annotations);

}  // namespace vsocket::model
