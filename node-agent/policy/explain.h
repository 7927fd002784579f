// Policies and verdicts for people: numbers of rules become their words.
//
// Thread safety: pure functions.
#pragma once

#include <vector>

#include "node-agent/model/cluster.h"
#include "node-agent/model/local_pod.h"
#include "node-agent/model/node_api.h"
#include "node-agent/model/verdict.h"

namespace vsocket::policy {

// Fills in rule_text and peer_text where a rule of one of the policies decided. O(policies).
void Explain(const std::vector<model::Shared<model::NetworkPolicy>>& policies, model::Verdict& verdict);

// Every policy, by namespace and name, with the pods that it selects: those of `local`, and how many in the cluster. `problems` are added
// to the policies that they name ("ns/name" as a word). O(policies x pods).
std::vector<model::PolicyInfo> DescribePolicies(const model::ClusterState& state, const std::vector<model::LocalPod>& local,
                                                const std::vector<model::SourceProblem>& problems);

}  // namespace vsocket::policy
