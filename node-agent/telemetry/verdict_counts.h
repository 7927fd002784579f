// How often which policy decided what, for metrics. The number of counters is bounded whatever policies come and go.
//
// A flow has two verdicts, one a direction; each counts where it judged a pod of the cluster. Thread safety: every method from any thread.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>

#include "node-agent/model/flow_event.h"

namespace vsocket::telemetry {

class VerdictCounts {
 public:
  // Policies after so many different ones are counted together as kOther.
  static constexpr std::size_t kMostPolicies = 256;
  static constexpr char kOther[] = "(other)";
  static constexpr char kNone[] = "(none)";  // no policy selects the pod, or it is allowed without one

  struct Key {
    bool ingress = false;
    bool allowed = false;
    model::FlowPath path = model::FlowPath::kRing;
    std::string policy;  // "ns/name": of a permission the one whose rule matched, of a refusal the first that isolates the pod
    auto operator<=>(const Key&) const = default;
  };
  struct Snapshot {
    std::map<Key, std::uint64_t> verdicts;
    // By [path]: flows that were refused, and flows that were cut.
    std::array<std::uint64_t, 2> denied{}, cut{};
  };

  void Count(const model::FlowEvent& event);
  [[nodiscard]] Snapshot Take() const;

 private:
  void CountDirection(bool ingress, model::FlowPath path, const model::DirectionVerdict& verdict);

  mutable std::mutex mutex_;
  std::set<std::string> policies_;
  Snapshot counts_;
};

}  // namespace vsocket::telemetry
