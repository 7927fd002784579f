// What pod_table.h says of wired pods, in the obvious way: as a state in which the cluster's pods and this node's are one. For the oracle.
#pragma once

#include <vector>

#include "node-agent/model/cluster.h"
#include "node-agent/model/local_pod.h"

namespace vsocket::policy::testing {

model::ClusterState WithLocalAddresses(const model::ClusterState& state, const std::vector<model::LocalPod>& local);

}  // namespace vsocket::policy::testing
