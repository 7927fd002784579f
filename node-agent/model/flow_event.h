// One thing that a verdict did to a flow: what `vsocketctl flows` shows and metrics count. A plain value.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "node-agent/model/cluster.h"
#include "node-agent/model/verdict.h"

namespace vsocket::model {

enum class FlowAction : std::uint8_t {
  kAllowed,  // a connection went on a ring
  kDenied,   // a flow did not begin: no ring, or its first packet was refused
  kCut,      // a flow that lived was ended
};

enum class FlowPath : std::uint8_t { kRing, kKernel };

struct FlowEvent {
  std::uint64_t sequence = 0;    // given by the log of events: 1, 2, ... without a gap while the agent lives
  std::uint64_t unix_nanos = 0;  // CLOCK_REALTIME, when the agent came to know of it
  FlowAction action = FlowAction::kAllowed;
  FlowPath path = FlowPath::kKernel;
  Flow flow;                      // from the end that opened it
  std::uint16_t source_port = 0;  // 0: not known
  std::string source_pod;         // "ns/name"; empty: no pod, or none that is known
  std::string destination_pod;
  std::string source_uid, destination_uid;  // of those that are wired on this node
  std::string pod;                          // the one of the two, on this node, at which it was seen, "ns/name"
  DirectionVerdict egress, ingress;         // of both ends, by the policy in force when the event was made
  std::string reason;                       // in words
};

// Must be callable from any thread, and not block.
using FlowRecorder = std::function<void(FlowEvent)>;

// The direction that decided: of a refusal the one that refused (egress before ingress), of a permission the one that a policy isolates.
inline bool DecidedByEgress(const FlowEvent& event) {
  if (!event.egress.allowed) return true;
  if (!event.ingress.allowed) return false;
  return event.ingress.isolated_by.empty() && !event.egress.isolated_by.empty();
}

}  // namespace vsocket::model
