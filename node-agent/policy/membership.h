// Which identities (a namespace and a set of labels) match which selectors. This is the only place where selectors are matched: once for
// an identity, however many pods have it, and once for a selector, however many rules use it.
//
// Thread safety: none; const methods may run at the same time.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "node-agent/model/cluster.h"
#include "node-agent/policy/ids.h"

namespace vsocket::policy {

class Membership {
 public:
  // What a group selects: pods by their labels (nothing: all of them), in one namespace, or in those that match.
  struct Selector {
    std::string ns;  // unused with a namespace_selector
    std::optional<model::LabelSelector> pods;
    std::optional<model::LabelSelector> namespaces;
  };

  // One more pod with these labels. `*is_new`: nobody had them before.
  IdentityId Acquire(const std::string& ns, const model::Labels& labels, bool* is_new);
  void Release(IdentityId identity);  // one pod fewer; with the last one the identity goes

  // One more use of the selector.
  GroupId AcquireGroup(const Selector& selector);
  void ReleaseGroup(GroupId group);

  // The labels of the namespace's object; nothing: it has none. Every namespace has its name as a label (kubernetes.io/metadata.name),
  // object or not. Gives the identities whose groups have changed.
  std::vector<IdentityId> SetNamespace(const std::string& ns, const std::optional<model::Labels>& labels);

  [[nodiscard]] const std::vector<GroupId>& GroupsOf(IdentityId identity) const { return identities_[identity].groups; }  // sorted
  [[nodiscard]] const std::vector<IdentityId>& MembersOf(GroupId group) const { return groups_[group].members; }
  [[nodiscard]] bool InGroup(IdentityId identity, GroupId group) const;
  [[nodiscard]] std::size_t Identities() const { return identities_.Count(); }
  [[nodiscard]] std::size_t Groups() const { return groups_.Count(); }

 private:
  struct Identity {
    std::string key;
    std::string ns;
    model::Labels labels;
    std::uint32_t pods = 0;
    std::vector<GroupId> groups;
  };
  struct Group {
    std::string key;
    Selector selector;
    std::uint32_t uses = 0;
    std::vector<IdentityId> members;
  };
  struct NamespaceEntry {
    model::Labels labels;
    bool has_object = false;
    std::vector<IdentityId> identities;
    std::vector<GroupId> groups;  // without a namespace_selector
  };

  NamespaceEntry& NamespaceOf(const std::string& ns);
  void ForgetNamespaceIfUnused(const std::string& ns);
  [[nodiscard]] bool Matches(const Selector& selector, const Identity& identity, const NamespaceEntry& ns) const;

  Slots<Identity> identities_;
  Slots<Group> groups_;
  std::unordered_map<std::string, IdentityId> identity_by_key_;
  std::unordered_map<std::string, GroupId> group_by_key_;
  std::unordered_map<std::string, NamespaceEntry> namespaces_;
  std::vector<GroupId> wide_groups_;  // with a namespace_selector
};

}  // namespace vsocket::policy
