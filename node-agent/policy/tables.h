// All stages of the compiler together: pods -> identities -> groups -> policies. Built by changes only: the first state is one large
// change, and a change costs what it touches.
//
// Thread safety: none; const methods may run at the same time.
#pragma once

#include <set>
#include <span>
#include <string>
#include <vector>

#include "node-agent/model/affected.h"
#include "node-agent/model/cluster.h"
#include "node-agent/model/local_pod.h"
#include "node-agent/policy/ids.h"
#include "node-agent/policy/membership.h"
#include "node-agent/policy/pod_table.h"
#include "node-agent/policy/policy_table.h"

namespace vsocket::policy {

class Tables {
 public:
  Tables() : pods_(membership_), policies_(membership_) {}

  struct Effect {
    std::set<model::IpAddress> addresses;  // flows with an end here may be judged otherwise now
    std::set<std::string> names;           // of pods that are new, gone, or others now
    std::set<IdentityId> reisolated;       // identities that are selected by a policy that is new, gone or another now
  };
  // From `before` (what the last Apply was given as `now`; empty at first) to `now`.
  Effect Apply(const model::ClusterState& before, const model::ClusterState& now, const std::vector<model::LocalPod>& wired);

  // True when policies see the pod as a pod: neither finished nor in the host's network.
  [[nodiscard]] bool InPodNetwork(PodId pod) const { return pods_.IdentityOf(pod) != kNone; }
  [[nodiscard]] const model::Pod& PodAt(PodId pod) const { return pods_.At(pod); }
  [[nodiscard]] std::span<const PodId> PodsAt(const model::IpAddress& address) const { return pods_.At(address); }
  [[nodiscard]] const PodTable& Pods() const { return pods_; }
  [[nodiscard]] const PolicyTable& Policies() const { return policies_; }
  [[nodiscard]] const Membership& Members() const { return membership_; }
  // These two of a pod that is InPodNetwork.
  [[nodiscard]] const std::vector<PolicyId>& Isolating(PodId pod, Direction direction) const {
    return policies_.Isolating(pods_.IdentityOf(pod), direction);
  }
  [[nodiscard]] const std::vector<GroupId>& GroupsOf(PodId pod) const { return membership_.GroupsOf(pods_.IdentityOf(pod)); }

 private:
  void AddAddressesOf(IdentityId identity, Effect& effect) const;
  void ApplyPods(const std::vector<model::Shared<model::Pod>>& before, const std::vector<model::Shared<model::Pod>>& now,
                 const std::vector<model::LocalPod>& wired, Effect& effect);

  Membership membership_;
  PodTable pods_;
  PolicyTable policies_;
  std::vector<model::LocalPod> wired_;
};

}  // namespace vsocket::policy
