// NetworkPolicy v1 (https://kubernetes.io/docs/concepts/services-networking/network-policies/) over one snapshot.
//
// What is undefined or left to implementations by the specification, and what holds here:
// - ipBlock matches pod addresses as well as others.
// - A pod in the node's network (hostNetwork) is the node: no policy selects it and no selector matches it; an ipBlock may.
// - The own node's addresses are always allowed in; loopback and a pod talking to itself are always allowed.
// - A finished pod (Succeeded, Failed) does not exist. An address that two pods claim is allowed only what both are allowed.
// - The destination is the pod behind a Service, never its ClusterIP.
//
// Thread safety: immutable after construction; any number of threads may ask. It keeps the snapshot alive.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "node-agent/model/allow_list.h"
#include "node-agent/model/cluster.h"
#include "node-agent/model/node_api.h"
#include "node-agent/model/verdict.h"

namespace vsocket::policy {

struct PodIsolation {
  bool ingress = false;
  bool egress = false;
  std::vector<std::string> ingress_by;  // policies, "ns/name"
  std::vector<std::string> egress_by;
};

class CompiledPolicies;

class Evaluator {
 public:
  // `node_addresses`: every address of this node that reaches its pods (the bridge's among them).
  Evaluator(std::shared_ptr<const model::ClusterState> state, std::vector<model::IpAddress> node_addresses);
  ~Evaluator();
  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;

  // O(1) in pods; linear in the rules of the policies that select the two ends.
  [[nodiscard]] model::Verdict Evaluate(const model::Flow& flow) const;

  // What `vsocketctl policy trace` shows. Pods are "ns/name" ("name" alone: namespace default); `port` is a number or a port name of the
  // destination, optionally with "/tcp", "/udp" or "/sctp". Errors: kInvalid (not a port, a finished pod), kNotFound (no such pod or port
  // name). Pods without a common address family are judged by selectors alone.
  [[nodiscard]] Result<model::Verdict, model::ApiError> Trace(const std::string& source_pod, const std::string& destination_pod,
                                                              const std::string& port) const;

  // An unknown pod is not isolated.
  [[nodiscard]] PodIsolation Isolation(const std::string& pod) const;

  // The pod's own side of every verdict, as addresses: what enforce/ renders. An unknown pod is not isolated.
  [[nodiscard]] model::AllowList AllowListFor(const std::string& pod) const;

  [[nodiscard]] const std::shared_ptr<const model::ClusterState>& State() const { return state_; }

 private:
  std::shared_ptr<const model::ClusterState> state_;
  std::vector<model::IpAddress> node_addresses_;  // sorted
  std::unique_ptr<const CompiledPolicies> compiled_;
};

}  // namespace vsocket::policy
