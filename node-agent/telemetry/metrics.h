// The agent's metrics in the Prometheus text format. They are pulled: a scrape asks for one sample of everything, so that nothing is
// counted twice in two places and an idle agent does nothing.
//
// Thread safety: Render from any thread, if the sampling function may be called from any.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace vsocket::telemetry {

struct MetricsSample {
  enum class Kind : std::uint8_t { kGauge, kCounter };
  using Labels = std::vector<std::pair<std::string, std::string>>;  // name, value; the same names for all values of a metric
  struct Value {
    Labels labels;
    double value = 0;
  };
  struct Metric {
    std::string name;  // "vsocket_channels"
    std::string help;
    Kind kind = Kind::kGauge;
    std::vector<Value> values;
  };
  std::vector<Metric> metrics;

  void Add(Kind kind, std::string name, std::string help, double value) {
    metrics.push_back({std::move(name), std::move(help), kind, {{{}, value}}});
  }
};

class Metrics {
 public:
  explicit Metrics(std::function<MetricsSample()> sample);
  ~Metrics();
  // Content-Type: text/plain; version=0.0.4
  [[nodiscard]] std::string Render() const;

 private:
  std::function<MetricsSample()> sample_;
};

}  // namespace vsocket::telemetry
