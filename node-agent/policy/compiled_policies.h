// A snapshot's policies, resolved once: pods to identities (namespace + labels), selectors to sets of identities, addresses to pods.
// Selectors are matched here and nowhere else, so a verdict costs look-ups only, however many pods there are.
//
// Thread safety: immutable after construction. Points into the snapshot, which must outlive it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "node-agent/model/cluster.h"

namespace vsocket::policy {

struct IpAddressHash {
  std::size_t operator()(const model::IpAddress& address) const;
};

enum class Direction : std::uint8_t { kIngress, kEgress };

// Membership by identity.
using Group = std::vector<bool>;

struct CompiledPeer {
  const model::IpBlock* block = nullptr;  // set: an ipBlock peer, `group` is unused
  std::size_t group = 0;
};

struct CompiledRule {
  const model::PolicyRule* source = nullptr;  // for its ports
  std::vector<CompiledPeer> peers;            // empty: everyone
};

struct CompiledPolicy {
  std::string name;  // "ns/name"
  std::vector<CompiledRule> ingress;
  std::vector<CompiledRule> egress;
  [[nodiscard]] const std::vector<CompiledRule>& Rules(Direction direction) const {
    return direction == Direction::kIngress ? ingress : egress;
  }
};

class CompiledPolicies {
 public:
  // An index into State().pods; kNoPod for an address that is no pod's.
  static constexpr std::size_t kNoPod = static_cast<std::size_t>(-1);

  explicit CompiledPolicies(const model::ClusterState& state);
  CompiledPolicies(const CompiledPolicies&) = delete;
  CompiledPolicies& operator=(const CompiledPolicies&) = delete;

  [[nodiscard]] const model::ClusterState& State() const { return state_; }
  [[nodiscard]] const model::Pod& PodAt(std::size_t pod) const { return state_.pods[pod]; }

  // True when policies see the pod as a pod: neither finished nor in the host's network.
  [[nodiscard]] bool InPodNetwork(std::size_t pod) const { return identity_of_pod_[pod] != kNoIdentity; }
  // Pods in the pod network that claim the address; usually none or one.
  [[nodiscard]] const std::vector<std::size_t>& PodsAt(const model::IpAddress& address) const;
  // Any pod, in the pod network or not; kNoPod when there is none of that name.
  [[nodiscard]] std::size_t PodNamed(const std::string& ns_name) const;

  // The policies that isolate the pod (which must be InPodNetwork) in this direction.
  [[nodiscard]] const std::vector<const CompiledPolicy*>& Isolating(std::size_t pod, Direction direction) const;
  [[nodiscard]] bool InGroup(std::size_t pod, std::size_t group) const;

 private:
  static constexpr std::size_t kNoIdentity = static_cast<std::size_t>(-1);
  struct Identity {
    std::string ns;
    model::Labels labels;
    const model::Labels* namespace_labels;
  };

  void AssignIdentities();
  std::size_t GroupFor(const std::string& policy_ns, const model::PolicyPeer& peer);
  std::vector<CompiledRule> CompileRules(const std::string& policy_ns, const std::vector<model::PolicyRule>& rules);

  const model::ClusterState& state_;
  std::map<std::string, model::Labels> namespace_labels_;
  std::vector<Identity> identities_;
  std::vector<std::size_t> identity_of_pod_;
  std::unordered_map<model::IpAddress, std::vector<std::size_t>, IpAddressHash> pods_by_address_;
  std::unordered_map<std::string, std::size_t> pods_by_name_;
  std::vector<CompiledPolicy> policies_;
  std::vector<Group> groups_;
  std::unordered_map<std::string, std::size_t> group_by_key_;
  std::vector<std::vector<const CompiledPolicy*>> ingress_isolating_;  // by identity
  std::vector<std::vector<const CompiledPolicy*>> egress_isolating_;   // by identity
};

}  // namespace vsocket::policy
