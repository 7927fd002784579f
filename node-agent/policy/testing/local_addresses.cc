#include "node-agent/policy/testing/local_addresses.h"

#include <algorithm>
#include <set>

namespace vsocket::policy::testing {

model::ClusterState WithLocalAddresses(const model::ClusterState& state, const std::vector<model::LocalPod>& local) {
  model::ClusterState merged;
  merged.namespaces = state.namespaces;
  merged.policies = state.policies;
  merged.revision = state.revision;
  std::set<model::IpAddress> owned;
  for (const model::LocalPod& here : local) {
    model::Pod pod;
    for (const model::Pod& object : state.pods) {
      if (object.ns != here.ns || object.name != here.name) continue;
      if (object.uid.empty() || here.uid.empty() || object.uid == here.uid) pod = object;
    }
    pod.ns = here.ns;
    pod.name = here.name;
    if (!here.uid.empty()) pod.uid = here.uid;
    pod.ips = here.ips;
    pod.host_network = false;
    if (!pod.finished) owned.insert(here.ips.begin(), here.ips.end());
    merged.pods.push_back(pod);
  }
  for (const model::Pod& object : state.pods) {
    const bool wired =
        std::any_of(local.begin(), local.end(), [&](const auto& pod) { return pod.ns == object.ns && pod.name == object.name; });
    if (wired) continue;
    model::Pod kept = object;
    std::erase_if(kept.ips, [&](const model::IpAddress& ip) { return owned.contains(ip); });
    merged.pods.push_back(kept);
  }
  return merged;
}

}  // namespace vsocket::policy::testing
