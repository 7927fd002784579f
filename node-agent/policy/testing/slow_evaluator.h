// The oracle: NetworkPolicy v1 read aloud. It recomputes everything for every question, shares no code with the evaluator under test, and
// is written from the API reference (https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/) and the
// concept page, so that it can be checked against them by reading.
#pragma once

#include <vector>

#include "node-agent/model/cluster.h"
#include "node-agent/model/verdict.h"

namespace vsocket::policy::testing {

struct SlowVerdict {
  bool egress = false;
  bool ingress = false;
};

SlowVerdict SlowEvaluate(const model::ClusterState& state, const std::vector<model::IpAddress>& node_addresses, const model::Flow& flow);

// One pod's own side only; `pod` must be in the pod network. For comparing allow lists.
bool SlowIngressAllowed(const model::ClusterState& state, const model::Pod& pod, const model::Flow& flow);
bool SlowEgressAllowed(const model::ClusterState& state, const model::Pod& pod, const model::Flow& flow);

}  // namespace vsocket::policy::testing
