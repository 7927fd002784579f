// The kinds of object that the agent follows at an API server, and what it keeps of one.
//
// Thread safety: pure functions over values.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "base/result.h"
#include "node-agent/kube/yaml_tree.h"
#include "node-agent/model/cluster.h"

namespace vsocket::kube {

enum class Kind : std::uint8_t { kPod, kNamespace, kNetworkPolicy, kService, kEndpointSlice, kNode };
inline constexpr std::array kKinds{Kind::kPod, Kind::kNamespace, Kind::kNetworkPolicy, Kind::kService, Kind::kEndpointSlice, Kind::kNode};

const char* KindName(Kind kind);    // "NetworkPolicy"
const char* PluralName(Kind kind);  // "networkpolicies", as in a URL and in RBAC rules
// The URL's path with the selectors that leave out what a node has no use for: pods that are over, slices of headless Services and of no
// Service, other nodes.
std::string ListPath(Kind kind, const std::string& node_name);

// An object as it is kept: what the agent needs of it. Immutable once it is made.
struct StoredObject {
  std::string uid;
  std::string resource_version;
  bool terminating = false;  // it has a deletionTimestamp
  // Of a pod: the address of its node, as the node's kubelet says. So the other nodes are known without a right to look at them.
  std::optional<model::IpAddress> host_ip;
  // Monostate: a Service, EndpointSlice or Node with errors, which is as if it were not there.
  std::variant<std::monostate, model::Pod, model::Namespace, model::NetworkPolicy, model::Service, model::EndpointSlice, model::Node>
      object;
  std::string problem;  // what is wrong with it; empty: nothing
  // What closes, because this object cannot be understood.
  std::optional<model::NetworkPolicy> quarantine;
};
using StoredObjectPtr = std::shared_ptr<const StoredObject>;

struct NamedObject {
  std::string name;  // "ns/name", or "name" of what is in no namespace
  StoredObjectPtr object;
};

// What the API server says about one object, as far as it is needed to follow it.
struct Identity {
  std::string ns, name, uid, resource_version;
  [[nodiscard]] std::string Key() const { return ns.empty() ? name : ns + "/" + name; }
};
// Fails when it has no name or no resource version: then it is not the API server that speaks.
Result<Identity, std::string> IdentityOf(const YamlNode& object);

// Validates an object as a manifest's is validated (object_reader.h), and keeps what is needed. One that is not valid closes what it
// concerns:
// - a NetworkPolicy isolates the pods it selects, or its whole namespace when its podSelector cannot be read (QuarantinePolicy);
// - a Pod counts with the addresses that could be read, and is isolated;
// - a Namespace, whose labels others select by, isolates all its pods;
// - a Service, EndpointSlice or Node is as if it were not there.
StoredObjectPtr Store(Kind kind, const Identity& identity, const YamlNode& object);

// Isolates every pod of the namespace in both directions.
model::NetworkPolicy IsolateNamespace(const std::string& ns);

// The fields of an object of this kind that Store does not look at and that are often large.
const std::vector<std::string_view>& OmittedFieldsOf(Kind kind);

}  // namespace vsocket::kube
