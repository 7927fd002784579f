#include "node-agent/policy_keeper.h"

#include <ifaddrs.h>
#include <sys/socket.h>

#include <algorithm>

#include "node-agent/pod_bandwidth.h"
#include "node-agent/policy/explain.h"

namespace vsocket {
namespace {

// Every address of the node but loopback: its kubelet and its bridges reach the pods from these. getifaddrs(3).
std::vector<model::IpAddress> NodeAddresses() {
  std::vector<model::IpAddress> addresses;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return addresses;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr) continue;
    const auto address = model::IpAddress::FromSockaddr(*entry->ifa_addr);
    if (address && !address->IsLoopback()) addresses.push_back(*address);
  }
  ::freeifaddrs(list);
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  return addresses;
}

}  // namespace

PolicyKeeper::PolicyKeeper(std::string source, telemetry::Log& log) : source_(std::move(source)), log_(log) {}

void PolicyKeeper::Begin(broker::Node* node, KernelPath* kernel) {
  // Under the lock, so that no other thread asks the node for something just when its loop starts.
  const std::lock_guard applying(applying_);
  node_ = node;
  kernel_ = kernel;
  Apply();
  node_->Serve();
}

void PolicyKeeper::End() {
  const std::lock_guard applying(applying_);
  node_ = nullptr;
  kernel_ = nullptr;
}

void PolicyKeeper::OnPodsChanged() {
  const std::lock_guard applying(applying_);
  Apply();
}

void PolicyKeeper::OnSnapshot(std::shared_ptr<const model::ClusterState> state, std::vector<model::SourceProblem> problems) {
  {
    const std::lock_guard lock(mutex_);
    Report(problems_, problems);
    problems_ = std::move(problems);
    if (!state) {
      log_.Write(telemetry::LogLevel::kError, "no policy known",
                 {{"source", source_}, {"what", "nothing is accelerated until everything in it has been read once"}});
      return;
    }
    state_ = std::move(state);
  }
  const std::lock_guard applying(applying_);
  Apply();
}

void PolicyKeeper::Apply() {
  std::shared_ptr<const model::ClusterState> state;
  {
    const std::lock_guard lock(mutex_);
    state = state_;
  }
  if (!state) return;
  const std::vector<model::LocalPod> pods = node_ == nullptr ? std::vector<model::LocalPod>() : node_->LocalPods();
  const policy::Delta delta = evaluator_.Apply(state, pods, NodeAddresses());
  std::vector<model::SourceProblem> conditions = evaluator_.Problems();
  {
    const std::lock_guard lock(mutex_);
    Report(conditions_, conditions);
    conditions_ = std::move(conditions);
    pods_ = pods;
  }
  if (node_ == nullptr) return;
  node_->SetBandwidth(BandwidthOfPods(*state, pods));
  std::uint32_t cut = node_->ReevaluateNow(delta.affected);
  std::vector<enforce::WantedRules> wanted;
  for (const model::LocalPod& pod : pods) {
    if (const auto list = evaluator_.AllowListOf(pod)) wanted.push_back({pod, *list, {}});
  }
  kernel_->Sync(std::move(wanted));
  cut += node_->ReevaluateNow(delta.affected);
  log_.Write(telemetry::LogLevel::kInfo, "policy in force",
             {{"revision", std::to_string(state->revision)},
              {"pods", std::to_string(pods.size())},
              {"filters", std::to_string(delta.lists.size())},
              {"cut", std::to_string(cut)}});
}

void PolicyKeeper::Report(const std::vector<model::SourceProblem>& before, const std::vector<model::SourceProblem>& now) const {
  for (const model::SourceProblem& problem : now) {
    if (std::find(before.begin(), before.end(), problem) != before.end()) continue;
    log_.Write(telemetry::LogLevel::kWarning, "cluster source problem", {{"where", problem.where}, {"what", problem.what}});
  }
}

model::Verdict PolicyKeeper::Judge(const model::Flow& flow) const {
  if (evaluator_.State() != nullptr) return evaluator_.Evaluate(flow);
  model::Verdict verdict;  // nothing is allowed before the first snapshot
  verdict.known = false;
  verdict.egress.decided_by = verdict.ingress.decided_by = "no policy has been read yet";
  return verdict;
}

Result<model::Verdict, model::ApiError> PolicyKeeper::Trace(const std::string& source, const std::string& destination,
                                                            const std::string& port) const {
  if (const auto state = evaluator_.State()) {
    auto verdict = evaluator_.Trace(source, destination, port);
    if (verdict) policy::Explain(state->policies, verdict.Value());
    return verdict;
  }
  return Failure(model::ApiError{model::ApiErrorKind::kUnavailable, "no policy has been read yet"});
}

std::pair<bool, bool> PolicyKeeper::Isolated(const model::LocalPod& pod) const {
  const policy::PodIsolation isolation = evaluator_.Isolation(pod.ns + "/" + pod.name);
  return {isolation.ingress, isolation.egress};
}

void PolicyKeeper::CompleteStatus(model::AgentStatus* status) const {
  const std::lock_guard lock(mutex_);
  status->source = source_;
  status->revision = state_ ? state_->revision : 0;
  status->problems = problems_;
  status->problems.insert(status->problems.end(), conditions_.begin(), conditions_.end());
  status->ready = state_ != nullptr;
}

bool PolicyKeeper::Ready() const {
  const std::lock_guard lock(mutex_);
  return state_ != nullptr;
}

std::vector<model::PolicyInfo> PolicyKeeper::Policies() const {
  const auto state = evaluator_.State();
  std::vector<model::LocalPod> pods;
  std::vector<model::SourceProblem> problems;
  {
    const std::lock_guard lock(mutex_);
    pods = pods_;
    problems = problems_;
    problems.insert(problems.end(), conditions_.begin(), conditions_.end());
  }
  return state ? policy::DescribePolicies(*state, pods, problems) : std::vector<model::PolicyInfo>();
}

}  // namespace vsocket
