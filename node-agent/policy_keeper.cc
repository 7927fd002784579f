#include "node-agent/policy_keeper.h"

#include <ifaddrs.h>
#include <sys/socket.h>

#include <algorithm>

#include "node-agent/pod_bandwidth.h"
#include "node-agent/policy/local_addresses.h"

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

PolicyKeeper::PolicyKeeper(std::string source, std::unique_ptr<enforce::Enforcer> enforcer, telemetry::Log& log)
    : source_(std::move(source)), enforcer_(std::move(enforcer)), log_(log) {}

void PolicyKeeper::Begin(broker::Node* node) {
  // Under the lock, so that no other thread asks the node for something just when its loop starts.
  const std::lock_guard applying(applying_);
  node_ = node;
  Apply();
  node_->Serve();
}

void PolicyKeeper::End() {
  const std::lock_guard applying(applying_);
  node_ = nullptr;
}

void PolicyKeeper::OnPodsChanged() {
  const std::lock_guard applying(applying_);
  Apply();
}

void PolicyKeeper::OnSnapshot(std::shared_ptr<const model::ClusterState> state, std::vector<model::SourceProblem> problems) {
  {
    const std::lock_guard lock(mutex_);
    for (const auto& problem : problems) {
      if (std::find(problems_.begin(), problems_.end(), problem) != problems_.end()) continue;
      log_.Write(telemetry::LogLevel::kWarning, "cluster source problem", {{"where", problem.where}, {"what", problem.what}});
    }
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
  auto evaluator = std::make_shared<const policy::Evaluator>(
      std::make_shared<const model::ClusterState>(policy::WithLocalAddresses(*state, pods)), NodeAddresses());
  {
    const std::lock_guard lock(mutex_);
    evaluator_ = evaluator;
  }
  if (node_ == nullptr) return;
  node_->SetBandwidth(BandwidthOfPods(*state, pods));
  std::uint32_t cut = node_->ReevaluateNow();
  if (enforcer_) {
    std::vector<enforce::WantedRules> wanted;
    for (const model::LocalPod& pod : pods) wanted.push_back({pod, evaluator->AllowListFor(pod.ns + "/" + pod.name)});
    for (const auto& error : enforcer_->Sync(wanted)) {
      log_.Write(telemetry::LogLevel::kError, "packet filter not set", {{"pod", error.pod}, {"why", error.what}});
    }
    cut += node_->ReevaluateNow();
  }
  log_.Write(telemetry::LogLevel::kInfo, "policy in force",
             {{"revision", std::to_string(state->revision)}, {"pods", std::to_string(pods.size())}, {"cut", std::to_string(cut)}});
}

std::shared_ptr<const policy::Evaluator> PolicyKeeper::Current() const {
  const std::lock_guard lock(mutex_);
  return evaluator_;
}

model::Verdict PolicyKeeper::Judge(const model::Flow& flow) const {
  if (const auto evaluator = Current()) return evaluator->Evaluate(flow);
  model::Verdict verdict;  // nothing is allowed before the first snapshot
  verdict.known = false;
  verdict.egress.decided_by = verdict.ingress.decided_by = "no policy has been read yet";
  return verdict;
}

Result<model::Verdict, model::ApiError> PolicyKeeper::Trace(const std::string& source, const std::string& destination,
                                                            const std::string& port) const {
  if (const auto evaluator = Current()) return evaluator->Trace(source, destination, port);
  return Failure(model::ApiError{model::ApiErrorKind::kUnavailable, "no policy has been read yet"});
}

std::pair<bool, bool> PolicyKeeper::Isolated(const model::LocalPod& pod) const {
  const auto evaluator = Current();
  if (!evaluator) return {false, false};
  const policy::PodIsolation isolation = evaluator->Isolation(pod.ns + "/" + pod.name);
  return {isolation.ingress, isolation.egress};
}

void PolicyKeeper::CompleteStatus(model::AgentStatus* status) const {
  const std::lock_guard lock(mutex_);
  status->source = source_;
  status->revision = state_ ? state_->revision : 0;
  status->problems = problems_;
  status->ready = state_ != nullptr;
}

bool PolicyKeeper::Ready() const {
  const std::lock_guard lock(mutex_);
  return state_ != nullptr;
}

enforce::Enforcer::Counters PolicyKeeper::EnforcerCounters() const {
  return enforcer_ ? enforcer_->GetCounters() : enforce::Enforcer::Counters{};
}

}  // namespace vsocket
