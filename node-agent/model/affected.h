// Whose verdicts a change may have altered: what is to be judged again.
#pragma once

#include <algorithm>
#include <vector>

#include "node-agent/model/verdict.h"

namespace vsocket::model {

struct Affected {
  bool everything = false;
  static Affected Everything() { return {true, {}}; }
  std::vector<IpAddress> addresses;  // sorted; a flow is affected when one of its ends is here
  [[nodiscard]] bool None() const { return !everything && addresses.empty(); }
  [[nodiscard]] bool Concerns(const IpAddress& address) const {
    return everything || std::binary_search(addresses.begin(), addresses.end(), address);
  }
  [[nodiscard]] bool Concerns(const Flow& flow) const { return Concerns(flow.source) || Concerns(flow.destination); }
};

}  // namespace vsocket::model
