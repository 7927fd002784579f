// Keeps the verdicts, the packet filters and the live connections in step with the cluster state and the local pods.
//
// A change is applied in this order: new verdicts (upgrades are judged by them at once), live connections cut, packet filters changed,
// connections judged once more (one may have been made between the two). So a client that was cut cannot come back. Only what the change
// has touched is judged and filtered anew.
//
// Thread safety: every method from any thread; changes are applied one at a time on the caller's.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/broker/node.h"
#include "node-agent/kernel_path.h"
#include "node-agent/model/node_api.h"
#include "node-agent/model/service_table.h"
#include "node-agent/policy/evaluator.h"
#include "node-agent/telemetry/log.h"

namespace vsocket {

class PolicyKeeper {
 public:
  PolicyKeeper(std::string source, telemetry::Log& log);

  // Judges what the node has and lets it serve then: the first shim meets the policy in force. `kernel` must outlive End().
  void Begin(broker::Node* node, KernelPath* kernel);
  // The node is not called any more. Waits for a change that is being applied.
  void End();
  // `state` null: none is known yet. Then upgrades are denied, connections that an earlier agent allowed are let alone, and so are its
  // packet filters.
  void OnSnapshot(std::shared_ptr<const model::ClusterState> state, std::vector<model::SourceProblem> problems);
  void OnPodsChanged();

  [[nodiscard]] model::Verdict Judge(const model::Flow& flow) const;
  [[nodiscard]] Result<model::Verdict, model::ApiError> Trace(const std::string& source, const std::string& destination,
                                                              const std::string& port) const;
  [[nodiscard]] std::pair<bool, bool> Isolated(const model::LocalPod& pod) const;  // ingress, egress
  void CompleteStatus(model::AgentStatus* status) const;
  [[nodiscard]] bool Ready() const;  // a snapshot is in force
  [[nodiscard]] std::vector<model::PolicyInfo> Policies() const;

 private:
  void Apply();  // holds applying_
  // The Services of `state`; the same object as long as they are the same. Holds applying_.
  std::shared_ptr<const model::ServiceTable> ServicesOf(const model::ClusterState& state);
  // A flow to a Service hangs on its backends, which no end of it names: those of pods that are isolated for egress are judged again when
  // Services, or what the pod may reach, have changed.
  void AddFlowsToServices(policy::Delta& delta, const std::vector<model::LocalPod>& pods,
                          const std::shared_ptr<const model::ServiceTable>& services) const;
  // Of a flow to a Service's address: the egress to each of its backends, of which any may be the one. The ingress is judged where the
  // backend runs, by its own address.
  [[nodiscard]] model::Verdict JudgeService(const model::Flow& flow, const model::ServiceEntry& entry) const;
  // Writes those that are new to the log.
  void Report(const std::vector<model::SourceProblem>& before, const std::vector<model::SourceProblem>& now) const;

  const std::string source_;
  telemetry::Log& log_;

  std::mutex applying_;  // one change at a time; guards the next two
  broker::Node* node_ = nullptr;
  KernelPath* kernel_ = nullptr;
  policy::Evaluator evaluator_;  // Apply under applying_; questions from any thread

  // What the table in services_ was made of.
  std::vector<model::Service> known_services_;
  std::vector<model::EndpointSlice> known_slices_;

  mutable std::mutex mutex_;  // guards what follows; never held while others are called
  std::shared_ptr<const model::ClusterState> state_;
  std::vector<model::SourceProblem> problems_;    // of the source
  std::vector<model::SourceProblem> conditions_;  // of what it says: policies and pods that are not clear
  std::shared_ptr<const model::ServiceTable> services_ = std::make_shared<const model::ServiceTable>();
  std::vector<model::LocalPod> pods_;  // that were wired at the last Apply
};

}  // namespace vsocket
