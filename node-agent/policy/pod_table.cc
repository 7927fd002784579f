#include "node-agent/policy/pod_table.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace vsocket::policy {
namespace {

bool InPodNetwork(const model::Pod& pod) {
  return !pod.finished && !pod.host_network;
}

bool IsObjectOf(const model::LocalPod& wired, const model::Pod& object) {
  return wired.uid.empty() || object.uid.empty() || wired.uid == object.uid;
}

}  // namespace

std::vector<EffectivePod> EffectivePods(const model::Shared<model::Pod>* object, const std::vector<const model::LocalPod*>& wired) {
  std::vector<EffectivePod> pods;
  for (const model::LocalPod* here : wired) {
    model::Pod pod;
    if (object != nullptr && IsObjectOf(*here, **object)) pod = **object;
    pod.ns = here->ns;
    pod.name = here->name;
    if (!here->uid.empty()) pod.uid = here->uid;
    pod.ips = here->ips;
    pod.host_network = false;
    pods.push_back({std::move(pod), true});
  }
  if (wired.empty() && object != nullptr) pods.push_back({*object, false});
  return pods;
}

const model::Shared<model::Pod>& PodTable::NoPod() {
  static const model::Shared<model::Pod> kNothing;
  return kNothing;
}

bool PodTable::SameForPolicies(const model::Pod& a, const model::Pod& b) {
  return a.uid == b.uid && a.labels == b.labels && a.ips == b.ips && a.ports == b.ports && a.host_network == b.host_network &&
         a.finished == b.finished;
}

void PodTable::Set(const std::string& name, const model::Shared<model::Pod>* object, const std::vector<const model::LocalPod*>& wired,
                   PodChanges& changes) {
  std::vector<EffectivePod> wanted = EffectivePods(object, wired);
  Name& entry = names_[name];
  if (object != nullptr) {
    entry.object = *object;
  } else {
    entry.object.reset();
  }
  const bool same = wanted.size() == entry.pods.size() &&
                    std::equal(wanted.begin(), wanted.end(), entry.pods.begin(),
                               [&](auto& a, PodId b) { return a.wired == pods_[b].wired && SameForPolicies(*a.pod, *pods_[b].pod); });
  if (same) {
    for (std::size_t i = 0; i < wanted.size(); ++i) pods_[entry.pods[i]].pod = std::move(wanted[i].pod);
  } else {
    changes.names.insert(name);
    for (const PodId pod : entry.pods) Remove(pod, changes);
    entry.pods.clear();
    for (EffectivePod& pod : wanted) entry.pods.push_back(Add(std::move(pod), changes));
    std::vector<std::string> unclear;
    for (const PodId pod : entry.pods) {
      for (std::string& port : AmbiguousPortNames(At(pod))) unclear.push_back(std::move(port));
    }
    if (unclear.empty()) {
      ambiguous_.erase(name);
    } else {
      ambiguous_[name] = std::move(unclear);
    }
  }
  if (!entry.object && entry.pods.empty()) names_.erase(name);
}

PodId PodTable::Add(EffectivePod pod, PodChanges& changes) {
  Entry entry;
  entry.pod = std::move(pod.pod);
  entry.wired = pod.wired;
  const PodId id = pods_.Add(std::move(entry));
  Entry& added = pods_[id];
  const model::Pod& value = *added.pod;
  if (!InPodNetwork(value)) return id;
  bool is_new = false;
  added.identity = membership_.Acquire(value.ns, value.labels, &is_new);
  if (is_new) changes.identities.insert(added.identity);
  if (by_identity_.size() <= added.identity) by_identity_.resize(added.identity + 1);
  auto& alike = by_identity_[added.identity];
  added.place = static_cast<std::uint32_t>(alike.size());
  alike.push_back(id);
  for (const model::IpAddress& ip : value.ips) {
    changes.addresses.insert(ip);
    Claim& claim = addresses_[ip];
    if (std::find(claim.pods.begin(), claim.pods.end(), id) != claim.pods.end()) continue;
    const auto before = [this](PodId a, PodId b) {
      return std::tuple(!pods_[a].wired, pods_[a].pod->ns, pods_[a].pod->name, pods_[a].pod->uid) <
             std::tuple(!pods_[b].wired, pods_[b].pod->ns, pods_[b].pod->name, pods_[b].pod->uid);
    };
    claim.pods.insert(std::upper_bound(claim.pods.begin(), claim.pods.end(), id, before), id);
    if (added.wired) ++claim.wired;
    NoteContest(ip);
  }
  return id;
}

void PodTable::Remove(PodId id, PodChanges& changes) {
  Entry& entry = pods_[id];
  if (entry.identity != kNone) {
    for (const model::IpAddress& ip : entry.pod->ips) {
      changes.addresses.insert(ip);
      const auto found = addresses_.find(ip);
      if (found == addresses_.end() || std::erase(found->second.pods, id) == 0) continue;
      if (entry.wired) --found->second.wired;
      if (found->second.pods.empty()) addresses_.erase(found);
      NoteContest(ip);
    }
    auto& alike = by_identity_[entry.identity];
    pods_[alike.back()].place = entry.place;
    alike[entry.place] = alike.back();
    alike.pop_back();
    membership_.Release(entry.identity);
  }
  pods_.Remove(id);
}

void PodTable::NoteContest(const model::IpAddress& address) {
  if (At(address).size() > 1) {
    contested_.insert(address);
  } else {
    contested_.erase(address);
  }
}

std::span<const PodId> PodTable::At(const model::IpAddress& address) const {
  const auto found = addresses_.find(address);
  if (found == addresses_.end()) return {};
  const Claim& claim = found->second;
  return std::span(claim.pods).first(claim.wired == 0 ? claim.pods.size() : claim.wired);
}

const model::Shared<model::Pod>* PodTable::ObjectOf(const std::string& name) const {
  const auto found = names_.find(name);
  return found == names_.end() || !found->second.object ? nullptr : &*found->second.object;
}

PodId PodTable::Named(const std::string& name) const {
  const auto found = names_.find(name);
  return found == names_.end() || found->second.pods.empty() ? kNone : found->second.pods.front();
}

PodId PodTable::Wired(const std::string& name, const std::string& uid) const {
  const auto found = names_.find(name);
  if (found == names_.end()) return kNone;
  for (const PodId pod : found->second.pods) {
    if (pods_[pod].wired && (uid.empty() || pods_[pod].pod->uid == uid)) return pod;
  }
  return kNone;
}

const std::vector<PodId>& PodTable::WithIdentity(IdentityId identity) const {
  static const std::vector<PodId> kNobody;
  return identity < by_identity_.size() ? by_identity_[identity] : kNobody;
}

}  // namespace vsocket::policy
