#include "node-agent/policy/membership.h"

#include <algorithm>
#include <utility>

#include "node-agent/model/selector.h"

namespace vsocket::policy {
namespace {

// The API server sets it on every namespace, so a manifest need not.
constexpr const char* kNamespaceNameLabel = "kubernetes.io/metadata.name";

// Spellings that are equal for equal values and different for different ones: lengths before texts.
void AppendText(std::string& key, const std::string& text) {
  key += std::to_string(text.size());
  key += ':';
  key += text;
}

void AppendLabels(std::string& key, const model::Labels& labels) {
  key += std::to_string(labels.size()) + ",";
  for (const auto& [name, value] : labels) {
    AppendText(key, name);
    AppendText(key, value);
  }
}

void AppendSelector(std::string& key, const std::optional<model::LabelSelector>& selector) {
  if (!selector) {
    key += "-";
    return;
  }
  key += "{";
  AppendLabels(key, selector->match_labels);
  key += std::to_string(selector->match_expressions.size()) + ",";
  for (const model::SelectorTerm& term : selector->match_expressions) {
    AppendText(key, term.key);
    key += std::to_string(static_cast<int>(term.op)) + "," + std::to_string(term.values.size()) + ",";
    for (const std::string& value : term.values) AppendText(key, value);
  }
  key += "}";
}

std::string KeyOf(const Membership::Selector& selector) {
  std::string key;
  // Only a peer without a namespaceSelector depends on the policy's own namespace.
  if (!selector.namespaces) AppendText(key, selector.ns);
  AppendSelector(key, selector.pods);
  AppendSelector(key, selector.namespaces);
  return key;
}

void Erase(std::vector<std::uint32_t>& ids, std::uint32_t id) {
  const auto found = std::find(ids.begin(), ids.end(), id);
  if (found == ids.end()) return;
  *found = ids.back();
  ids.pop_back();
}

}  // namespace

Membership::NamespaceEntry& Membership::NamespaceOf(const std::string& ns) {
  const auto [entry, added] = namespaces_.try_emplace(ns);
  if (added) entry->second.labels[kNamespaceNameLabel] = ns;
  return entry->second;
}

void Membership::ForgetNamespaceIfUnused(const std::string& ns) {
  const auto found = namespaces_.find(ns);
  if (found == namespaces_.end()) return;
  const NamespaceEntry& entry = found->second;
  if (!entry.has_object && entry.identities.empty() && entry.groups.empty()) namespaces_.erase(found);
}

bool Membership::Matches(const Selector& selector, const Identity& identity, const NamespaceEntry& ns) const {
  const bool in_namespace = selector.namespaces ? model::Matches(*selector.namespaces, ns.labels) : identity.ns == selector.ns;
  return in_namespace && (!selector.pods || model::Matches(*selector.pods, identity.labels));
}

IdentityId Membership::Acquire(const std::string& ns, const model::Labels& labels, bool* is_new) {
  std::string key;
  AppendText(key, ns);
  AppendLabels(key, labels);
  const auto known = identity_by_key_.find(key);
  *is_new = known == identity_by_key_.end();
  if (!*is_new) {
    ++identities_[known->second].pods;
    return known->second;
  }
  const IdentityId id = identities_.Add({key, ns, labels, 1, {}});
  identity_by_key_.emplace(std::move(key), id);
  NamespaceEntry& entry = NamespaceOf(ns);
  entry.identities.push_back(id);
  Identity& identity = identities_[id];
  for (const std::vector<GroupId>* candidates : {&entry.groups, &wide_groups_}) {
    for (const GroupId group : *candidates) {
      if (!Matches(groups_[group].selector, identity, entry)) continue;
      identity.groups.push_back(group);
      groups_[group].members.push_back(id);
    }
  }
  std::sort(identity.groups.begin(), identity.groups.end());
  return id;
}

void Membership::Release(IdentityId id) {
  Identity& identity = identities_[id];
  if (--identity.pods != 0) return;
  for (const GroupId group : identity.groups) Erase(groups_[group].members, id);
  Erase(NamespaceOf(identity.ns).identities, id);
  identity_by_key_.erase(identity.key);
  const std::string ns = identity.ns;
  identities_.Remove(id);
  ForgetNamespaceIfUnused(ns);
}

GroupId Membership::AcquireGroup(const Selector& selector) {
  std::string key = KeyOf(selector);
  const auto known = group_by_key_.find(key);
  if (known != group_by_key_.end()) {
    ++groups_[known->second].uses;
    return known->second;
  }
  const GroupId id = groups_.Add({key, selector, 1, {}});
  group_by_key_.emplace(std::move(key), id);
  Group& group = groups_[id];
  const auto join = [&](const NamespaceEntry& entry) {
    for (const IdentityId member : entry.identities) {
      Identity& identity = identities_[member];
      if (!Matches(selector, identity, entry)) continue;
      group.members.push_back(member);
      identity.groups.insert(std::lower_bound(identity.groups.begin(), identity.groups.end(), id), id);
    }
  };
  if (selector.namespaces) {
    wide_groups_.push_back(id);
    for (const auto& [name, entry] : namespaces_) join(entry);
  } else {
    NamespaceEntry& entry = NamespaceOf(selector.ns);
    entry.groups.push_back(id);
    join(entry);
  }
  return id;
}

void Membership::ReleaseGroup(GroupId id) {
  Group& group = groups_[id];
  if (--group.uses != 0) return;
  for (const IdentityId member : group.members) {
    auto& groups = identities_[member].groups;
    groups.erase(std::lower_bound(groups.begin(), groups.end(), id));
  }
  const Selector selector = std::move(group.selector);
  group_by_key_.erase(group.key);
  groups_.Remove(id);
  if (selector.namespaces) {
    Erase(wide_groups_, id);
  } else {
    Erase(NamespaceOf(selector.ns).groups, id);
    ForgetNamespaceIfUnused(selector.ns);
  }
}

std::vector<IdentityId> Membership::SetNamespace(const std::string& ns, const std::optional<model::Labels>& labels) {
  NamespaceEntry& entry = NamespaceOf(ns);
  model::Labels wanted = labels.value_or(model::Labels());
  wanted[kNamespaceNameLabel] = ns;
  entry.has_object = labels.has_value();
  std::vector<IdentityId> changed;
  if (wanted != entry.labels) {
    entry.labels = std::move(wanted);
    for (const IdentityId id : entry.identities) {
      Identity& identity = identities_[id];
      bool differs = false;
      for (const GroupId group : wide_groups_) {
        const auto at = std::lower_bound(identity.groups.begin(), identity.groups.end(), group);
        const bool was = at != identity.groups.end() && *at == group;
        const bool is = Matches(groups_[group].selector, identity, entry);
        if (was == is) continue;
        differs = true;
        if (is) {
          identity.groups.insert(at, group);
          groups_[group].members.push_back(id);
        } else {
          identity.groups.erase(at);
          Erase(groups_[group].members, id);
        }
      }
      if (differs) changed.push_back(id);
    }
  }
  ForgetNamespaceIfUnused(ns);
  return changed;
}

bool Membership::InGroup(IdentityId identity, GroupId group) const {
  const auto& groups = identities_[identity].groups;
  return std::binary_search(groups.begin(), groups.end(), group);
}

}  // namespace vsocket::policy
