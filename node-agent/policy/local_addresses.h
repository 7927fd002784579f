// What this node knows better than the cluster state: the addresses of the pods it has wired itself.
#pragma once

#include <vector>

#include "node-agent/model/cluster.h"
#include "node-agent/model/local_pod.h"

namespace vsocket::policy {

// The same state with the addresses of `local` pods in place (matched by namespace and name, and by uid when both sides have one).
// - A local address belongs to the local pod: any other pod that claims it loses the claim.
// - A wired pod that the state does not know (the manifest is not there yet, or is of another uid) is added without labels or ports, so
// that
//   a namespace-wide policy holds for it from its first packet; the outdated object of another uid is dropped.
// - A wired pod is not in the host's network, whatever the object says: no CNI plugin is called for one that is. A finished one stays
//   finished: its containers are over, and its address is about to be another pod's.
// Pure; the revision is kept.
model::ClusterState WithLocalAddresses(const model::ClusterState& state, const std::vector<model::LocalPod>& local);

}  // namespace vsocket::policy
