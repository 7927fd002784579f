// Ports of a NetworkPolicy rule against a destination. Shared by the evaluator and the allow list, so that both read them alike.
#pragma once

#include <cstdint>

#include "node-agent/model/cluster.h"

namespace vsocket::policy {

// `destination`: the pod that is connected to, where a named port gets its number; null when it is no pod: a name then matches nothing.
bool PortMatches(const model::PolicyPort& port, model::Protocol protocol, std::uint16_t number, const model::Pod* destination);

// The rule's port list: empty matches every port of every protocol.
bool AnyPortMatches(const model::PolicyRule& rule, model::Protocol protocol, std::uint16_t number, const model::Pod* destination);

}  // namespace vsocket::policy
