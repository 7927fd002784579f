#include "node-agent/telemetry/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

namespace vsocket::telemetry {

Metrics::Metrics(std::function<MetricsSample()> sample) : sample_(std::move(sample)) {}
Metrics::~Metrics() = default;

std::string Metrics::Render() const {
  const MetricsSample sample = sample_();
  std::vector<prometheus::MetricFamily> families;
  for (const MetricsSample::Metric& metric : sample.metrics) {
    prometheus::MetricFamily family;
    family.name = metric.name;
    family.help = metric.help;
    const bool counter = metric.kind == MetricsSample::Kind::kCounter;
    family.type = counter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge;
    for (const MetricsSample::Value& value : metric.values) {
      prometheus::ClientMetric client;
      for (const auto& [name, text] : value.labels) client.label.push_back({name, text});
      (counter ? client.counter.value : client.gauge.value) = value.value;
      family.metric.push_back(std::move(client));
    }
    families.push_back(std::move(family));
  }
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace vsocket::telemetry
