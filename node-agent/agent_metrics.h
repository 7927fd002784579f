// What /metrics shows, in the words of the parts that count.
#pragma once

#include "node-agent/broker/broker.h"
#include "node-agent/enforce/denial_log.h"
#include "node-agent/enforce/enforcer.h"
#include "node-agent/model/node_api.h"
#include "node-agent/telemetry/metrics.h"
#include "node-agent/telemetry/verdict_counts.h"

namespace vsocket {

struct AgentFigures {
  broker::BrokerStats broker;
  enforce::Enforcer::Counters rules;
  enforce::DenialLog::Counters denials;
  telemetry::VerdictCounts::Snapshot verdicts;
  std::uint64_t flow_events_lost = 0;  // by readers that were overtaken
  model::AgentStatus policy;           // only what PolicyKeeper::CompleteStatus fills in
};

telemetry::MetricsSample SampleAgent(const AgentFigures& figures);

}  // namespace vsocket
