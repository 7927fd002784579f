// What /metrics shows, in the words of the parts that count.
#pragma once

#include "node-agent/broker/broker.h"
#include "node-agent/enforce/enforcer.h"
#include "node-agent/telemetry/metrics.h"

namespace vsocket {

telemetry::MetricsSample SampleAgent(const broker::BrokerStats& stats, const enforce::Enforcer::Counters& rules);

}  // namespace vsocket
