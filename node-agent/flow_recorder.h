// Where flow events go: into the log of recent ones, into the counters, and, for a connection that was cut, onto its pods as Kubernetes
// Events.
//
// Thread safety: every method from any thread.
#pragma once

#include <string>

#include "node-agent/enforce/denial_log.h"
#include "node-agent/model/event_sink.h"
#include "node-agent/model/flow_event.h"
#include "node-agent/policy_keeper.h"
#include "node-agent/telemetry/flow_log.h"
#include "node-agent/telemetry/verdict_counts.h"

namespace vsocket {

class FlowRecorder {
 public:
  // `events` may be null: no API server to post to. Their rate is limited there (model/event_sink.h).
  FlowRecorder(const PolicyKeeper& policy, model::EventSink* events) : policy_(policy), events_(events) {}

  void Record(model::FlowEvent event);
  // A packet filter refused a flow. By whom is asked again: the filter says only that, not why.
  void RecordDenial(const enforce::Denial& denial);

  [[nodiscard]] telemetry::FlowLog& Log() { return log_; }
  [[nodiscard]] const telemetry::FlowLog& Log() const { return log_; }
  [[nodiscard]] telemetry::VerdictCounts::Snapshot Counts() const { return counts_.Take(); }

 private:
  void Post(const model::FlowEvent& event, const std::string& pod, const std::string& uid) const;

  const PolicyKeeper& policy_;
  model::EventSink* const events_;
  telemetry::FlowLog log_;
  telemetry::VerdictCounts counts_;
};

}  // namespace vsocket
