#include "node-agent/policy/testing/slow_evaluator.h"

#include <algorithm>
#include <string>

namespace vsocket::policy::testing {
namespace {

using model::ClusterState;
using model::Flow;
using model::IpAddress;
using model::Labels;
using model::Pod;

bool HasLabel(const Labels& labels, const std::string& key) {
  return labels.count(key) != 0;
}

bool HasLabelIn(const Labels& labels, const std::string& key, const std::vector<std::string>& values) {
  for (const auto& value : values) {
    if (HasLabel(labels, key) && labels.at(key) == value) return true;
  }
  return false;
}

// Something that no Kubernetes of today lets through, and that nobody can tell the meaning of.
bool IsNonsense(const model::SelectorTerm& term) {
  using Operator = model::SelectorTerm::Operator;
  if (term.op == Operator::kIn || term.op == Operator::kNotIn) return term.values.empty();
  if (term.op == Operator::kExists || term.op == Operator::kDoesNotExist) return !term.values.empty();
  return true;
}

bool IsNonsense(const model::LabelSelector& selector) {
  for (const auto& term : selector.match_expressions) {
    if (IsNonsense(term)) return true;
  }
  return false;
}

bool IsNonsense(const model::PolicyPort& port) {
  if (port.number && (*port.number == 0 || !port.name.empty())) return true;
  return port.end && (!port.number || *port.end < *port.number);
}

Labels NamespaceLabels(const ClusterState& state, const std::string& name) {
  Labels labels;
  for (const model::Namespace& ns : state.namespaces) {
    if (ns.name == name) labels = ns.labels;
  }
  labels["kubernetes.io/metadata.name"] = name;
  return labels;
}

bool BitOf(const IpAddress& address, unsigned index) {
  return (address.Bytes()[index / 8] >> (7 - index % 8) & 1) != 0;
}

bool InCidr(const model::Cidr& cidr, const IpAddress& address) {
  if (cidr.base.IsV4() != address.IsV4()) return false;
  for (unsigned i = 0; i < cidr.prefix; ++i) {
    if (BitOf(cidr.base, i) != BitOf(address, i)) return false;
  }
  return true;
}

class Oracle {
 public:
  Oracle(const ClusterState& state, const Reading& reading) : state_(state), reading_(reading) {}

  // "matchLabels is a map of {key,value} pairs, equivalent to an element of matchExpressions whose operator is In. The requirements are
  // ANDed."
  bool Selects(const model::LabelSelector& selector, const Labels& labels) const {
    for (const auto& [key, value] : selector.match_labels) {
      if (reading_.no_label_is_empty_label && value.empty() && !HasLabel(labels, key)) continue;
      if (!HasLabelIn(labels, key, {value})) return false;
    }
    for (const auto& term : selector.match_expressions) {
      if (term.op == model::SelectorTerm::Operator::kIn && !HasLabelIn(labels, term.key, term.values)) return false;
      if (term.op == model::SelectorTerm::Operator::kNotIn && HasLabelIn(labels, term.key, term.values)) return false;
      if (term.op == model::SelectorTerm::Operator::kNotIn && reading_.not_in_needs_label && !HasLabel(labels, term.key)) return false;
      if (term.op == model::SelectorTerm::Operator::kExists && !HasLabel(labels, term.key)) return false;
      if (term.op == model::SelectorTerm::Operator::kDoesNotExist && HasLabel(labels, term.key)) return false;
    }
    return true;
  }

  bool IsPolicyPod(const Pod& pod) const { return !pod.host_network && (!pod.finished || reading_.finished_pods_count); }

  bool Owns(const Pod& pod, const IpAddress& address) const {
    if (!IsPolicyPod(pod)) return false;
    for (const auto& ip : pod.ips) {
      if (ip == address) return true;
    }
    return false;
  }

  // `pod` is the pod behind the address, or null.
  bool PeerSelects(const std::string& policy_ns, const model::PolicyPeer& peer, const IpAddress& address, const Pod* pod) const {
    if (peer.ip_block) {
      if (peer.pod_selector || peer.namespace_selector) return false;
      if (!InCidr(peer.ip_block->cidr, address)) return false;
      for (const auto& hole : peer.ip_block->except) {
        if (InCidr(hole, address)) return false;
      }
      return true;
    }
    if (pod == nullptr) return false;
    if (!peer.pod_selector && !peer.namespace_selector) return false;
    if (peer.pod_selector && IsNonsense(*peer.pod_selector)) return false;
    if (peer.namespace_selector && IsNonsense(*peer.namespace_selector)) return false;
    // "If NamespaceSelector is also set, then the NetworkPolicyPeer as a whole selects the pods matching PodSelector in the namespaces
    // selected by NamespaceSelector. Otherwise it selects the pods matching PodSelector in the policy's own namespace."
    if (peer.namespace_selector) {
      if (!Selects(*peer.namespace_selector, NamespaceLabels(state_, pod->ns))) return false;
    } else if (pod->ns != policy_ns) {
      return false;
    }
    return !peer.pod_selector || Selects(*peer.pod_selector, pod->labels);
  }

  // "This list of ports ... each item is combined using a logical OR. If this field is empty or missing, this rule matches all ports."
  bool PortSelects(const model::PolicyRule& rule, const Flow& flow, const Pod* destination) const {
    if (rule.ports.empty()) return true;
    for (const auto& port : rule.ports) {
      if (port.protocol != flow.protocol || IsNonsense(port)) continue;
      if (port.name.empty() && !port.number) return true;
      if (port.number) {
        const unsigned end = port.end ? *port.end : *port.number;
        if (flow.destination_port >= *port.number && flow.destination_port <= end) return true;
        continue;
      }
      if (destination == nullptr) continue;
      bool named = false, otherwise = false;
      for (const auto& container_port : destination->ports) {
        if (container_port.name != port.name || container_port.protocol != port.protocol) continue;
        named = named || container_port.number == flow.destination_port;
        otherwise = otherwise || container_port.number != flow.destination_port;
      }
      if (named && (!otherwise || reading_.name_means_all_numbers)) return true;  // a name that means several numbers means none
    }
    return false;
  }

  bool RuleSelects(const std::string& policy_ns, const model::PolicyRule& rule, const IpAddress& address, const Pod* remote,
                   const Flow& flow, const Pod* destination) const {
    if (!PortSelects(rule, flow, destination)) return false;
    if (rule.peers.empty()) return true;
    for (const auto& peer : rule.peers) {
      if (PeerSelects(policy_ns, peer, address, remote)) return true;
    }
    return false;
  }

  // Every pod behind the address; one null for an address that is no pod's.
  std::vector<const Pod*> PodsBehind(const IpAddress& address) const {
    std::vector<const Pod*> pods;
    for (const Pod& pod : state_.pods) {
      if (Owns(pod, address)) pods.push_back(&pod);
    }
    if (std::any_of(pods.begin(), pods.end(), [](const Pod* pod) { return !pod->finished; })) {
      std::erase_if(pods, [](const Pod* pod) { return pod->finished; });
    }
    if (pods.empty()) pods.push_back(nullptr);
    return pods;
  }

  bool IngressOk(const Pod& self, const Pod* source, const Flow& flow) const {
    bool isolated = false;
    for (const model::NetworkPolicy& policy : state_.policies) {
      if (policy.ns != self.ns) continue;
      if (!IsNonsense(policy.pod_selector) && !Selects(policy.pod_selector, self.labels)) continue;
      if (!policy.isolates_ingress && !policy.isolates_egress) isolated = true;  // of no type that is known: closes
      if (!policy.isolates_ingress) continue;
      isolated = true;
      for (const auto& rule : policy.ingress) {
        if (RuleSelects(policy.ns, rule, flow.source, source, flow, &self)) return true;
      }
    }
    return !isolated;
  }

  bool EgressOk(const Pod& self, const Pod* destination, const Flow& flow) const {
    bool isolated = false;
    for (const model::NetworkPolicy& policy : state_.policies) {
      if (policy.ns != self.ns) continue;
      if (!IsNonsense(policy.pod_selector) && !Selects(policy.pod_selector, self.labels)) continue;
      if (!policy.isolates_ingress && !policy.isolates_egress) isolated = true;  // of no type that is known: closes
      if (!policy.isolates_egress) continue;
      isolated = true;
      for (const auto& rule : policy.egress) {
        if (RuleSelects(policy.ns, rule, flow.destination, destination, flow, destination)) return true;
      }
    }
    return !isolated;
  }

 private:
  const ClusterState& state_;
  const Reading& reading_;
};

}  // namespace

bool SlowIngressAllowed(const ClusterState& state, const Pod& pod, const Flow& flow) {
  const Reading ours;
  const Oracle oracle(state, ours);
  bool allowed = true;
  for (const Pod* source : oracle.PodsBehind(flow.source)) allowed = allowed && oracle.IngressOk(pod, source, flow);
  return allowed;
}

bool SlowEgressAllowed(const ClusterState& state, const Pod& pod, const Flow& flow) {
  const Reading ours;
  const Oracle oracle(state, ours);
  bool allowed = true;
  for (const Pod* destination : oracle.PodsBehind(flow.destination)) allowed = allowed && oracle.EgressOk(pod, destination, flow);
  return allowed;
}

SlowVerdict SlowEvaluate(const ClusterState& state, const std::vector<IpAddress>& node_addresses, const Flow& flow,
                         const Reading& reading) {
  if (flow.source.IsLoopback() || flow.destination.IsLoopback()) return {true, true};
  if (flow.source == flow.destination && !reading.self_is_judged) return {true, true};
  bool from_node = false;
  for (const auto& address : node_addresses) from_node = from_node || (address == flow.source && !reading.node_is_judged);
  const Oracle oracle(state, reading);
  SlowVerdict verdict{true, true};
  for (const Pod* source : oracle.PodsBehind(flow.source)) {
    for (const Pod* destination : oracle.PodsBehind(flow.destination)) {
      if (source != nullptr && source == destination && !reading.self_is_judged) continue;
      if (source != nullptr && !oracle.EgressOk(*source, destination, flow)) verdict.egress = false;
      if (destination != nullptr && !from_node && !oracle.IngressOk(*destination, source, flow)) verdict.ingress = false;
    }
  }
  return verdict;
}

}  // namespace vsocket::policy::testing
