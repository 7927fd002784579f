#include "node-agent/kube/replica.h"

#include <algorithm>
#include <set>
#include <unordered_map>
#include <utility>

namespace vsocket::kube {
namespace {

constexpr std::size_t kMostObjects = 500'000;  // of a kind; Kubernetes supports 150,000 pods a cluster
constexpr std::size_t kShownProblems = 50;

struct AddressHash {
  std::size_t operator()(const model::IpAddress& address) const {
    const auto& bytes = address.Bytes();
    return std::hash<std::string_view>()({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
};

// Who has an address: how many that live, how many that are terminating, and the first that lives.
struct Claim {
  std::uint32_t living = 0;
  std::uint32_t terminating = 0;
  std::string first;
};

template <typename T>
void Collect(const std::map<std::string, StoredObjectPtr>& objects, std::vector<T>& out) {
  out.reserve(objects.size());
  for (const auto& [name, stored] : objects) {
    if (const T* value = std::get_if<T>(&stored->object)) out.push_back(*value);
  }
}

bool SameForUs(const StoredObject& a, const StoredObject& b) {
  return a.uid == b.uid && a.terminating == b.terminating && a.object == b.object && a.problem == b.problem && a.quarantine == b.quarantine;
}

}  // namespace

void Replica::BeginList(Kind kind) {
  TableOf(kind).arriving.emplace();
}

bool Replica::AddToList(Kind kind, const Identity& identity, const YamlNode& object) {
  Table& table = TableOf(kind);
  if (table.arriving->size() >= kMostObjects) return false;
  const std::string key = identity.Key();
  // What has not changed is kept, so that listing again does not take twice the memory.
  const auto known = table.objects.find(key);
  const bool same =
      known != table.objects.end() && known->second->uid == identity.uid && known->second->resource_version == identity.resource_version;
  (*table.arriving)[key] = same ? known->second : Store(kind, identity, object);
  return true;
}

void Replica::EndList(Kind kind) {
  Table& table = TableOf(kind);
  const bool same = table.listed && table.objects == *table.arriving;  // the same pointers
  table.objects = std::move(*table.arriving);
  table.arriving.reset();
  table.listed = true;
  if (!same) ++version_;
}

void Replica::AbandonList(Kind kind) {
  TableOf(kind).arriving.reset();
}

bool Replica::Put(Kind kind, const Identity& identity, const YamlNode& object) {
  Table& table = TableOf(kind);
  const auto known = table.objects.find(identity.Key());
  if (known == table.objects.end() && table.objects.size() >= kMostObjects) return false;
  StoredObjectPtr stored = Store(kind, identity, object);
  if (known == table.objects.end()) {
    table.objects.emplace(identity.Key(), std::move(stored));
    ++version_;
    return true;
  }
  // Most events of a pod are about conditions and times, which nobody here looks at.
  if (!SameForUs(*known->second, *stored)) ++version_;
  known->second = std::move(stored);
  return true;
}

void Replica::Remove(Kind kind, const Identity& identity) {
  Table& table = TableOf(kind);
  const auto found = table.objects.find(identity.Key());
  if (found == table.objects.end()) return;
  if (!identity.uid.empty() && !found->second->uid.empty() && identity.uid != found->second->uid) return;
  table.objects.erase(found);
  ++version_;
}

bool Replica::Complete() const {
  return std::all_of(tables_.begin(), tables_.end(), [](const Table& table) { return table.listed; });
}

void Replica::AddPods(View& view) const {
  const Objects& pods = TableOf(Kind::kPod).objects;
  std::unordered_map<model::IpAddress, Claim, AddressHash> claims;
  claims.reserve(pods.size() * 2);
  const auto claimant = [](const StoredObject& stored) {
    const auto* pod = std::get_if<model::Pod>(&stored.object);
    return pod != nullptr && !pod->finished && !pod->host_network ? pod : nullptr;
  };
  for (const auto& [name, stored] : pods) {
    const model::Pod* pod = claimant(*stored);
    if (pod == nullptr) continue;
    for (const model::IpAddress& ip : pod->ips) {
      Claim& claim = claims[ip];
      ++(stored->terminating ? claim.terminating : claim.living);
      if (!stored->terminating && claim.living == 1) claim.first = name;
    }
  }
  view.state.pods.reserve(pods.size());
  for (const auto& [name, stored] : pods) {
    const auto* pod = std::get_if<model::Pod>(&stored->object);
    if (pod == nullptr) continue;
    model::Pod& added = view.state.pods.emplace_back(*pod);
    if (claimant(*stored) == nullptr) continue;
    std::erase_if(added.ips, [&](const model::IpAddress& ip) {
      const Claim& claim = claims.at(ip);
      if (stored->terminating) return claim.living > 0;
      if (claim.living > 1 && claim.first != name) {
        view.problems.push_back({"Pod " + name, "has the address " + ip.ToString() + ", as Pod " + claim.first +
                                                    " has: what it exchanges must be allowed to both"});
      }
      return false;
    });
  }
}

void Replica::IsolateUnknownNamespaces(View& view) {
  std::set<std::string_view> known;
  for (const model::Namespace& ns : view.state.namespaces) known.insert(ns.name);
  std::set<std::string_view> unknown;
  for (const model::Pod& pod : view.state.pods) {
    if (!known.contains(pod.ns)) unknown.insert(pod.ns);
  }
  for (const std::string_view ns : unknown) view.state.policies.push_back(IsolateNamespace(std::string(ns)));
}

Replica::View Replica::Assemble() const {
  View view;
  AddPods(view);
  Collect(TableOf(Kind::kNamespace).objects, view.state.namespaces);
  Collect(TableOf(Kind::kNetworkPolicy).objects, view.state.policies);
  Collect(TableOf(Kind::kService).objects, view.state.services);
  Collect(TableOf(Kind::kEndpointSlice).objects, view.state.endpoint_slices);
  for (const auto& [name, stored] : TableOf(Kind::kNode).objects) {
    if (const auto* node = std::get_if<model::Node>(&stored->object)) view.state.node = *node;
  }
  for (const Kind kind : kKinds) {
    for (const auto& [name, stored] : TableOf(kind).objects) {
      if (stored->quarantine) view.state.policies.push_back(*stored->quarantine);
      if (stored->problem.empty()) continue;
      const char* consequence = "; it is ignored";
      if (kind == Kind::kNetworkPolicy) consequence = "; until it is valid, the pods it selects may exchange nothing with others";
      if (kind == Kind::kPod) consequence = "; until it is valid, it may exchange nothing with others";
      if (kind == Kind::kNamespace) consequence = "; until it is valid, its pods may exchange nothing with others";
      view.problems.push_back({std::string(KindName(kind)) + " " + name, stored->problem + consequence});
    }
  }
  if (view.problems.size() > kShownProblems) {
    const std::size_t more = view.problems.size() - kShownProblems;
    view.problems.resize(kShownProblems);
    view.problems.push_back({"API server", "and " + std::to_string(more) + " more objects with problems"});
  }
  IsolateUnknownNamespaces(view);
  return view;
}

}  // namespace vsocket::kube
