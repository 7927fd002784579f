#include "cli/inspector.h"

#include <grpcpp/grpcpp.h>
#include <vsocket/v1/agent.grpc.pb.h>

#include <algorithm>
#include <utility>

#include "proto/unix_channel.h"
#include "proto/version.h"

namespace vsocket::cli {
namespace {

constexpr char kIsItRunning[] = " (is vsocket-agent running? another path is given with --agent-socket)";

CallError ErrorOf(const grpc::Status& status, const std::string& socket_path, std::chrono::milliseconds timeout) {
  switch (status.error_code()) {
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return {Exit::kUnreachable, "the agent on " + socket_path + " did not answer within " + std::to_string(timeout.count()) + " ms"};
    case grpc::StatusCode::UNAVAILABLE:
      return {Exit::kUnreachable, "the agent on " + socket_path + " is not available: " + status.error_message()};
    case grpc::StatusCode::NOT_FOUND:
      return {Exit::kNotFound, status.error_message()};
    case grpc::StatusCode::INVALID_ARGUMENT:
      return {Exit::kUsage, status.error_message()};
    case grpc::StatusCode::FAILED_PRECONDITION:
      return {Exit::kOtherVersion, status.error_message() + "; use the vsocketctl of the agent's release"};
    case grpc::StatusCode::UNIMPLEMENTED:
      return {Exit::kOtherVersion, "the agent on " + socket_path + " is older than this vsocketctl and does not know the call"};
    default:
      return {Exit::kFailed, "the agent failed: " + status.error_message()};
  }
}

// Connects, calls `call(stub, context)` and returns what it returned as an error, or nothing. `endless`: the answer may take for ever.
template <typename Call>
Result<bool, CallError> Ask(const std::string& socket_path, std::chrono::milliseconds timeout, Call call, bool endless = false) {
  rpc::ConnectError error;
  const auto channel = rpc::ConnectUnix(socket_path, &error);
  if (!channel) return Failure<CallError>({Exit::kUnreachable, error.message + (error.someone_listens ? "" : kIsItRunning)});
  const auto stub = v1::Inspect::NewStub(channel);
  grpc::ClientContext context;
  if (!endless) context.set_deadline(std::chrono::system_clock::now() + timeout);
  const grpc::Status status = call(*stub, &context);
  if (!status.ok()) return Failure<CallError>(ErrorOf(status, socket_path, timeout));
  return true;
}

template <typename Request>
Request Make() {
  Request request;
  request.set_protocol_version(rpc::kProtocolVersion);
  return request;
}

}  // namespace

Inspector::Inspector(std::string socket_path, std::chrono::milliseconds timeout)
    : socket_path_(std::move(socket_path)), timeout_(timeout) {}

Result<v1::StatusResponse, CallError> Inspector::Status() {
  v1::StatusResponse response;
  auto asked = Ask(socket_path_, timeout_, [&](v1::Inspect::Stub& stub, grpc::ClientContext* context) {
    return stub.Status(context, Make<v1::StatusRequest>(), &response);
  });
  if (!asked) return Failure<CallError>(asked.Error());
  return response;
}

Result<std::vector<v1::PodStatus>, CallError> Inspector::Pods() {
  v1::ListPodsResponse response;
  auto asked = Ask(socket_path_, timeout_, [&](v1::Inspect::Stub& stub, grpc::ClientContext* context) {
    return stub.ListPods(context, Make<v1::ListPodsRequest>(), &response);
  });
  if (!asked) return Failure<CallError>(asked.Error());
  return std::vector<v1::PodStatus>(response.pods().begin(), response.pods().end());
}

Result<std::vector<v1::Connection>, CallError> Inspector::Connections(const std::string& pod) {
  std::vector<v1::Connection> connections;
  auto asked = Ask(socket_path_, timeout_, [&](v1::Inspect::Stub& stub, grpc::ClientContext* context) {
    auto request = Make<v1::ListConnectionsRequest>();
    request.set_pod(pod);
    const auto pages = stub.ListConnections(context, request);
    for (v1::ConnectionsPage page; pages->Read(&page);) {
      connections.insert(connections.end(), page.connections().begin(), page.connections().end());
    }
    return pages->Finish();
  });
  if (!asked) return Failure<CallError>(asked.Error());
  if (pod.empty() || !connections.empty()) return connections;
  // An idle pod, or a mistyped one?
  auto pods = Pods();
  if (!pods) return Failure<CallError>(pods.Error());
  const bool known = std::any_of(pods->begin(), pods->end(),
                                 [&](const v1::PodStatus& status) { return status.pod().namespace_() + "/" + status.pod().name() == pod; });
  if (!known) return Failure<CallError>({Exit::kNotFound, "no pod " + pod + " on this node (vsocketctl pods lists them)"});
  return connections;
}

Result<std::vector<v1::Policy>, CallError> Inspector::Policies() {
  std::vector<v1::Policy> policies;
  auto asked = Ask(socket_path_, timeout_, [&](v1::Inspect::Stub& stub, grpc::ClientContext* context) {
    const auto pages = stub.ListPolicies(context, Make<v1::ListPoliciesRequest>());
    for (v1::PoliciesPage page; pages->Read(&page);) policies.insert(policies.end(), page.policies().begin(), page.policies().end());
    return pages->Finish();
  });
  if (!asked) return Failure<CallError>(asked.Error());
  return policies;
}

Result<bool, CallError> Inspector::Flows(v1::WatchFlowsRequest request, const std::function<bool(const v1::FlowsPage&)>& page) {
  request.set_protocol_version(rpc::kProtocolVersion);
  bool enough = false;
  const auto call = [&](v1::Inspect::Stub& stub, grpc::ClientContext* context) {
    const auto pages = stub.WatchFlows(context, request);
    for (v1::FlowsPage got; !enough && pages->Read(&got);) {
      if (page(got)) continue;
      enough = true;
      context->TryCancel();
    }
    const grpc::Status status = pages->Finish();
    return enough ? grpc::Status::OK : status;
  };
  return Ask(socket_path_, timeout_, call, request.follow());
}

Result<v1::TracePolicyResponse, CallError> Inspector::TracePolicy(v1::TracePolicyRequest request) {
  request.set_protocol_version(rpc::kProtocolVersion);
  v1::TracePolicyResponse response;
  auto asked = Ask(socket_path_, timeout_,
                   [&](v1::Inspect::Stub& stub, grpc::ClientContext* context) { return stub.TracePolicy(context, request, &response); });
  if (!asked) return Failure<CallError>(asked.Error());
  return response;
}

}  // namespace vsocket::cli
