#include "node-agent/flow_recorder.h"

#include <utility>

#include "node-agent/broker/broker.h"

namespace vsocket {
namespace {

std::string EndText(const std::string& pod, const model::IpAddress& address, std::uint16_t port) {
  const std::string host = address.IsV4() ? address.ToString() : "[" + address.ToString() + "]";
  const std::string endpoint = host + ":" + std::to_string(port);
  return pod.empty() ? endpoint : pod + " (" + endpoint + ")";
}

}  // namespace

void FlowRecorder::Record(model::FlowEvent event) {
  counts_.Count(event);
  if (event.action == model::FlowAction::kCut && events_ != nullptr) {
    Post(event, event.source_pod, event.source_uid);
    Post(event, event.destination_pod, event.destination_uid);
  }
  log_.Append(std::move(event));
}

// Only on a pod of this node: the other node's agent sees its own end.
void FlowRecorder::Post(const model::FlowEvent& event, const std::string& pod, const std::string& uid) const {
  const auto slash = pod.find('/');
  if (uid.empty() || slash == std::string::npos) return;
  model::PodEvent out;
  out.ns = pod.substr(0, slash);
  out.pod = pod.substr(slash + 1);
  out.uid = uid;
  out.reason = "ConnectionCut";
  out.action = "CutConnection";
  out.note = "A NetworkPolicy does not allow this connection any more, and it was cut: " +
             EndText(event.source_pod, event.flow.source, event.source_port) + " -> " +
             EndText(event.destination_pod, event.flow.destination, event.flow.destination_port) + "; " + event.reason;
  events_->Post(std::move(out));
}

void FlowRecorder::RecordDenial(const enforce::Denial& denial) {
  model::FlowEvent event;
  event.action = model::FlowAction::kDenied;
  event.path = model::FlowPath::kKernel;
  event.flow = denial.flow;
  event.source_port = denial.source_port;
  event.pod = denial.pod.ns + "/" + denial.pod.name;
  (denial.ingress ? event.destination_uid : event.source_uid) = denial.pod.uid;
  model::Verdict verdict = policy_.Judge(denial.flow);
  event.source_pod = verdict.egress.pod;
  event.destination_pod = verdict.ingress.pod;
  const bool explained = !(denial.ingress ? verdict.ingress : verdict.egress).allowed;
  if (explained) {
    event.reason = broker::DecidedBy(verdict);
  } else {
    // The policy has changed since, or the flow is to a Service of which that cannot be said.
    model::DirectionVerdict& refused = denial.ingress ? verdict.ingress : verdict.egress;
    refused.allowed = false;
    refused.pod = event.pod;
    refused.policy.clear();
    refused.rule = refused.peer = 0;
    refused.decided_by = "refused by the pod's packet filter, though the policy in force now would not (" + refused.decided_by + ")";
    event.reason = (denial.ingress ? "ingress of " : "egress of ") + event.pod + ": " + refused.decided_by;
  }
  event.egress = std::move(verdict.egress);
  event.ingress = std::move(verdict.ingress);
  Record(std::move(event));
}

}  // namespace vsocket
