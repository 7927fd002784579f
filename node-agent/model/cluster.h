// The cluster as the agent knows it: plain values, as read from a source (kube/). A snapshot is immutable once published
// (std::shared_ptr<const ClusterState>), so any thread may read one without a lock.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/model/ip_address.h"
#include "node-agent/model/shared.h"

namespace vsocket::model {

using Labels = std::map<std::string, std::string>;

enum class Protocol : std::uint8_t { kTcp, kUdp, kSctp };

struct ContainerPort {
  std::string name;  // empty: unnamed
  std::uint16_t number = 0;
  Protocol protocol = Protocol::kTcp;
  auto operator<=>(const ContainerPort&) const = default;
};

struct Pod {
  std::string ns;
  std::string name;
  std::string uid;
  Labels labels;
  std::map<std::string, std::string> annotations;
  std::vector<IpAddress> ips;
  std::vector<ContainerPort> ports;
  std::string node;
  bool host_network = false;
  bool finished = false;  // phase Succeeded or Failed: its addresses may belong to another pod by now
  bool operator==(const Pod&) const = default;
};

struct Namespace {
  std::string name;
  Labels labels;
  std::map<std::string, std::string> annotations;
  bool operator==(const Namespace&) const = default;
};

// meta/v1 LabelSelector. An empty selector matches everything.
struct SelectorTerm {
  enum class Operator : std::uint8_t { kIn, kNotIn, kExists, kDoesNotExist };
  std::string key;
  Operator op = Operator::kExists;
  std::vector<std::string> values;
  bool operator==(const SelectorTerm&) const = default;
};
struct LabelSelector {
  Labels match_labels;
  std::vector<SelectorTerm> match_expressions;
  bool operator==(const LabelSelector&) const = default;
};

struct Cidr {
  IpAddress base;
  unsigned prefix = 0;
  bool operator==(const Cidr&) const = default;
};
struct IpBlock {
  Cidr cidr;
  std::vector<Cidr> except;
  bool operator==(const IpBlock&) const = default;
};

// networking.k8s.io/v1 NetworkPolicyPeer: either an ipBlock, or selectors (both present: AND).
struct PolicyPeer {
  std::optional<LabelSelector> pod_selector;
  std::optional<LabelSelector> namespace_selector;
  std::optional<IpBlock> ip_block;
  bool operator==(const PolicyPeer&) const = default;
};

struct PolicyPort {
  Protocol protocol = Protocol::kTcp;
  std::string name;                     // a named port, or
  std::optional<std::uint16_t> number;  // a number, or neither: every port of the protocol
  std::optional<std::uint16_t> end;     // endPort, inclusive; only with a number
  bool operator==(const PolicyPort&) const = default;
};

struct PolicyRule {
  std::vector<PolicyPeer> peers;  // empty: everyone
  std::vector<PolicyPort> ports;  // empty: every port of every protocol
  bool operator==(const PolicyRule&) const = default;
};

struct NetworkPolicy {
  std::string ns;
  std::string name;
  LabelSelector pod_selector;
  bool isolates_ingress = true;  // policyTypes, defaults applied
  bool isolates_egress = false;
  std::vector<PolicyRule> ingress;
  std::vector<PolicyRule> egress;
  bool operator==(const NetworkPolicy&) const = default;
};

// A port of a Service, or of the backends in an EndpointSlice (they are matched by name, which may be empty).
struct ServicePort {
  std::string name;
  std::uint16_t number = 0;  // 0, in an EndpointSlice only: every port
  Protocol protocol = Protocol::kTcp;
  bool operator==(const ServicePort&) const = default;
};

struct Service {
  std::string ns;
  std::string name;
  std::vector<IpAddress> cluster_ips;  // none: headless, or an ExternalName
  std::vector<ServicePort> ports;
  bool operator==(const Service&) const = default;
};

struct Endpoint {
  std::vector<IpAddress> addresses;
  std::string node;
  bool ready = true;
  bool serving = true;
  bool terminating = false;
  bool operator==(const Endpoint&) const = default;
};

// discovery.k8s.io/v1 EndpointSlice: some of a Service's backends, those of one address family.
struct EndpointSlice {
  std::string ns;
  std::string name;
  std::string service;  // in the same namespace
  std::vector<ServicePort> ports;
  std::vector<Endpoint> endpoints;
  bool operator==(const EndpointSlice&) const = default;
};

struct Node {
  std::string name;
  std::vector<IpAddress> addresses;
  std::vector<Cidr> pod_cidrs;
  std::string agent_endpoint;  // annotation vsocket.io/agent, "ADDRESS:PORT"; empty: the node's first address and the usual port
  bool operator==(const Node&) const = default;
};

// Names are unique within a kind and namespace. Snapshots that follow each other share what has not changed.
struct ClusterState {
  std::vector<Shared<Pod>> pods;
  std::vector<Shared<Namespace>> namespaces;
  std::vector<Shared<NetworkPolicy>> policies;
  std::vector<Service> services;
  std::vector<EndpointSlice> endpoint_slices;  // policies are judged on backends, not on Services
  std::optional<Node> node;                    // the agent's own; from an API server only
  std::vector<Node> nodes;                     // where the agents of other nodes are; from an API server: the nodes that have pods
  std::uint64_t revision = 0;                  // grows with every published snapshot
};

// Something wrong in the source that people must see: a bad file with its line, an invalid policy.
struct SourceProblem {
  std::string where;  // "dir/policies.yaml:12"
  std::string what;
  bool operator==(const SourceProblem&) const = default;
};

}  // namespace vsocket::model
