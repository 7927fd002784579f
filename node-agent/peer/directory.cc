#include "node-agent/peer/directory.h"

#include <algorithm>
#include <utility>

namespace vsocket::peer {

namespace {

std::vector<model::NodeAgent> AgentsOf(const std::vector<model::Node>& nodes) {
  std::vector<model::NodeAgent> agents;
  for (const model::Node& node : nodes) {
    std::string endpoint = node.agent_endpoint;
    if (endpoint.empty() && !node.addresses.empty()) {
      const model::IpAddress& ip = node.addresses.front();
      const std::string host = ip.IsV4() ? ip.ToString() : "[" + ip.ToString() + "]";
      endpoint = host + ":" + std::to_string(model::kDefaultPeerPort);
    }
    if (!endpoint.empty()) agents.push_back({node.name, endpoint, node.addresses});
  }
  return agents;
}

}  // namespace

Directory::Directory(const model::ClusterState& state) : Directory(state.pods, AgentsOf(state.nodes)) {}

Directory::Directory(const std::vector<model::Shared<model::Pod>>& pods, std::vector<model::NodeAgent> nodes) : nodes_(std::move(nodes)) {
  for (const model::Shared<model::Pod>& shared : pods) {
    const model::Pod& pod = *shared;
    if (pod.finished || pod.host_network || pod.node.empty()) continue;
    const model::PodPlace place{pod.node, pod.ns + "/" + pod.name};
    for (const model::IpAddress& ip : pod.ips) {
      const auto [at, is_new] = pods_.emplace(ip, place);
      if (!is_new && at->second != place) at->second.reset();
    }
  }
}

std::optional<model::PodPlace> Directory::PodAt(const model::IpAddress& ip) const {
  const auto at = pods_.find(ip);
  return at == pods_.end() ? std::nullopt : at->second;
}

bool Directory::IsAddressOf(const std::string& node, const model::IpAddress& ip) const {
  const model::NodeAgent* agent = Find(node);
  return agent != nullptr && std::find(agent->addresses.begin(), agent->addresses.end(), ip) != agent->addresses.end();
}

const model::NodeAgent* Directory::Find(const std::string& node) const {
  const auto at = std::find_if(nodes_.begin(), nodes_.end(), [&](const model::NodeAgent& one) { return one.node == node; });
  return at == nodes_.end() ? nullptr : &*at;
}

}  // namespace vsocket::peer
