#include "node-agent/policy/local_addresses.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

namespace vsocket::policy {

model::ClusterState WithLocalAddresses(const model::ClusterState& state, const std::vector<model::LocalPod>& local) {
  std::map<std::pair<std::string, std::string>, const model::LocalPod*> wired;
  std::set<model::IpAddress> owned;
  for (const model::LocalPod& pod : local) {
    wired[{pod.ns, pod.name}] = &pod;
    owned.insert(pod.ips.begin(), pod.ips.end());
  }

  model::ClusterState merged;
  merged.namespaces = state.namespaces;
  merged.policies = state.policies;
  merged.revision = state.revision;
  merged.pods.reserve(state.pods.size() + local.size());
  for (const model::Pod& pod : state.pods) {
    const auto found = wired.find({pod.ns, pod.name});
    if (found != wired.end()) {
      const model::LocalPod& here = *found->second;
      if (!pod.uid.empty() && !here.uid.empty() && pod.uid != here.uid) continue;  // an earlier or later pod of the same name
      model::Pod& filled = merged.pods.emplace_back(pod);
      filled.ips = here.ips;
      filled.uid = here.uid.empty() ? pod.uid : here.uid;
      filled.host_network = false;
      wired.erase(found);
      continue;
    }
    model::Pod& kept = merged.pods.emplace_back(pod);
    // A pod in the host's network claims no pod address, whatever is written; and what is wired here belongs to the wired pod.
    std::erase_if(kept.ips, [&](const model::IpAddress& ip) { return owned.contains(ip); });
  }
  for (const auto& [key, here] : wired) {
    model::Pod& unknown = merged.pods.emplace_back();
    unknown.ns = here->ns;
    unknown.name = here->name;
    unknown.uid = here->uid;
    unknown.ips = here->ips;
  }
  return merged;
}

}  // namespace vsocket::policy
