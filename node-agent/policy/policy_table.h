// The compiled policies, and which of them isolate which identity.
//
// Thread safety: none; const methods may run at the same time.
#pragma once

#include <array>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "node-agent/model/cluster.h"
#include "node-agent/policy/compiled_policy.h"
#include "node-agent/policy/ids.h"
#include "node-agent/policy/membership.h"

namespace vsocket::policy {

class PolicyTable {
 public:
  explicit PolicyTable(Membership& membership) : membership_(membership) {}
  PolicyTable(const PolicyTable&) = delete;
  PolicyTable& operator=(const PolicyTable&) = delete;

  // Compiles the policy of this name ("ns/name") anew, and nothing else; null removes it. Adds the identities that it selected or selects.
  void Set(const std::string& name, const model::NetworkPolicy* policy, std::set<IdentityId>& touched);
  // Finds out which policies isolate the identity: when it is new, and when Set has touched it.
  void Refresh(IdentityId identity);

  [[nodiscard]] const CompiledPolicy& At(PolicyId policy) const { return policies_[policy]; }
  [[nodiscard]] const std::vector<PolicyId>& Isolating(IdentityId identity, Direction direction) const {
    return isolating_[identity][Index(direction)];  // in the order of their names
  }
  // Policies with something wrong in them.
  [[nodiscard]] const std::map<std::string, std::vector<std::string>>& Problems() const { return problems_; }
  [[nodiscard]] std::size_t Count() const { return policies_.Count(); }

 private:
  void Remove(PolicyId policy, std::set<IdentityId>& touched);

  Membership& membership_;
  Slots<CompiledPolicy> policies_;
  std::unordered_map<std::string, PolicyId> by_name_;
  std::unordered_map<GroupId, std::vector<PolicyId>> by_subjects_;
  std::vector<std::array<std::vector<PolicyId>, 2>> isolating_;  // by identity
  std::map<std::string, std::vector<std::string>> problems_;
};

}  // namespace vsocket::policy
