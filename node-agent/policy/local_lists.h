// The allow lists of the pods that are wired on this node, kept in step with the tables: after a change only what it touches is worked out
// again.
//
// Thread safety: none. The lists themselves are immutable.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/model/allow_list.h"
#include "node-agent/model/local_pod.h"
#include "node-agent/policy/tables.h"

namespace vsocket::policy {

using SharedAllowList = model::Shared<model::AllowList>;

class LocalLists {
 public:
  // After Tables::Apply, with what it gave. Gives the pods whose lists are others now ("ns/name"; those that are gone are not among them).
  // A list that has not changed stays the same object.
  std::vector<std::string> Update(const Tables& tables, const Tables::Effect& effect, const std::vector<model::LocalPod>& wired,
                                  const std::vector<model::IpAddress>& node_addresses);
  // Nothing: it is not wired.
  [[nodiscard]] std::optional<SharedAllowList> Of(const model::LocalPod& pod) const;

 private:
  using Key = std::pair<std::string, std::string>;  // "ns/name", uid
  struct Entry {
    std::optional<SharedAllowList> list;
    std::vector<model::AllowEntry> fixed[2];  // FixedEntries, by Direction
  };
  void Flatten(const Tables& tables, PodId pod, Entry& entry, model::AllowList& list) const;
  // False, and `list` untouched, when nothing changes.
  [[nodiscard]] static bool Patch(const Tables& tables, PodId pod, const std::set<model::IpAddress>& addresses, const Entry& entry,
                                  model::AllowList& list);

  std::map<Key, Entry> entries_;
};

}  // namespace vsocket::policy
