#include "node-agent/model/bandwidth.h"

#include "node-agent/model/quantity.h"

namespace vsocket::model {
namespace {

std::optional<BandwidthLimit> LimitOf(const std::map<std::string, std::string>& annotations, const char* name, std::string* problem) {
  const auto found = annotations.find(name);
  if (found == annotations.end()) return std::nullopt;
  const auto complain = [&](const char* what) {
    if (!problem->empty()) *problem += "; ";
    // Anybody's text, and perhaps a long one.
    *problem += std::string(name) + ": \"" + found->second.substr(0, 64) + "\" is " + what;
    return std::nullopt;
  };
  const auto value = ParseQuantity(found->second);
  if (!value) return complain("not a quantity, as 10M is one");
  if (*value < kLeastBandwidth) return complain("less than 1k bits per second");
  if (*value > kMostBandwidth) return complain("more than 1P bits per second");
  return BandwidthLimit{static_cast<std::uint64_t>(*value), found->second};
}

}  // namespace

Bandwidth BandwidthOf(const std::map<std::string, std::string>& annotations) {
  Bandwidth bandwidth;
  bandwidth.ingress = LimitOf(annotations, kIngressBandwidth, &bandwidth.problem);
  bandwidth.egress = LimitOf(annotations, kEgressBandwidth, &bandwidth.problem);
  return bandwidth;
}

}  // namespace vsocket::model
