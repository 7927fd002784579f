// NetworkPolicies in words, for people: "from pods app=web in every namespace, on TCP 80 or TCP 8000-8080".
//
// Thread safety: pure functions.
#pragma once

#include <string>

#include "node-agent/model/cluster.h"

namespace vsocket::model {

enum class RuleDirection : std::uint8_t { kIngress, kEgress };

// As the Kubernetes API has it (core/v1 Protocol): "TCP".
const char* ProtocolName(Protocol protocol);

// "app=web, tier in (a, b), !old"; empty for a selector that matches everything.
std::string InWords(const LabelSelector& selector);
// `policy_ns`: the policy's own namespace, which a peer without a namespaceSelector means.
std::string InWords(const PolicyPeer& peer, const std::string& policy_ns);
std::string InWords(const PolicyPort& port);
std::string InWords(const PolicyRule& rule, RuleDirection direction, const std::string& policy_ns);
// "pods app=web of namespace shop": what the policy selects.
std::string SubjectInWords(const NetworkPolicy& policy);

}  // namespace vsocket::model
