// networking.k8s.io/v1 NetworkPolicySpec from a YAML tree, with the API server's validation
// (https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/). Unknown fields are errors: a typo must not
// open a hole.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "node-agent/kube/field_reader.h"
#include "node-agent/model/cluster.h"

namespace vsocket::kube {

// Fills all but namespace and name. Valid only when no error was reported to `reader`.
model::NetworkPolicy ReadNetworkPolicySpec(const YamlNode& object, FieldReader& reader, std::vector<std::string>& notes);

// The policy that stands in for an invalid one: isolates in both directions, allows nothing, selects the pods that the invalid one names,
// or the whole namespace when its podSelector cannot be read.
model::NetworkPolicy QuarantinePolicy(const YamlNode& object);

std::optional<model::Protocol> ParseProtocol(const std::string& text);

}  // namespace vsocket::kube
