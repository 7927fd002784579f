#include "node-agent/policy/compiled_policies.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "node-agent/model/selector.h"

namespace vsocket::policy {
namespace {

// kubernetes.io/metadata.name: the API server sets it on every namespace, so a manifest need not.
constexpr const char* kNamespaceNameLabel = "kubernetes.io/metadata.name";

// A spelling of the selector that is equal for equal selectors and different for different ones (lengths before texts).
void AppendText(std::string& key, const std::string& text) {
  key += std::to_string(text.size()) + ":" + text;
}

void AppendSelector(std::string& key, const std::optional<model::LabelSelector>& selector) {
  if (!selector) {
    key += "-";
    return;
  }
  key += "{" + std::to_string(selector->match_labels.size()) + ",";
  for (const auto& [name, value] : selector->match_labels) {
    AppendText(key, name);
    AppendText(key, value);
  }
  key += std::to_string(selector->match_expressions.size()) + ",";
  for (const model::SelectorTerm& term : selector->match_expressions) {
    AppendText(key, term.key);
    key += std::to_string(static_cast<int>(term.op)) + "," + std::to_string(term.values.size()) + ",";
    for (const std::string& value : term.values) AppendText(key, value);
  }
  key += "}";
}

}  // namespace

std::size_t IpAddressHash::operator()(const model::IpAddress& address) const {
  const auto& bytes = address.Bytes();
  return std::hash<std::string_view>()({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

CompiledPolicies::CompiledPolicies(const model::ClusterState& state) : state_(state) {
  for (const model::Namespace& ns : state_.namespaces) namespace_labels_.emplace(ns.name, ns.labels);
  // A namespace without an object of its own exists as soon as a pod is in it.
  for (const model::Pod& pod : state_.pods) namespace_labels_.try_emplace(pod.ns);
  for (auto& [name, labels] : namespace_labels_) labels[kNamespaceNameLabel] = name;
  AssignIdentities();

  ingress_isolating_.resize(identities_.size());
  egress_isolating_.resize(identities_.size());
  policies_.reserve(state_.policies.size());  // pointers into it are kept
  for (const model::NetworkPolicy& policy : state_.policies) {
    policies_.push_back({policy.ns + "/" + policy.name, CompileRules(policy.ns, policy.ingress), CompileRules(policy.ns, policy.egress)});
    const Group& subjects = groups_[GroupFor(policy.ns, {policy.pod_selector, std::nullopt, std::nullopt})];
    for (std::size_t identity = 0; identity < identities_.size(); ++identity) {
      if (!subjects[identity]) continue;
      if (policy.isolates_ingress) ingress_isolating_[identity].push_back(&policies_.back());
      if (policy.isolates_egress) egress_isolating_[identity].push_back(&policies_.back());
    }
  }
}

void CompiledPolicies::AssignIdentities() {
  std::map<std::pair<std::string, model::Labels>, std::size_t> known;
  identity_of_pod_.assign(state_.pods.size(), kNoIdentity);
  for (std::size_t i = 0; i < state_.pods.size(); ++i) {
    const model::Pod& pod = state_.pods[i];
    pods_by_name_.emplace(pod.ns + "/" + pod.name, i);  // the first of a name wins
    if (pod.finished || pod.host_network) continue;
    const auto [entry, added] = known.try_emplace({pod.ns, pod.labels}, identities_.size());
    if (added) identities_.push_back({pod.ns, pod.labels, &namespace_labels_.at(pod.ns)});
    identity_of_pod_[i] = entry->second;
    for (const model::IpAddress& ip : pod.ips) {
      auto& claimants = pods_by_address_[ip];
      if (claimants.empty() || claimants.back() != i) claimants.push_back(i);
    }
  }
}

std::size_t CompiledPolicies::GroupFor(const std::string& policy_ns, const model::PolicyPeer& peer) {
  std::string key;
  // Only a peer without a namespaceSelector depends on the policy's own namespace.
  if (!peer.namespace_selector) AppendText(key, policy_ns);
  AppendSelector(key, peer.pod_selector);
  AppendSelector(key, peer.namespace_selector);
  const auto [entry, added] = group_by_key_.try_emplace(std::move(key), groups_.size());
  if (added) {
    Group members(identities_.size());
    for (std::size_t i = 0; i < identities_.size(); ++i) {
      const Identity& identity = identities_[i];
      const bool in_namespace =
          peer.namespace_selector ? model::Matches(*peer.namespace_selector, *identity.namespace_labels) : identity.ns == policy_ns;
      members[i] = in_namespace && (!peer.pod_selector || model::Matches(*peer.pod_selector, identity.labels));
    }
    groups_.push_back(std::move(members));
  }
  return entry->second;
}

std::vector<CompiledRule> CompiledPolicies::CompileRules(const std::string& policy_ns, const std::vector<model::PolicyRule>& rules) {
  std::vector<CompiledRule> compiled;
  compiled.reserve(rules.size());
  for (const model::PolicyRule& rule : rules) {
    CompiledRule& out = compiled.emplace_back();
    out.source = &rule;
    out.peers.reserve(rule.peers.size());
    for (const model::PolicyPeer& peer : rule.peers) {
      if (peer.ip_block) {
        out.peers.push_back({&*peer.ip_block, 0});
      } else if (peer.pod_selector || peer.namespace_selector) {
        out.peers.push_back({nullptr, GroupFor(policy_ns, peer)});
      } else {
        // No source lets a peer without any member pass; should one come, it selects nobody rather than everybody.
        groups_.emplace_back(identities_.size());
        out.peers.push_back({nullptr, groups_.size() - 1});
      }
    }
  }
  return compiled;
}

const std::vector<std::size_t>& CompiledPolicies::PodsAt(const model::IpAddress& address) const {
  static const std::vector<std::size_t> kNone;
  const auto found = pods_by_address_.find(address);
  return found == pods_by_address_.end() ? kNone : found->second;
}

std::size_t CompiledPolicies::PodNamed(const std::string& ns_name) const {
  const auto found = pods_by_name_.find(ns_name);
  return found == pods_by_name_.end() ? kNoPod : found->second;
}

const std::vector<const CompiledPolicy*>& CompiledPolicies::Isolating(std::size_t pod, Direction direction) const {
  return (direction == Direction::kIngress ? ingress_isolating_ : egress_isolating_)[identity_of_pod_[pod]];
}

bool CompiledPolicies::InGroup(std::size_t pod, std::size_t group) const {
  return groups_[group][identity_of_pod_[pod]];
}

}  // namespace vsocket::policy
