// Random clusters in which rules often meet pods: few names, few labels, few ports, crossing address blocks; and here and there something
// that cannot be understood. Everything follows from the seed.
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

// Pods and policies are told apart by their numbers; a pod's addresses follow from its number.
// `contested`: now and then it has another's address.
model::Pod MakePod(Random& random, unsigned number, bool contested);
model::NetworkPolicy MakePolicy(Random& random, unsigned number);
model::Namespace MakeNamespace(Random& random);

// `contested`: now and then two pods claim one address.
RandomCluster MakeCluster(Random& random, bool contested);
// Mostly between addresses of the cluster, sometimes from or to elsewhere.
model::Flow MakeFlow(Random& random, const RandomCluster& cluster);

}  // namespace vsocket::policy::testing
