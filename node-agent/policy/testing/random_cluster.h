// Random clusters in which rules often meet pods: few names, few labels, few ports, crossing address blocks. Everything follows from the
// seed.
#pragma once

#include <random>
#include <vector>

#include "node-agent/model/cluster.h"
#include "node-agent/model/verdict.h"

namespace vsocket::policy::testing {

struct RandomCluster {
  model::ClusterState state;
  std::vector<model::IpAddress> node_addresses;
};

using Random = std::mt19937_64;

// `contested`: now and then two pods claim one address.
RandomCluster MakeCluster(Random& random, bool contested);
// Mostly between addresses of the cluster, sometimes from or to elsewhere.
model::Flow MakeFlow(Random& random, const RandomCluster& cluster);

}  // namespace vsocket::policy::testing
