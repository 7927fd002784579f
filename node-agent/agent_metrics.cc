#include "node-agent/agent_metrics.h"

#include <iterator>
#include <utility>

#include "channel/reason.h"

namespace vsocket {
namespace {

// "kNotProven" -> "not_proven": label values as Prometheus users write them.
constexpr const char* ReasonName(std::size_t number) {
  switch (number) {
#define VSOCKET_REASON_NAME(name, value, text) \
  case value:                                  \
    return #name;
    VSOCKET_REASONS(VSOCKET_REASON_NAME)
#undef VSOCKET_REASON_NAME
    default:
      return "kUnknown";
  }
}

std::string LabelOf(std::size_t reason) {
  std::string label;
  for (const char* c = ReasonName(reason) + 1; *c != '\0'; ++c) {
    const bool upper = *c >= 'A' && *c <= 'Z';
    if (upper && !label.empty()) label.push_back('_');
    label.push_back(upper ? static_cast<char>(*c - 'A' + 'a') : *c);
  }
  return label;
}

constexpr const char* kPathNames[] = {"ring", "kernel"};  // by model::FlowPath

// Label sets are bounded: two directions, two outcomes, two paths, and so many policies as VerdictCounts tells apart.
void AddVerdicts(const telemetry::VerdictCounts::Snapshot& counts, telemetry::MetricsSample& sample) {
  using Kind = telemetry::MetricsSample::Kind;
  telemetry::MetricsSample::Metric verdicts{
      "vsocket_verdicts_total",
      "Verdicts on flows that went on a ring, were refused or were cut; one for each end that is a pod.",
      Kind::kCounter,
      {}};
  for (const auto& [key, count] : counts.verdicts) {
    verdicts.values.push_back({{{"direction", key.ingress ? "ingress" : "egress"},
                                {"verdict", key.allowed ? "allowed" : "denied"},
                                {"path", kPathNames[static_cast<std::size_t>(key.path)]},
                                {"policy", key.policy}},
                               static_cast<double>(count)});
  }
  telemetry::MetricsSample::Metric denied{"vsocket_flows_denied_total",
                                          "Flows that a policy did not let begin: upgrades refused, and first packets that were told of.",
                                          Kind::kCounter,
                                          {}};
  telemetry::MetricsSample::Metric cut{"vsocket_flows_cut_total", "Living flows that a policy change ended.", Kind::kCounter, {}};
  for (std::size_t path = 0; path < std::size(kPathNames); ++path) {
    denied.values.push_back({{{"path", kPathNames[path]}}, static_cast<double>(counts.denied[path])});
    cut.values.push_back({{{"path", kPathNames[path]}}, static_cast<double>(counts.cut[path])});
  }
  if (!verdicts.values.empty()) sample.metrics.push_back(std::move(verdicts));
  sample.metrics.push_back(std::move(denied));
  sample.metrics.push_back(std::move(cut));
}

}  // namespace

telemetry::MetricsSample SampleAgent(const AgentFigures& figures) {
  const broker::BrokerStats& stats = figures.broker;
  const enforce::Enforcer::Counters& rules = figures.rules;
  const model::AgentStatus& policy = figures.policy;
  using Kind = telemetry::MetricsSample::Kind;
  telemetry::MetricsSample sample;
  const auto gauge = [&](const char* name, const char* help, auto value) {
    sample.Add(Kind::kGauge, name, help, static_cast<double>(value));
  };
  const auto counter = [&](const char* name, const char* help, auto value) {
    sample.Add(Kind::kCounter, name, help, static_cast<double>(value));
  };
  gauge("vsocket_policy_known", "1 once the source of policies has been read; 0: every upgrade is denied.", policy.ready ? 1 : 0);
  gauge("vsocket_source_problems", "What is wrong in the source of policies, now.", policy.problems.size());
  gauge("vsocket_pods", "Pods wired on this node.", stats.pods);
  gauge("vsocket_processes", "Processes with a shim that are connected to the agent.", stats.processes);
  gauge("vsocket_channels", "Connections that hold a channel.", stats.channels);
  gauge("vsocket_regions", "Shared memory regions.", stats.regions);
  gauge("vsocket_pending_upgrades", "Upgrades that wait for the other end to ask.", stats.pending);
  gauge("vsocket_memory_reserved_bytes", "Ring memory reserved for channels.", stats.bytes_reserved);
  counter("vsocket_upgrade_requests_total", "Upgrades asked for, by either end.", stats.requests);
  counter("vsocket_upgrades_total", "Channels granted.", stats.upgrades);
  counter("vsocket_reattached_ends_total", "Ends of channels taken back after an agent restart.", stats.reattached);
  counter("vsocket_revocations_total", "Channels revoked after a policy or pod change.", stats.revocations);
  counter("vsocket_connections_cut_total", "Kernel TCP sockets destroyed after a policy or pod change.", stats.sockets_destroyed);
  gauge("vsocket_revoked_regions", "Revoked shared memory that somebody may still map.", stats.revoked_memory.watched);
  counter("vsocket_revoked_regions_still_mapped_total", "Revoked shared memory that some process still mapped after the deadline.",
          stats.revoked_memory.unheeded);
  counter("vsocket_revocation_kills_total", "Processes killed because they still mapped revoked memory (--strict-revocation).",
          stats.revoked_memory.killed);
  counter("vsocket_channel_ends_swept_total", "Ends of channels taken back because their socket was gone, without a word of the shim.",
          stats.swept);
  gauge("vsocket_bandwidth_limited_directions", "Directions of channels that a bandwidth annotation limits.", stats.bandwidth.limited);
  gauge("vsocket_bandwidth_active_directions", "Of them, those that are looked at now; 0: the agent sleeps.", stats.bandwidth.active);
  counter("vsocket_bandwidth_granted_bytes_total", "Bytes granted to senders with a limit.", stats.bandwidth.granted_bytes);
  counter("vsocket_bandwidth_rounds_total", "Looks at the senders with a limit that are active.", stats.bandwidth.rounds);
  counter("vsocket_bandwidth_ignored_total", "Channels cut because a sender went past what it was granted.", stats.over_limit);
  counter("vsocket_ring_bytes_total", "Bytes through rings, as the shims publish them.", stats.ring_bytes);
  counter("vsocket_control_protocol_errors_total", "Broken messages on agent.sock.", stats.protocol_errors);
  counter("vsocket_shims_refused_total", "Processes refused: wrong version, wrong network namespace, or too many.", stats.shims_refused);
  counter("vsocket_shims_dropped_total", "Processes disconnected: they did not read, or no descriptor was left.", stats.shims_dropped);
  counter("vsocket_rulesets_applied_total", "Packet filter tables written into pods.", rules.applied);
  counter("vsocket_rulesets_failed_total", "Packet filter tables that could not be written.", rules.failed);

  telemetry::MetricsSample::Metric denials{"vsocket_denials_total", "Upgrades denied, by reason.", Kind::kCounter, {}};
  for (std::size_t reason = 1; reason < stats.denials.size(); ++reason) {
    denials.values.push_back({{{"reason", LabelOf(reason)}}, static_cast<double>(stats.denials[reason])});
  }
  sample.metrics.push_back(std::move(denials));
  AddVerdicts(figures.verdicts, sample);
  counter("vsocket_denials_overrun_total", "Times that the kernel dropped what packet filters had to tell, because too much came at once.",
          figures.denials.overruns);
  counter("vsocket_denials_not_understood_total", "Refused packets that were told of, and whose heads could not be read.",
          figures.denials.not_understood);
  counter("vsocket_flow_events_lost_total", "Flow events that a reader was too slow for.", figures.flow_events_lost);
  return sample;
}

}  // namespace vsocket
