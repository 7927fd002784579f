// The bandwidth annotations of local pods, as the cluster state has them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "node-agent/model/bandwidth.h"
#include "node-agent/model/cluster.h"
#include "node-agent/model/local_pod.h"

namespace vsocket {

// By uid. A pod that the state does not have (yet) is left out: what is known of its limits stays in force.
std::vector<std::pair<std::string, model::Bandwidth>> BandwidthOfPods(const model::ClusterState& state,
                                                                      const std::vector<model::LocalPod>& pods);

}  // namespace vsocket
