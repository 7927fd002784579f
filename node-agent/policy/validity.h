// What is wrong with a policy, whoever let it through: a source validates what it reads, but an API server of another version, or another
// validation, may know better or worse. Whatever is found here closes, and never opens:
// - a podSelector that cannot be understood selects the whole namespace;
// - a peer or a port that cannot be understood matches nothing;
// - a policy that isolates in no direction isolates in both, and allows nothing.
//
// Thread safety: pure functions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "node-agent/model/cluster.h"

namespace vsocket::policy {

// Why it cannot be understood, as the end of a sentence; nothing when it can.
std::optional<std::string> WhyInvalid(const model::LabelSelector& selector);
std::optional<std::string> WhyInvalid(const model::PolicyPeer& peer);
std::optional<std::string> WhyInvalid(const model::PolicyPort& port);

// A sentence for each.
std::vector<std::string> ProblemsOf(const model::NetworkPolicy& policy);

}  // namespace vsocket::policy
