#include "node-agent/rpc/services.h"

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/rpc/convert.h"

namespace vsocket::rpc {
namespace {

constexpr int kConnectionsPerPage = 512;  // about 150 KiB of the 4 MiB a client accepts in a message
constexpr int kPoliciesPageBytes = 1 << 20;
constexpr std::size_t kFlowsPerPage = 128;
// How long a follower's thread sleeps before it looks whether the client is still there.
constexpr std::chrono::milliseconds kFollowerLooks{500};

bool Wanted(const model::FlowEvent& event, const v1::WatchFlowsRequest& request) {
  if (request.denied() && event.action == model::FlowAction::kAllowed) return false;
  if (event.unix_nanos <= request.after_unix_nanos()) return false;
  return request.pod().empty() || request.pod() == event.source_pod || request.pod() == event.destination_pod;
}

// Counts one follower as long as it lives.
class Follower {
 public:
  explicit Follower(std::atomic<int>& count) : count_(count), number_(++count) {}
  ~Follower() { --count_; }
  Follower(const Follower&) = delete;
  Follower& operator=(const Follower&) = delete;
  [[nodiscard]] int Number() const { return number_; }

 private:
  std::atomic<int>& count_;
  const int number_;
};

}  // namespace

void Gate::Set(State state) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (state_ == State::kShut) return;
    state_ = state;
  }
  changed_.notify_all();
}

grpc::Status Gate::Admit(std::uint32_t version) {
  if (version != protocol_version_) {
    return {grpc::StatusCode::FAILED_PRECONDITION, "the client speaks protocol version " + std::to_string(version) +
                                                       " and the agent protocol version " + std::to_string(protocol_version_)};
  }
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return state_ != State::kWaiting; });
  if (state_ == State::kShut) return {grpc::StatusCode::UNAVAILABLE, "the agent is shutting down"};
  return grpc::Status::OK;
}

grpc::Status CniService::AddPod(grpc::ServerContext*, const v1::AddPodRequest* request, v1::AddPodResponse* response) {
  if (auto refusal = gate_.Admit(request->protocol_version()); !refusal.ok()) return refusal;
  auto pod = FromProto(request->pod());
  if (!pod) return ToStatus(pod.Error());
  auto added = api_.AddPod(std::move(*pod));
  if (!added) return ToStatus(added.Error());
  response->set_socket_dir(added->socket_dir);
  return grpc::Status::OK;
}

grpc::Status CniService::RemovePod(grpc::ServerContext*, const v1::RemovePodRequest* request, v1::RemovePodResponse*) {
  if (auto refusal = gate_.Admit(request->protocol_version()); !refusal.ok()) return refusal;
  auto removed = api_.RemovePod(request->container_id(), request->ifname());
  return removed ? grpc::Status::OK : ToStatus(removed.Error());
}

grpc::Status CniService::CheckPod(grpc::ServerContext*, const v1::CheckPodRequest* request, v1::CheckPodResponse* response) {
  if (auto refusal = gate_.Admit(request->protocol_version()); !refusal.ok()) return refusal;
  auto pod = FromProto(request->pod());
  if (!pod) return ToStatus(pod.Error());
  auto checked = api_.CheckPod(*pod);
  if (!checked) return ToStatus(checked.Error());
  response->set_socket_dir(checked->socket_dir);
  return grpc::Status::OK;
}

grpc::Status CniService::CollectPods(grpc::ServerContext*, const v1::CollectPodsRequest* request, v1::CollectPodsResponse* response) {
  if (auto refusal = gate_.Admit(request->protocol_version()); !refusal.ok()) return refusal;
  std::vector<std::pair<std::string, std::string>> keep;
  keep.reserve(static_cast<std::size_t>(request->keep_size()));
  for (const v1::Attachment& attachment : request->keep()) keep.emplace_back(attachment.container_id(), attachment.ifname());
  auto removed = api_.CollectPods(keep);
  if (!removed) return ToStatus(removed.Error());
  response->set_removed(*removed);
  return grpc::Status::OK;
}

grpc::Status CniService::Status(grpc::ServerContext*, const v1::CniStatusRequest* request, v1::CniStatusResponse* response) {
  if (auto refusal = gate_.Admit(request->protocol_version()); !refusal.ok()) return refusal;
  const model::AgentStatus status = api_.Status();
  response->set_ready(status.ready);
  response->set_version(status.version);
  return grpc::Status::OK;
}

grpc::Status InspectService::Status(grpc::ServerContext*, const v1::StatusRequest* request, v1::StatusResponse* response) {
  if (auto refusal = gate_.Admit(request->protocol_version()); !refusal.ok()) return refusal;
  ToProto(api_.Status(), response);
  return grpc::Status::OK;
}

grpc::Status InspectService::ListPods(grpc::ServerContext*, const v1::ListPodsRequest* request, v1::ListPodsResponse* response) {
  if (auto refusal = gate_.Admit(request->protocol_version()); !refusal.ok()) return refusal;
  for (const model::LocalPodStatus& pod : api_.Pods()) ToProto(pod, response->add_pods());
  return grpc::Status::OK;
}

grpc::Status InspectService::ListConnections(grpc::ServerContext*, const v1::ListConnectionsRequest* request,
                                             grpc::ServerWriter<v1::ConnectionsPage>* pages) {
  if (auto refusal = gate_.Admit(request->protocol_version()); !refusal.ok()) return refusal;
  v1::ConnectionsPage page;
  for (const model::ConnectionInfo& connection : api_.Connections()) {
    if (!request->pod().empty() && request->pod() != connection.pod) continue;
    ToProto(connection, page.add_connections());
    if (page.connections_size() < kConnectionsPerPage) continue;
    if (!pages->Write(page)) return {grpc::StatusCode::CANCELLED, "the client went away"};
    page.Clear();
  }
  if (page.connections_size() > 0) pages->Write(page);
  return grpc::Status::OK;
}

grpc::Status InspectService::TracePolicy(grpc::ServerContext*, const v1::TracePolicyRequest* request, v1::TracePolicyResponse* response) {
  if (auto refusal = gate_.Admit(request->protocol_version()); !refusal.ok()) return refusal;
  auto verdict = api_.TracePolicy(request->source_pod(), request->destination_pod(), request->port());
  if (!verdict) return ToStatus(verdict.Error());
  ToProto(*verdict, response);
  return grpc::Status::OK;
}

grpc::Status InspectService::ListPolicies(grpc::ServerContext*, const v1::ListPoliciesRequest* request,
                                          grpc::ServerWriter<v1::PoliciesPage>* pages) {
  if (auto refusal = gate_.Admit(request->protocol_version()); !refusal.ok()) return refusal;
  v1::PoliciesPage page;
  std::size_t bytes = 0;
  for (const model::PolicyInfo& policy : api_.Policies()) {
    ToProto(policy, page.add_policies());
    bytes += page.policies(page.policies_size() - 1).ByteSizeLong();
    if (bytes < kPoliciesPageBytes) continue;
    if (!pages->Write(page)) return {grpc::StatusCode::CANCELLED, "the client went away"};
    page.Clear();
    bytes = 0;
  }
  if (page.policies_size() > 0) pages->Write(page);
  return grpc::Status::OK;
}

grpc::Status InspectService::WatchFlows(grpc::ServerContext* context, const v1::WatchFlowsRequest* request,
                                        grpc::ServerWriter<v1::FlowsPage>* pages) {
  if (auto refusal = gate_.Admit(request->protocol_version()); !refusal.ok()) return refusal;
  if (flows_ == nullptr) return {grpc::StatusCode::UNAVAILABLE, "this agent keeps no flow events"};
  const Follower follower(followers_);
  if (follower.Number() > kMostFollowers) {
    return {grpc::StatusCode::UNAVAILABLE, "too many clients look at flow events: " + std::to_string(kMostFollowers) + " do already"};
  }
  const std::uint64_t end = flows_->NextFlow();
  std::uint64_t from = 0;
  v1::FlowsPage page;
  while (!context->IsCancelled()) {
    const bool live = request->follow();
    if (!live && from >= end) break;
    model::FlowBatch batch = flows_->ReadFlows(from, kFlowsPerPage, live ? kFollowerLooks : std::chrono::milliseconds(0));
    from = batch.next;
    page.set_lost(page.lost() + batch.lost);
    for (const model::FlowEvent& event : batch.events) {
      if ((live || event.sequence < end) && Wanted(event, *request)) ToProto(event, page.add_events());
    }
    if (page.events_size() > 0 || page.lost() > 0) {
      // Waits while the client does not read: then the ring goes on without it.
      if (!pages->Write(page)) return {grpc::StatusCode::CANCELLED, "the client went away"};
      page.Clear();
    }
    if (batch.over || (!live && batch.events.empty())) break;
  }
  return grpc::Status::OK;
}

}  // namespace vsocket::rpc
