// What /metrics shows, in the words of the parts that count.
#pragma once

#include "node-agent/broker/broker.h"
#include "node-agent/enforce/enforcer.h"
#include "node-agent/model/node_api.h"
#include "node-agent/telemetry/metrics.h"

namespace vsocket {

// Of `policy` only what PolicyKeeper::CompleteStatus fills in.
telemetry::MetricsSample SampleAgent(const broker::BrokerStats& stats, const enforce::Enforcer::Counters& rules,
                                     const model::AgentStatus& policy);

}  // namespace vsocket
