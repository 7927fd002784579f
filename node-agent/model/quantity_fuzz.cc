// libFuzzer target: any text as a Kubernetes quantity and as a bandwidth annotation. Plain digits must mean themselves, a sign must only
// change the sign, and whatever comes out as a limit must be within the bounds.
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "node-agent/model/bandwidth.h"
#include "node-agent/model/quantity.h"

namespace {

void Require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto value = vsocket::model::ParseQuantity(text);
  std::int64_t plain = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), plain);
  if (error == std::errc() && end == text.data() + text.size()) Require(value == plain);
  if (value && !text.empty() && text.front() != '-' && text.front() != '+') Require(vsocket::model::ParseQuantity("-" + text) == -*value);

  const vsocket::model::Bandwidth bandwidth = vsocket::model::BandwidthOf({{vsocket::model::kEgressBandwidth, text}});
  Require(bandwidth.egress.has_value() == bandwidth.problem.empty());
  if (bandwidth.egress) {
    Require(bandwidth.egress->bits_per_second >= vsocket::model::kLeastBandwidth &&
            bandwidth.egress->bits_per_second <= vsocket::model::kMostBandwidth);
  }
  return 0;
}
