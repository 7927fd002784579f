#include "node-agent/pod_bandwidth.h"

#include <map>
#include <string_view>

namespace vsocket {

std::vector<std::pair<std::string, model::Bandwidth>> BandwidthOfPods(const model::ClusterState& state,
                                                                      const std::vector<model::LocalPod>& pods) {
  std::map<std::pair<std::string_view, std::string_view>, const model::Pod*> by_name;
  for (const model::LocalPod& pod : pods) by_name.emplace(std::pair<std::string_view, std::string_view>(pod.ns, pod.name), nullptr);
  for (const model::Pod& pod : state.pods) {
    const auto local = by_name.find({pod.ns, pod.name});
    if (local != by_name.end()) local->second = &pod;
  }
  std::vector<std::pair<std::string, model::Bandwidth>> found;
  for (const model::LocalPod& pod : pods) {
    const model::Pod* known = by_name[{pod.ns, pod.name}];
    // By name alone: a static pod has another uid at the API server than at its runtime. An earlier pod of the name lends its limits for a
    // moment to the next one.
    if (known != nullptr) found.emplace_back(pod.uid, model::BandwidthOf(known->annotations));
  }
  return found;
}

}  // namespace vsocket
