// The oracle: NetworkPolicy v1 read aloud. It recomputes everything for every question, shares no code with the evaluator under test, and
// is written from the API reference (https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/) and the
// concept page, so that it can be checked against them by reading.
#pragma once

#include <vector>

#include "node-agent/model/cluster.h"
#include "node-agent/model/verdict.h"

namespace vsocket::policy::testing {

// Where others read the specification otherwise: each of these makes the oracle read it their way (docs/networkpolicy.md). All false: ours.
struct Reading {
  bool self_is_judged = false;           // what a pod sends to itself is judged like anything else
  bool node_is_judged = false;           // what comes from the pod's own node is judged like anything else
  bool not_in_needs_label = false;       // NotIn does not match what has no such label
  bool no_label_is_empty_label = false;  // matchLabels with an empty value match what has no such label
  bool name_means_all_numbers = false;   // a port name that means several numbers means each of them
  bool finished_pods_count = false;      // a finished pod still has its address, unless one that is not has it
};

struct SlowVerdict {
  bool egress = false;
  bool ingress = false;
};

SlowVerdict SlowEvaluate(const model::ClusterState& state, const std::vector<model::IpAddress>& node_addresses, const model::Flow& flow,
                         const Reading& reading = {});

// One pod's own side only; `pod` must be in the pod network. For comparing allow lists.
bool SlowIngressAllowed(const model::ClusterState& state, const model::Pod& pod, const model::Flow& flow);
bool SlowEgressAllowed(const model::ClusterState& state, const model::Pod& pod, const model::Flow& flow);

}  // namespace vsocket::policy::testing
