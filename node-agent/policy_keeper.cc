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
  policy::Delta delta = evaluator_.Apply(state, pods, NodeAddresses());
  std::vector<model::SourceProblem> conditions = evaluator_.Problems();
  const auto services = ServicesOf(*state);
  AddFlowsToServices(delta, pods, services);
  {
    const std::lock_guard lock(mutex_);
    Report(conditions_, conditions);
    conditions_ = std::move(conditions);
    pods_ = pods;
    services_ = services;
  }
  if (node_ == nullptr) return;
  node_->SetBandwidth(BandwidthOfPods(*state, pods));
  std::uint32_t cut = node_->ReevaluateNow(delta.affected);
  std::vector<enforce::WantedRules> wanted;
  for (const model::LocalPod& pod : pods) {
    if (const auto list = evaluator_.AllowListOf(pod)) wanted.push_back({pod, *list, {}});
  }
  kernel_->Sync(std::move(wanted), services);
  cut += node_->ReevaluateNow(delta.affected);
  log_.Write(telemetry::LogLevel::kInfo, "policy in force",
             {{"revision", std::to_string(state->revision)},
              {"pods", std::to_string(pods.size())},
              {"filters", std::to_string(delta.lists.size())},
              {"cut", std::to_string(cut)}});
}

std::shared_ptr<const model::ServiceTable> PolicyKeeper::ServicesOf(const model::ClusterState& state) {
  std::shared_ptr<const model::ServiceTable> known;
  {
    const std::lock_guard lock(mutex_);
    known = services_;
  }
  if (state.services == known_services_ && state.endpoint_slices == known_slices_) return known;
  known_services_ = state.services;
  known_slices_ = state.endpoint_slices;
  return std::make_shared<const model::ServiceTable>(known_services_, known_slices_);
}

void PolicyKeeper::AddFlowsToServices(policy::Delta& delta, const std::vector<model::LocalPod>& pods,
                                      const std::shared_ptr<const model::ServiceTable>& services) const {
  bool others = false;
  {
    const std::lock_guard lock(mutex_);
    others = services != services_;
  }
  auto& addresses = delta.affected.addresses;
  const std::size_t before = addresses.size();
  for (const model::LocalPod& pod : pods) {
    const bool touched = others || std::find(delta.lists.begin(), delta.lists.end(), pod.ns + "/" + pod.name) != delta.lists.end();
    const auto list = touched ? evaluator_.AllowListOf(pod) : std::nullopt;
    if (list && (*list)->egress.isolated) addresses.insert(addresses.end(), pod.ips.begin(), pod.ips.end());
  }
  if (addresses.size() == before) return;
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
}

void PolicyKeeper::Report(const std::vector<model::SourceProblem>& before, const std::vector<model::SourceProblem>& now) const {
  for (const model::SourceProblem& problem : now) {
    if (std::find(before.begin(), before.end(), problem) != before.end()) continue;
    log_.Write(telemetry::LogLevel::kWarning, "cluster source problem", {{"where", problem.where}, {"what", problem.what}});
  }
}

model::Verdict PolicyKeeper::JudgeService(const model::Flow& flow, const model::ServiceEntry& entry) const {
  model::Verdict verdict;
  verdict.allowed = verdict.egress.allowed = verdict.ingress.allowed = true;
  verdict.egress.decided_by = "Service " + entry.service + " has no backend";
  for (const model::ServiceBackend& backend : entry.backends) {
    model::Verdict one = evaluator_.Evaluate({flow.source, backend.address, backend.port, flow.protocol});
    one.egress.decided_by +=
        " (backend " + backend.address.ToString() + " port " + std::to_string(backend.port) + " of Service " + entry.service + ")";
    verdict.egress = std::move(one.egress);
    if (!verdict.egress.allowed) break;
  }
  verdict.ingress.decided_by = "judged where the backend of Service " + entry.service + " runs";
  verdict.allowed = verdict.egress.allowed;
  return verdict;
}

model::Verdict PolicyKeeper::Judge(const model::Flow& flow) const {
  if (evaluator_.State() != nullptr) {
    std::shared_ptr<const model::ServiceTable> services;
    {
      const std::lock_guard lock(mutex_);
      services = services_;
    }
    const model::ServiceEntry* service = services->Find(flow);
    return service == nullptr ? evaluator_.Evaluate(flow) : JudgeService(flow, *service);
  }
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
