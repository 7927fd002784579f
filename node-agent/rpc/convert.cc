#include "node-agent/rpc/convert.h"

#include <string_view>

#include "channel/reason.h"
#include "node-agent/model/policy_words.h"
#include "proto/version.h"

namespace vsocket::rpc {
namespace {

using model::ApiError;
using model::ApiErrorKind;

// The uid becomes a directory name and the container id a key that people type: nothing that could leave the directory.
bool IsName(std::string_view text) {
  constexpr std::size_t kLongest = 253;  // of a Kubernetes name
  if (text.empty() || text.size() > kLongest || text == "." || text == "..") return false;
  for (const char c : text) {
    const bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
    if (!ok) return false;
  }
  return true;
}

Failure<ApiError> Invalid(std::string message) {
  return Failure<ApiError>({ApiErrorKind::kInvalid, std::move(message)});
}

v1::ConnectionState StateOf(model::ConnectionState state) {
  switch (state) {
    case model::ConnectionState::kTcp:
      return v1::CONNECTION_STATE_TCP;
    case model::ConnectionState::kUpgrading:
      return v1::CONNECTION_STATE_UPGRADING;
    case model::ConnectionState::kRing:
      return v1::CONNECTION_STATE_RING;
  }
  return v1::CONNECTION_STATE_UNSPECIFIED;
}

void ToProto(const model::DirectionVerdict& verdict, v1::DirectionVerdict* out) {
  out->set_allowed(verdict.allowed);
  out->set_pod(verdict.pod);
  for (const std::string& policy : verdict.isolated_by) out->add_isolated_by(policy);
  out->set_decided_by(verdict.decided_by);
  out->set_policy(verdict.policy);
  out->set_rule(verdict.rule);
  out->set_peer(verdict.peer);
  out->set_rule_text(verdict.rule_text);
  out->set_peer_text(verdict.peer_text);
}

v1::FlowAction ActionOf(model::FlowAction action) {
  switch (action) {
    case model::FlowAction::kAllowed:
      return v1::FLOW_ACTION_ALLOWED;
    case model::FlowAction::kDenied:
      return v1::FLOW_ACTION_DENIED;
    case model::FlowAction::kCut:
      return v1::FLOW_ACTION_CUT;
  }
  return v1::FLOW_ACTION_UNSPECIFIED;
}

}  // namespace

Result<model::LocalPod, ApiError> FromProto(const v1::LocalPod& message) {
  if (!IsName(message.uid())) return Invalid("pod uid \"" + message.uid() + "\" is not a name of [A-Za-z0-9-_.]");
  if (!IsName(message.container_id())) return Invalid("container id \"" + message.container_id() + "\" is not a name of [A-Za-z0-9-_.]");
  if (!IsName(message.namespace_()) || !IsName(message.name())) {
    return Invalid("pod \"" + message.namespace_() + "/" + message.name() + "\" is not a name of [A-Za-z0-9-_.]");
  }
  if (message.ifname().empty()) return Invalid("the interface name is empty");

  model::LocalPod pod;
  pod.uid = message.uid();
  pod.ns = message.namespace_();
  pod.name = message.name();
  pod.container_id = message.container_id();
  pod.ifname = message.ifname();
  pod.netns_path = message.netns_path();
  pod.netns_cookie = message.netns_cookie();
  pod.netns_inode = message.netns_inode();
  for (const std::string& text : message.ips()) {
    const auto address = model::IpAddress::Parse(text);
    if (!address) return Invalid("pod address \"" + text + "\" is not an IP address");
    pod.ips.push_back(*address);
  }
  return pod;
}

void ToProto(const model::LocalPod& pod, v1::LocalPod* out) {
  out->set_uid(pod.uid);
  out->set_namespace_(pod.ns);
  out->set_name(pod.name);
  out->set_container_id(pod.container_id);
  out->set_ifname(pod.ifname);
  out->set_netns_path(pod.netns_path);
  out->set_netns_cookie(pod.netns_cookie);
  out->set_netns_inode(pod.netns_inode);
  for (const model::IpAddress& address : pod.ips) out->add_ips(address.ToString());
}

void ToProto(const model::LocalPodStatus& status, v1::PodStatus* out) {
  ToProto(status.pod, out->mutable_pod());
  out->set_socket_dir(status.socket_dir);
  out->set_processes(status.processes);
  out->set_channels(status.channels);
  out->set_channel_bytes(status.channel_bytes);
  out->set_isolated_ingress(status.isolated_ingress);
  out->set_isolated_egress(status.isolated_egress);
  if (status.bandwidth.ingress) out->set_ingress_bandwidth(status.bandwidth.ingress->text);
  if (status.bandwidth.egress) out->set_egress_bandwidth(status.bandwidth.egress->text);
  out->set_bandwidth_problem(status.bandwidth.problem);
}

void ToProto(const model::ConnectionInfo& connection, v1::Connection* out) {
  out->set_pod(connection.pod);
  out->set_pod_uid(connection.pod_uid);
  out->set_program(connection.program);
  out->set_pid(connection.pid);
  out->set_local_ip(connection.local.ToString());
  out->set_local_port(connection.local_port);
  out->set_remote_ip(connection.remote.ToString());
  out->set_remote_port(connection.remote_port);
  out->set_remote_pod(connection.remote_pod);
  out->set_cookie(connection.cookie);
  out->set_state(StateOf(connection.state));
  out->set_tcp_sent(connection.tcp_sent);
  out->set_tcp_received(connection.tcp_received);
  out->set_ring_sent(connection.ring_sent);
  out->set_ring_received(connection.ring_received);
  out->set_limited_by(connection.limited_by);
  if (connection.state != model::ConnectionState::kRing) {
    out->set_reason(connection.reason);
    out->set_reason_text(channel::ReasonText(connection.reason));
  }
}

void ToProto(const model::Verdict& verdict, v1::TracePolicyResponse* out) {
  out->set_allowed(verdict.allowed);
  ToProto(verdict.egress, out->mutable_egress());
  ToProto(verdict.ingress, out->mutable_ingress());
  if (verdict.asked.source != model::IpAddress() || verdict.asked.destination != model::IpAddress()) {
    out->set_source_ip(verdict.asked.source.ToString());
    out->set_destination_ip(verdict.asked.destination.ToString());
  }
  out->set_port(verdict.asked.destination_port);
  out->set_protocol(model::ProtocolName(verdict.asked.protocol));
}

void ToProto(const model::PolicyInfo& policy, v1::Policy* out) {
  out->set_namespace_(policy.ns);
  out->set_name(policy.name);
  out->set_selects(policy.selects);
  out->set_isolates_ingress(policy.isolates_ingress);
  out->set_isolates_egress(policy.isolates_egress);
  for (const std::string& rule : policy.ingress) out->add_ingress(rule);
  for (const std::string& rule : policy.egress) out->add_egress(rule);
  for (const std::string& pod : policy.local_pods) out->add_local_pods(pod);
  out->set_local_pod_count(policy.local_pod_count);
  out->set_pod_count(policy.pod_count);
  for (const std::string& problem : policy.problems) out->add_problems(problem);
}

void ToProto(const model::FlowEvent& event, v1::FlowEvent* out) {
  out->set_sequence(event.sequence);
  out->set_unix_nanos(event.unix_nanos);
  out->set_action(ActionOf(event.action));
  out->set_path(event.path == model::FlowPath::kRing ? v1::FLOW_PATH_RING : v1::FLOW_PATH_KERNEL);
  out->set_protocol(model::ProtocolName(event.flow.protocol));
  out->set_source_ip(event.flow.source.ToString());
  out->set_source_port(event.source_port);
  out->set_source_pod(event.source_pod);
  out->set_destination_ip(event.flow.destination.ToString());
  out->set_destination_port(event.flow.destination_port);
  out->set_destination_pod(event.destination_pod);
  out->set_pod(event.pod);
  const bool by_egress = model::DecidedByEgress(event);
  const model::DirectionVerdict& decided = by_egress ? event.egress : event.ingress;
  out->set_direction(by_egress ? "egress" : "ingress");
  out->set_policy(decided.policy.empty() && !decided.allowed && !decided.isolated_by.empty() ? decided.isolated_by.front()
                                                                                             : decided.policy);
  out->set_reason(event.reason);
  ToProto(event.egress, out->mutable_egress());
  ToProto(event.ingress, out->mutable_ingress());
}

void ToProto(const model::AgentStatus& status, v1::StatusResponse* out) {
  out->set_version(status.version);
  out->set_instance(status.instance);
  out->set_uptime_seconds(status.uptime_seconds);
  out->set_source(status.source);
  out->set_revision(status.revision);
  for (const model::SourceProblem& problem : status.problems) {
    v1::SourceProblem* message = out->add_problems();
    message->set_where(problem.where);
    message->set_what(problem.what);
  }
  out->set_pods(status.pods);
  out->set_processes(status.processes);
  out->set_channels(status.channels);
  out->set_regions(status.regions);
  out->set_upgrades(status.upgrades);
  out->set_denials(status.denials);
  out->set_revocations(status.revocations);
  out->set_ready(status.ready);
  out->set_protocol_version(kProtocolVersion);
  out->mutable_enforcement()->set_asked(status.enforcement.asked);
  out->mutable_enforcement()->set_in_force(status.enforcement.in_force);
  out->mutable_enforcement()->set_why(status.enforcement.why);
  for (const model::Condition& condition : status.conditions) {
    v1::Condition* message = out->add_conditions();
    message->set_type(condition.type);
    message->set_subject(condition.subject);
    message->set_what(condition.what);
  }
}

grpc::Status ToStatus(const ApiError& error) {
  // FAILED_PRECONDITION is not here: it means another protocol version and nothing else.
  switch (error.kind) {
    case ApiErrorKind::kInvalid:
      return {grpc::StatusCode::INVALID_ARGUMENT, error.message};
    case ApiErrorKind::kNotFound:
      return {grpc::StatusCode::NOT_FOUND, error.message};
    case ApiErrorKind::kConflict:
      return {grpc::StatusCode::ALREADY_EXISTS, error.message};
    case ApiErrorKind::kUnavailable:
      return {grpc::StatusCode::UNAVAILABLE, error.message};
    case ApiErrorKind::kInternal:
      break;
  }
  return {grpc::StatusCode::INTERNAL, error.message};
}

}  // namespace vsocket::rpc
