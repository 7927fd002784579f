#include "node-agent/policy/local_lists.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "node-agent/policy/allow_list.h"

namespace vsocket::policy {
namespace {

using model::AllowEntry;

std::vector<AllowEntry> Union(const std::vector<AllowEntry>& a, const std::vector<AllowEntry>& b) {
  std::vector<AllowEntry> all;
  all.reserve(a.size() + b.size());
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(all));
  return all;
}

// Those of exactly this address and no other.
std::pair<std::vector<AllowEntry>::const_iterator, std::vector<AllowEntry>::const_iterator> At(const std::vector<AllowEntry>& entries,
                                                                                               const model::IpAddress& address) {
  struct ByRemote {
    bool operator()(const AllowEntry& a, const model::AddressRange& b) const { return a.remote < b; }
    bool operator()(const model::AddressRange& a, const AllowEntry& b) const { return a < b.remote; }
  };
  return std::equal_range(entries.begin(), entries.end(), model::AddressRange{address, address}, ByRemote());
}

const model::DirectionAllowList& SideOf(const model::AllowList& list, Direction direction) {
  return direction == Direction::kIngress ? list.ingress : list.egress;
}

struct Splice {
  std::vector<AllowEntry>::const_iterator from, to;  // in the old list
  std::vector<AllowEntry> instead;
};

}  // namespace

void LocalLists::Flatten(const Tables& tables, PodId pod, Entry& entry, model::AllowList& list) const {
  list = FlattenFor(tables, pod);
  const bool judged = pod != kNone && tables.InPodNetwork(pod);
  for (const Direction direction : kDirections) {
    entry.fixed[Index(direction)] = judged ? FixedEntries(tables, pod, direction) : std::vector<AllowEntry>();
  }
}

bool LocalLists::Patch(const Tables& tables, PodId pod, const std::set<model::IpAddress>& addresses, const Entry& entry,
                       model::AllowList& list) {
  if (pod == kNone || !tables.InPodNetwork(pod)) return false;
  std::vector<Splice> splices[2];
  for (const Direction direction : kDirections) {
    if (tables.Isolating(pod, direction).empty()) continue;
    const auto& old = SideOf(**entry.list, direction).entries;
    const auto& fixed = entry.fixed[Index(direction)];
    AddressEntries entries(tables, pod, direction);
    for (const model::IpAddress& address : addresses) {
      const auto [fixed_from, fixed_to] = At(fixed, address);
      std::vector<AllowEntry> now;
      entries.Append(address, now);
      if (fixed_from != fixed_to) now = Union(now, {fixed_from, fixed_to});
      const auto [from, to] = At(old, address);
      if (!std::equal(from, to, now.begin(), now.end())) splices[Index(direction)].push_back({from, to, std::move(now)});
    }
  }
  if (splices[0].empty() && splices[1].empty()) return false;
  for (const Direction direction : kDirections) {
    const model::DirectionAllowList& old = SideOf(**entry.list, direction);
    model::DirectionAllowList& side = direction == Direction::kIngress ? list.ingress : list.egress;
    side.isolated = old.isolated;
    side.entries.reserve(old.entries.size() + splices[Index(direction)].size());
    auto next = old.entries.begin();
    for (const Splice& splice : splices[Index(direction)]) {
      side.entries.insert(side.entries.end(), next, splice.from);
      side.entries.insert(side.entries.end(), splice.instead.begin(), splice.instead.end());
      next = splice.to;
    }
    side.entries.insert(side.entries.end(), next, old.entries.end());
  }
  return true;
}

std::vector<std::string> LocalLists::Update(const Tables& tables, const Tables::Effect& effect, const std::vector<model::LocalPod>& wired,
                                            const std::vector<model::IpAddress>& node_addresses) {
  std::vector<std::string> changed;
  std::set<Key> present;
  for (const model::LocalPod& local : wired) {
    const std::string name = local.ns + "/" + local.name;
    const Key key{name, local.uid};
    if (!present.insert(key).second) continue;
    const PodId pod = tables.Pods().Wired(name, local.uid);
    Entry& entry = entries_[key];
    model::AllowList list;
    const bool reisolated = pod != kNone && tables.InPodNetwork(pod) && effect.reisolated.contains(tables.Pods().IdentityOf(pod));
    // Where nearly every address has changed, starting again is cheaper than mending.
    const bool mend = entry.list && !reisolated && !effect.names.contains(name) && effect.addresses.size() <= 1024;
    if (mend) {
      const bool patched = Patch(tables, pod, effect.addresses, entry, list);
      if (!patched && (*entry.list)->node_addresses == node_addresses) continue;
      if (!patched) list = **entry.list;
    } else {
      Flatten(tables, pod, entry, list);
    }
    list.pod = name;
    list.node_addresses = node_addresses;
    if (entry.list && **entry.list == list) continue;
    entry.list.emplace(std::move(list));
    changed.push_back(name);
  }
  std::erase_if(entries_, [&](const auto& entry) { return !present.contains(entry.first); });
  return changed;
}

std::optional<SharedAllowList> LocalLists::Of(const model::LocalPod& pod) const {
  const auto found = entries_.find({pod.ns + "/" + pod.name, pod.uid});
  return found == entries_.end() ? std::nullopt : found->second.list;
}

}  // namespace vsocket::policy
