// What /metrics shows of the API server as a source, and of events posted there.
#pragma once

#include "node-agent/kube/kube_source.h"
#include "node-agent/model/event_sink.h"
#include "node-agent/telemetry/metrics.h"

namespace vsocket {

void AddKubeMetrics(const kube::KubeSource::Counters& source, const model::EventSink::Counters& events, telemetry::MetricsSample* sample);

}  // namespace vsocket
