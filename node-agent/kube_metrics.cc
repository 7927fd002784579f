#include "node-agent/kube_metrics.h"

namespace vsocket {

void AddKubeMetrics(const kube::KubeSource::Counters& source, const model::EventSink::Counters& events, telemetry::MetricsSample* sample) {
  using Kind = telemetry::MetricsSample::Kind;
  const auto counter = [&](const char* name, const char* help, std::uint64_t value) {
    sample->Add(Kind::kCounter, name, help, static_cast<double>(value));
  };
  sample->Add(Kind::kGauge, "vsocket_kube_stale_kinds", "Kinds of object that the API server does not tell us about at present.",
              static_cast<double>(source.stale));
  counter("vsocket_kube_lists_total", "Lists that were read from the API server.", source.requests.lists);
  counter("vsocket_kube_watches_total", "Watches that the API server began.", source.requests.watches);
  counter("vsocket_kube_events_total", "Changes that watches told.", source.requests.events);
  counter("vsocket_kube_failures_total", "Requests to the API server that were refused, cut, or could not be understood.",
          source.requests.failures);
  telemetry::MetricsSample::Metric pods{"vsocket_pod_events_total",
                                        "Kubernetes Events on pods, by what became of them.",
                                        Kind::kCounter,
                                        {{{{"outcome", "posted"}}, static_cast<double>(events.posted)},
                                         {{{"outcome", "limited"}}, static_cast<double>(events.limited)},
                                         {{{"outcome", "dropped"}}, static_cast<double>(events.dropped)}}};
  sample->metrics.push_back(std::move(pods));
}

}  // namespace vsocket
