#include "node-agent/policy/policy_table.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace vsocket::policy {

void PolicyTable::Set(const std::string& name, const model::NetworkPolicy* policy, std::set<IdentityId>& touched) {
  // The new one first: groups that both use stay.
  PolicyId added = kNone;
  if (policy != nullptr) {
    added = policies_.Add(Compile(*policy, membership_));
    const auto& members = membership_.MembersOf(policies_[added].subjects);
    touched.insert(members.begin(), members.end());
    by_subjects_[policies_[added].subjects].push_back(added);
  }
  if (const auto known = by_name_.find(name); known != by_name_.end()) {
    Remove(known->second, touched);
    by_name_.erase(known);
  }
  problems_.erase(name);
  if (added == kNone) return;
  by_name_.emplace(name, added);
  if (!policies_[added].problems.empty()) problems_.emplace(name, policies_[added].problems);
}

void PolicyTable::Remove(PolicyId id, std::set<IdentityId>& touched) {
  const CompiledPolicy& policy = policies_[id];
  const auto& members = membership_.MembersOf(policy.subjects);
  touched.insert(members.begin(), members.end());
  const auto entry = by_subjects_.find(policy.subjects);
  std::erase(entry->second, id);
  if (entry->second.empty()) by_subjects_.erase(entry);
  for (const GroupId group : policy.groups) membership_.ReleaseGroup(group);
  policies_.Remove(id);
}

void PolicyTable::Refresh(IdentityId identity) {
  if (isolating_.size() <= identity) isolating_.resize(identity + 1);
  std::vector<PolicyId> selecting;
  for (const GroupId group : membership_.GroupsOf(identity)) {
    const auto found = by_subjects_.find(group);
    if (found != by_subjects_.end()) selecting.insert(selecting.end(), found->second.begin(), found->second.end());
  }
  std::sort(selecting.begin(), selecting.end(), [this](PolicyId a, PolicyId b) { return policies_[a].name < policies_[b].name; });
  for (const Direction direction : kDirections) {
    auto& isolating = isolating_[identity][Index(direction)];
    isolating.clear();
    std::copy_if(selecting.begin(), selecting.end(), std::back_inserter(isolating),
                 [&](PolicyId policy) { return policies_[policy].isolates[Index(direction)]; });
  }
}

}  // namespace vsocket::policy
