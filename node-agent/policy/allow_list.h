// One pod's side of all its policies as addresses: the stage between the evaluator's groups and nftables.
#pragma once

#include <cstddef>

#include "node-agent/model/allow_list.h"
#include "node-agent/policy/compiled_policies.h"

namespace vsocket::policy {

// `pod` may be kNoPod, finished or in the host's network: not isolated then. Node addresses and the name are left to the caller.
// Where two pods claim one address, a selector lets it in only when it matches both, which is never wider than the evaluator.
model::AllowList FlattenFor(const CompiledPolicies& compiled, std::size_t pod);

}  // namespace vsocket::policy
