#include "node-agent/policy/tables.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "node-agent/policy/cluster_diff.h"

namespace vsocket::policy {
namespace {

std::string FullName(const model::LocalPod& pod) {
  return pod.ns + "/" + pod.name;
}

}  // namespace

void Tables::AddAddressesOf(IdentityId identity, Effect& effect) const {
  for (const PodId pod : pods_.WithIdentity(identity)) {
    const auto& ips = pods_.At(pod).ips;
    effect.addresses.insert(ips.begin(), ips.end());
  }
}

Tables::Effect Tables::Apply(const model::ClusterState& before, const model::ClusterState& now, const std::vector<model::LocalPod>& wired) {
  Effect effect;
  for (const auto& change : Diff(before.namespaces, now.namespaces)) {
    const auto labels = change.now == nullptr ? std::nullopt : std::optional((*change.now)->labels);
    for (const IdentityId identity : membership_.SetNamespace(change.name, labels)) AddAddressesOf(identity, effect);
  }
  for (const auto& change : Diff(before.policies, now.policies)) {
    policies_.Set(change.name, change.now == nullptr ? nullptr : &**change.now, effect.reisolated);
  }
  for (const IdentityId identity : effect.reisolated) {
    policies_.Refresh(identity);
    AddAddressesOf(identity, effect);
  }
  ApplyPods(before.pods, now.pods, wired, effect);
  return effect;
}

void Tables::ApplyPods(const std::vector<model::Shared<model::Pod>>& before, const std::vector<model::Shared<model::Pod>>& now,
                       const std::vector<model::LocalPod>& wired, Effect& effect) {
  // Names by which a pod was or is wired are looked at again; the objects that changed are, whatever is wired.
  std::set<std::string> rewired;
  const auto note_missing = [&](const std::vector<model::LocalPod>& these, const std::vector<model::LocalPod>& among) {
    for (const model::LocalPod& pod : these) {
      if (std::find(among.begin(), among.end(), pod) == among.end()) rewired.insert(FullName(pod));
    }
  };
  note_missing(wired, wired_);
  note_missing(wired_, wired);
  wired_ = wired;
  std::map<std::string, std::vector<const model::LocalPod*>> by_name;
  for (const model::LocalPod& pod : wired_) by_name[FullName(pod)].push_back(&pod);
  static const std::vector<const model::LocalPod*> kNotWired;
  const auto wired_as = [&](const std::string& name) -> const std::vector<const model::LocalPod*>& {
    const auto found = by_name.find(name);
    return found == by_name.end() ? kNotWired : found->second;
  };
  PodChanges changes;
  for (const auto& change : Diff(before, now)) {
    rewired.erase(change.name);
    pods_.Set(change.name, change.now, wired_as(change.name), changes);
  }
  for (const std::string& name : rewired) {
    const model::Shared<model::Pod>* known = pods_.ObjectOf(name);
    const auto object = known == nullptr ? std::nullopt : std::optional(*known);
    pods_.Set(name, object ? &*object : nullptr, wired_as(name), changes);
  }
  for (const IdentityId identity : changes.identities) policies_.Refresh(identity);
  effect.addresses.merge(changes.addresses);
  effect.names = std::move(changes.names);
}

}  // namespace vsocket::policy
