// NetworkPolicy v1 (https://kubernetes.io/docs/concepts/services-networking/network-policies/), in force on this node: takes snapshots of
// the cluster, works out what has changed, and answers. docs/networkpolicy.md says what holds where the specification leaves a choice.
//
// Invariants:
// 1. What it answers depends on the last Apply alone, not on the way there.
// 2. A change is seen as a whole or not at all.
// 3. A change costs what it touches: of pods, their own addresses, and their labels only when nobody else has them; of a policy, its own
//    selectors and the pods it selects. (Finding out what is different between two snapshots takes a comparison of pointers an object.)
//
// Thread safety: every method from any thread; Apply from one at a time. Whoever asks waits for the short part of an Apply that changes
// the tables, not for the allow lists.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "node-agent/model/affected.h"
#include "node-agent/model/allow_list.h"
#include "node-agent/model/cluster.h"
#include "node-agent/model/local_pod.h"
#include "node-agent/model/node_api.h"
#include "node-agent/model/verdict.h"
#include "node-agent/policy/local_lists.h"
#include "node-agent/policy/tables.h"

namespace vsocket::policy {

struct PodIsolation {
  bool ingress = false;
  bool egress = false;
  std::vector<std::string> ingress_by;  // policies, "ns/name"
  std::vector<std::string> egress_by;
};

// What an Apply has changed.
struct Delta {
  model::Affected affected;        // the flows that are to be judged again
  std::vector<std::string> lists;  // wired pods ("ns/name") whose allow lists are others now
};

struct EvaluatorSize {
  std::size_t pods = 0, identities = 0, groups = 0, policies = 0;
};

class Evaluator {
 public:
  Evaluator() = default;  // knows nothing; allows everything
  // Of one state, with nothing wired.
  Evaluator(std::shared_ptr<const model::ClusterState> state, std::vector<model::IpAddress> node_addresses);
  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;

  // `wired`: every pod of this node that is wired. `node_addresses`: every address of this node that reaches its pods (the bridge's among
  // them). The snapshot is kept until the next.
  Delta Apply(std::shared_ptr<const model::ClusterState> state, const std::vector<model::LocalPod>& wired,
              std::vector<model::IpAddress> node_addresses);

  [[nodiscard]] model::Verdict Evaluate(const model::Flow& flow) const;

  // What `vsocketctl policy trace` shows. Pods are "ns/name" ("name" alone: namespace default); `port` is a number or a port name of the
  // destination, optionally with "/tcp", "/udp" or "/sctp". Errors: kInvalid (not a port, a name of several ports, a finished pod),
  // kNotFound (no such pod or port name). Pods without a common address family are judged by selectors alone.
  [[nodiscard]] Result<model::Verdict, model::ApiError> Trace(const std::string& source_pod, const std::string& destination_pod,
                                                              const std::string& port) const;

  // An unknown pod is not isolated.
  [[nodiscard]] PodIsolation Isolation(const std::string& pod) const;

  // The pod's own side of every verdict, as addresses: what enforce/ renders. Nothing: it was not wired at the last Apply.
  // Call it from the thread that applies.
  [[nodiscard]] std::optional<SharedAllowList> AllowListOf(const model::LocalPod& pod) const { return lists_.Of(pod); }
  // The same of any pod, worked out now. An unknown pod is not isolated.
  [[nodiscard]] model::AllowList AllowListFor(const std::string& pod) const;

  // What is wrong in the state, and closes: policies that cannot be understood, addresses and port names that are not clear.
  [[nodiscard]] std::vector<model::SourceProblem> Problems() const;

  [[nodiscard]] std::shared_ptr<const model::ClusterState> State() const;  // null before the first Apply
  [[nodiscard]] EvaluatorSize Size() const;

 private:
  mutable std::mutex mutex_;  // guards what follows, up to lists_
  std::shared_ptr<const model::ClusterState> state_;
  std::vector<model::IpAddress> node_addresses_;  // sorted
  Tables tables_;

  LocalLists lists_;
};

}  // namespace vsocket::policy
