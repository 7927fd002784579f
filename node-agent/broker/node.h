// The node: pods, their sockets and the broker behind one interface. This is what rpc/ asks and what main.cc starts.
//
// Threads: one of its own runs the control server and the broker (Loop). Public methods may be called from any thread; they hand their
// work to that thread, or, when it takes time (entering a namespace, writing a file), do it first on the caller's, one at a time.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "node-agent/broker/broker.h"
#include "node-agent/broker/control_server.h"
#include "node-agent/broker/loop.h"
#include "node-agent/broker/pod_store.h"
#include "node-agent/broker/run_dir.h"
#include "node-agent/model/node_api.h"

namespace vsocket::broker {

struct NodeOptions {
  std::string run_dir;
  std::string state_dir;
  std::string shim_library;
  std::string version;
  BrokerOptions broker;
};

// What the node asks the parts that know the cluster. Called from any thread.
struct NodeQuestions {
  std::function<Result<model::Verdict, model::ApiError>(const std::string& source, const std::string& destination, const std::string& port)>
      trace;
  std::function<std::vector<model::PolicyInfo>()> policies;
  std::function<std::pair<bool, bool>(const model::LocalPod&)> isolated;  // ingress, egress
  std::function<void(model::AgentStatus*)> complete_status;               // source, revision, problems, ready
  // The set of local pods changed (added or removed). Called before AddPod or RemovePod returns, without locks held, on its thread.
  std::function<void()> pods_changed;
};

class Node final : public model::NodeApi {
 public:
  // Takes the run directory, loads the stored pods and makes their sockets. Errors are sentences.
  static Result<std::unique_ptr<Node>, std::string> Open(NodeOptions options, NodeQuestions questions);
  // Answers shims from here on: once the policy is known. Until then they wait in the sockets' backlogs. Once.
  void Serve() { loop_->Start(); }
  // Stops serving. Rings live on in the shims.
  ~Node() override;

  Result<model::LocalPodStatus, model::ApiError> AddPod(model::LocalPod pod) override;
  Result<model::Done, model::ApiError> RemovePod(const std::string& container_id, const std::string& ifname) override;
  Result<model::LocalPodStatus, model::ApiError> CheckPod(const model::LocalPod& pod) override;
  Result<std::uint32_t, model::ApiError> CollectPods(const std::vector<std::pair<std::string, std::string>>& keep) override;
  std::vector<model::LocalPodStatus> Pods() override;
  std::vector<model::ConnectionInfo> Connections() override;
  Result<model::Verdict, model::ApiError> TracePolicy(const std::string& source_pod, const std::string& destination_pod,
                                                      const std::string& port) override;
  std::vector<model::PolicyInfo> Policies() override;
  model::AgentStatus Status() override;

  // Judges every connection again, on the broker's thread; returns at once. Several calls before it runs are one.
  void Reevaluate();
  // The bandwidth annotations of local pods, by uid; the others' stay as they are. In force when it returns.
  void SetBandwidth(const std::vector<std::pair<std::string, model::Bandwidth>>& pods);
  // Judges those that are affected, after a running or posted Reevaluate; gives the number of connections cut.
  std::uint32_t ReevaluateNow(const model::Affected& affected = model::Affected::Everything());
  [[nodiscard]] std::vector<model::LocalPod> LocalPods() const;
  [[nodiscard]] BrokerStats Stats();

 private:
  Node(NodeOptions options, NodeQuestions questions, RunDir run_dir, std::unique_ptr<Loop> loop);

  Result<model::Done, model::ApiError> Install(const model::LocalPod& pod, UniqueFd diag);
  void Uninstall(const model::LocalPod& pod, const std::string& why);
  void LoadStored();
  [[nodiscard]] model::LocalPodStatus StatusOf(const model::LocalPod& pod);
  void Say(Event::Level level, std::string what, Event::Fields fields) const;

  NodeOptions options_;
  NodeQuestions questions_;
  std::uint64_t instance_;
  std::uint64_t started_ns_;

  mutable std::mutex pods_mutex_;  // serialises changes of the set of pods; guards the three below
  RunDir run_dir_;
  PodStore store_;
  std::vector<model::LocalPod> pods_;

  std::mutex posted_mutex_;
  bool reevaluation_posted_ = false;

  std::unique_ptr<Loop> loop_;
  std::unique_ptr<Broker> broker_;         // used on the loop's thread
  std::unique_ptr<ControlServer> server_;  // likewise
};

}  // namespace vsocket::broker
