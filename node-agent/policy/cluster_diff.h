// What is different between two snapshots that follow each other. They share what has not changed, and keep their order, so almost all of
// it is passed over by comparing addresses from both ends.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "node-agent/model/cluster.h"

namespace vsocket::policy {

inline std::string FullName(const model::Pod& pod) {
  return pod.ns + "/" + pod.name;
}
inline std::string FullName(const model::NetworkPolicy& policy) {
  return policy.ns + "/" + policy.name;
}
inline std::string FullName(const model::Namespace& ns) {
  return ns.name;
}

template <typename T>
struct ObjectChange {
  std::string name;
  const model::Shared<T>* now = nullptr;  // in the newer snapshot; null: gone
};

// Those that are gone first. Equal objects are no change.
template <typename T>
std::vector<ObjectChange<T>> Diff(const std::vector<model::Shared<T>>& before, const std::vector<model::Shared<T>>& now) {
  std::size_t first = 0, old_end = before.size(), new_end = now.size();
  while (first < old_end && first < new_end && before[first] == now[first]) ++first;
  while (old_end > first && new_end > first && before[old_end - 1] == now[new_end - 1]) {
    --old_end;
    --new_end;
  }
  std::unordered_map<std::string, const model::Shared<T>*> known;
  for (std::size_t i = first; i < old_end; ++i) known.emplace(FullName(*before[i]), &before[i]);
  std::vector<ObjectChange<T>> changed;
  for (std::size_t i = first; i < new_end; ++i) {
    std::string name = FullName(*now[i]);
    const auto found = known.find(name);
    const bool same = found != known.end() && *found->second == now[i];
    if (found != known.end()) known.erase(found);
    if (!same) changed.push_back({std::move(name), &now[i]});
  }
  std::vector<ObjectChange<T>> changes;
  for (const auto& [name, object] : known) changes.push_back({name, nullptr});
  changes.insert(changes.end(), changed.begin(), changed.end());
  return changes;
}

}  // namespace vsocket::policy
