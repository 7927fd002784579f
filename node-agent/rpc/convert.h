// Between the agent's plain values and the generated messages. Only rpc/ sees this header.
// Thread safety: pure functions.
#pragma once

#include <grpcpp/support/status.h>
#include <vsocket/v1/agent.pb.h>

#include "base/result.h"
#include "node-agent/model/flow_event.h"
#include "node-agent/model/node_api.h"

namespace vsocket::rpc {

// kInvalid with the field's name when an address does not parse, or the uid, container id or interface name cannot be a key.
Result<model::LocalPod, model::ApiError> FromProto(const v1::LocalPod& message);

void ToProto(const model::LocalPod& pod, v1::LocalPod* out);
void ToProto(const model::LocalPodStatus& status, v1::PodStatus* out);
void ToProto(const model::ConnectionInfo& connection, v1::Connection* out);
void ToProto(const model::Verdict& verdict, v1::TracePolicyResponse* out);
void ToProto(const model::PolicyInfo& policy, v1::Policy* out);
void ToProto(const model::FlowEvent& event, v1::FlowEvent* out);
void ToProto(const model::AgentStatus& status, v1::StatusResponse* out);

grpc::Status ToStatus(const model::ApiError& error);

}  // namespace vsocket::rpc
