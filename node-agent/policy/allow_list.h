// One pod's side of all its policies as addresses: the stage between groups and nftables.
//
// Where two pods claim one address, a selector lets it in only when it matches both, which is never wider than a verdict.
//
// Thread safety: pure functions of their arguments.
#pragma once

#include <vector>

#include "node-agent/model/allow_list.h"
#include "node-agent/policy/tables.h"

namespace vsocket::policy {

// The entries that do not depend on what other pods there are; sorted, unique. The pod is InPodNetwork.
std::vector<model::AllowEntry> FixedEntries(const Tables& tables, PodId pod, Direction direction);
// Those that are there because of the pods behind `address`; sorted, unique.
std::vector<model::AllowEntry> EntriesFor(const Tables& tables, PodId pod, Direction direction, const model::IpAddress& address);
// The addresses for which EntriesFor may give something; sorted.
std::vector<model::IpAddress> AddressesFor(const Tables& tables, PodId pod, Direction direction);

// `pod` may be kNone, finished or in the host's network: not isolated then. Node addresses and the name are left to the caller.
model::AllowList FlattenFor(const Tables& tables, PodId pod);

}  // namespace vsocket::policy
