#include "node-agent/kube/replica.h"

#include <algorithm>
#include <set>
#include <utility>

namespace vsocket::kube {
namespace {

constexpr std::size_t kMostObjects = 500'000;  // of a kind; Kubernetes supports 150,000 pods a cluster
constexpr std::size_t kShownProblems = 50;

// Snapshots share the objects with the tables.
template <typename T>
model::Shared<T> PartOf(const StoredObjectPtr& whole, const T& part) {
  return model::Shared<T>(std::shared_ptr<const T>(whole, &part));
}

template <typename T>
void Collect(const std::map<std::string, StoredObjectPtr>& objects, std::vector<model::Shared<T>>& out) {
  out.reserve(objects.size());
  for (const auto& [name, stored] : objects) {
    if (const T* value = std::get_if<T>(&stored->object)) out.push_back(PartOf(stored, *value));
  }
}

template <typename T>
void Collect(const std::map<std::string, StoredObjectPtr>& objects, std::vector<T>& out) {
  out.reserve(objects.size());
  for (const auto& [name, stored] : objects) {
    if (const T* value = std::get_if<T>(&stored->object)) out.push_back(*value);
  }
}

// The pod, if it has addresses of the pods' network.
const model::Pod* Claimant(const StoredObject& stored) {
  const auto* pod = std::get_if<model::Pod>(&stored.object);
  return pod != nullptr && !pod->finished && !pod->host_network ? pod : nullptr;
}

bool SameForUs(const StoredObject& a, const StoredObject& b) {
  return a.uid == b.uid && a.terminating == b.terminating && a.host_ip == b.host_ip && a.object == b.object && a.problem == b.problem &&
         a.quarantine == b.quarantine;
}

}  // namespace

std::size_t Replica::AddressHash::operator()(const model::IpAddress& address) const {
  const auto& bytes = address.Bytes();
  return std::hash<std::string_view>()({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

void Replica::AddClaims(const StoredObject& stored) {
  const model::Pod* pod = Claimant(stored);
  if (pod == nullptr) return;
  for (const model::IpAddress& ip : pod->ips) {
    Claim& claim = claims_[ip];
    ++(stored.terminating ? claim.terminating : claim.living);
    if (claim.Pods() == 2) ++contested_;
  }
}

void Replica::RemoveClaims(const StoredObject& stored) {
  const model::Pod* pod = Claimant(stored);
  if (pod == nullptr) return;
  for (const model::IpAddress& ip : pod->ips) {
    const auto found = claims_.find(ip);
    --(stored.terminating ? found->second.terminating : found->second.living);
    if (found->second.Pods() == 1) --contested_;
    if (found->second.Pods() == 0) claims_.erase(found);
  }
}

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
  for (const auto& [name, stored] : table.objects) RemoveClaims(*stored);
  table.objects = std::move(*table.arriving);
  for (const auto& [name, stored] : table.objects) AddClaims(*stored);
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
  AddClaims(*stored);
  if (known == table.objects.end()) {
    table.objects.emplace(identity.Key(), std::move(stored));
    ++version_;
    return true;
  }
  RemoveClaims(*known->second);
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
  RemoveClaims(*found->second);
  table.objects.erase(found);
  ++version_;
}

bool Replica::Complete() const {
  return std::all_of(tables_.begin(), tables_.end(), [](const Table& table) { return table.listed; });
}

model::Pod Replica::WithoutLostAddresses(const std::string& name, const StoredObject& stored, View& view,
                                         std::map<model::IpAddress, std::string>& first) const {
  model::Pod pod = std::get<model::Pod>(stored.object);
  std::erase_if(pod.ips, [&](const model::IpAddress& ip) {
    const Claim& claim = claims_.at(ip);
    if (stored.terminating) return claim.living > 0;
    if (claim.living < 2) return false;
    const auto [entry, added] = first.try_emplace(ip, name);
    if (!added) {
      view.problems.push_back({"Pod " + name, "has the address " + ip.ToString() + ", as Pod " + entry->second +
                                                  " has: what it exchanges must be allowed to both"});
    }
    return false;
  });
  return pod;
}

void Replica::AddPods(View& view) const {
  const Objects& pods = TableOf(Kind::kPod).objects;
  if (contested_ == 0) return Collect(pods, view.state.pods);
  std::map<model::IpAddress, std::string> first;  // who is told of first
  view.state.pods.reserve(pods.size());
  for (const auto& [name, stored] : pods) {
    const auto* pod = std::get_if<model::Pod>(&stored->object);
    if (pod == nullptr) continue;
    const bool contested =
        Claimant(*stored) != nullptr &&
        std::any_of(pod->ips.begin(), pod->ips.end(), [this](const model::IpAddress& ip) { return claims_.at(ip).Pods() > 1; });
    if (contested) {
      view.state.pods.push_back(model::Shared<model::Pod>(WithoutLostAddresses(name, *stored, view, first)));
    } else {
      view.state.pods.push_back(PartOf(stored, *pod));
    }
  }
}

void Replica::AddNodes(View& view) const {
  std::map<std::string_view, model::IpAddress> addresses;
  for (const auto& [name, stored] : TableOf(Kind::kPod).objects) {
    const auto* pod = std::get_if<model::Pod>(&stored->object);
    if (pod != nullptr && !pod->finished && !pod->node.empty() && stored->host_ip) addresses.try_emplace(pod->node, *stored->host_ip);
  }
  for (const auto& [name, ip] : addresses) view.state.nodes.push_back({std::string(name), {ip}, {}, {}});
}

void Replica::IsolateUnknownNamespaces(View& view) {
  std::set<std::string_view> known;
  for (const model::Namespace& ns : view.state.namespaces) known.insert(ns.name);
  std::string_view last;  // pods come in the order of their namespaces
  for (const model::Pod& pod : view.state.pods) {
    if (pod.ns == last) continue;
    last = pod.ns;
    if (!known.contains(last)) view.state.policies.push_back(IsolateNamespace(pod.ns));
  }
}

Replica::View Replica::Assemble() const {
  View view;
  AddPods(view);
  AddNodes(view);
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
