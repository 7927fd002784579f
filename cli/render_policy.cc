// Policies, verdicts and what they did to flows.
#include <array>
#include <cstdio>
#include <ctime>

#include "cli/render.h"
#include "cli/render_parts.h"
#include "cli/table.h"

namespace vsocket::cli {
namespace {

std::string DirectionText(const char* direction, const v1::DirectionVerdict& verdict) {
  std::string out = std::string(direction) + (verdict.allowed() ? "  ALLOWED" : "  DENIED");
  out += verdict.pod().empty() ? "\n" : "  (policies of " + Printable(verdict.pod()) + ")\n";
  out += "  isolated by: " + (verdict.isolated_by().empty() ? "no policy" : Printable(Join(verdict.isolated_by()))) + "\n";
  out += "  decided by:  " + Printable(verdict.decided_by()) + "\n";
  if (!verdict.rule_text().empty()) out += "  the rule:    " + Printable(verdict.rule_text()) + "\n";
  if (!verdict.peer_text().empty()) out += "  the peer:    " + Printable(verdict.peer_text()) + "\n";
  return out;
}

ordered_json JsonOf(const v1::DirectionVerdict& verdict) {
  return {{"allowed", verdict.allowed()},
          {"pod", verdict.pod()},
          {"isolated_by", ListOf(verdict.isolated_by())},
          {"decided_by", verdict.decided_by()},
          {"policy", verdict.policy()},
          {"rule", verdict.rule()},
          {"peer", verdict.peer()},
          {"rule_text", verdict.rule_text()},
          {"peer_text", verdict.peer_text()}};
}

const char* ActionName(v1::FlowAction action) {
  switch (action) {
    case v1::FLOW_ACTION_ALLOWED:
      return "allowed";
    case v1::FLOW_ACTION_DENIED:
      return "denied";
    case v1::FLOW_ACTION_CUT:
      return "cut";
    default:
      return "unknown";
  }
}

const char* PathName(v1::FlowPath path) {
  switch (path) {
    case v1::FLOW_PATH_RING:
      return "ring";
    case v1::FLOW_PATH_KERNEL:
      return "kernel";
    default:
      return "unknown";
  }
}

// "2026-01-02T03:04:05.678Z" (RFC 3339)
std::string Time(std::uint64_t unix_nanos) {
  const auto seconds = static_cast<std::time_t>(unix_nanos / 1'000'000'000);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  std::array<char, 64> text{};
  const std::size_t size = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(text.data() + size, text.size() - size, ".%03uZ", static_cast<unsigned>(unix_nanos / 1'000'000 % 1000));
  return text.data();
}

std::string Party(const std::string& pod, const std::string& ip, std::uint32_t port) {
  const std::string endpoint = port == 0 ? ip : Endpoint(ip, port);
  return pod.empty() ? endpoint : Printable(pod) + " (" + endpoint + ")";
}

std::string Padded(std::string text, std::size_t width) {
  if (text.size() < width) text.append(width - text.size(), ' ');
  return text;
}

std::string RulesText(const char* direction, bool isolates, const google::protobuf::RepeatedPtrField<std::string>& rules) {
  if (!isolates) return "";
  if (rules.empty()) return std::string("  ") + direction + ": nothing is allowed\n";
  std::string out;
  for (int i = 0; i < rules.size(); ++i) {
    out += std::string("  ") + direction + " rule " + std::to_string(i + 1) + ": " + Printable(rules[i]) + "\n";
  }
  return out;
}

std::string LocalPods(const v1::Policy& policy) {
  std::string out = std::to_string(policy.local_pod_count()) + " on this node, " + std::to_string(policy.pod_count()) + " in the cluster";
  if (policy.local_pod_count() == 0) return out;
  const auto more = policy.local_pod_count() - static_cast<std::uint32_t>(policy.local_pods_size());
  return out + ": " + Printable(Join(policy.local_pods())) + (more == 0 ? "" : " and " + std::to_string(more) + " more");
}

}  // namespace

std::string RenderPolicies(const std::vector<v1::Policy>& policies, const v1::StatusResponse& status, bool all, Format format) {
  if (format == Format::kJson) {
    ordered_json out = ordered_json::array(), problems = ordered_json::array();
    for (const v1::Policy& policy : policies) {
      if (!all && policy.local_pod_count() == 0) continue;
      out.push_back({{"namespace", policy.namespace_()},
                     {"name", policy.name()},
                     {"selects", policy.selects()},
                     {"isolates", {{"ingress", policy.isolates_ingress()}, {"egress", policy.isolates_egress()}}},
                     {"ingress", ListOf(policy.ingress())},
                     {"egress", ListOf(policy.egress())},
                     {"local_pods", ListOf(policy.local_pods())},
                     {"local_pod_count", policy.local_pod_count()},
                     {"pod_count", policy.pod_count()},
                     {"problems", ListOf(policy.problems())}});
    }
    for (const auto& problem : status.problems()) problems.push_back({{"where", problem.where()}, {"what", problem.what()}});
    return Print({{"policies", out}, {"problems", problems}});
  }
  std::string out;
  std::size_t elsewhere = 0;
  for (const v1::Policy& policy : policies) {
    if (!all && policy.local_pod_count() == 0) {
      ++elsewhere;
      continue;
    }
    out += Printable(policy.namespace_() + "/" + policy.name()) + "\n";
    out += "  selects " + Printable(policy.selects()) + ": " + LocalPods(policy) + "\n";
    out += RulesText("ingress", policy.isolates_ingress(), policy.ingress());
    out += RulesText("egress", policy.isolates_egress(), policy.egress());
    if (!policy.isolates_ingress() && !policy.isolates_egress()) out += "  isolates in no direction\n";
    for (const std::string& problem : policy.problems()) out += "  problem: " + Printable(problem) + "\n";
  }
  if (policies.empty()) out += "no NetworkPolicy is in force\n";
  if (elsewhere != 0) {
    out += std::to_string(elsewhere) + (out.empty() ? "" : " more") + (elsewhere == 1 ? " policy selects" : " policies select") +
           " no pod of this node (--all shows them)\n";
  }
  if (!status.problems().empty()) out += "problems in " + Printable(status.source()) + ":\n";
  for (const auto& problem : status.problems()) out += "  " + Printable(problem.where()) + ": " + Printable(problem.what()) + "\n";
  return out;
}

std::string RenderTrace(const v1::TracePolicyRequest& request, const v1::TracePolicyResponse& verdict, Format format) {
  if (format == Format::kJson) {
    return Print({{"source", request.source_pod()},
                  {"destination", request.destination_pod()},
                  {"port", request.port()},
                  {"asked",
                   {{"source_ip", verdict.source_ip()},
                    {"destination_ip", verdict.destination_ip()},
                    {"port", verdict.port()},
                    {"protocol", verdict.protocol()}}},
                  {"allowed", verdict.allowed()},
                  {"egress", JsonOf(verdict.egress())},
                  {"ingress", JsonOf(verdict.ingress())}});
  }
  std::string asked = request.source_pod() + " -> " + request.destination_pod() + ":" + request.port() + "\n";
  if (verdict.port() != 0) {
    asked += "asked: " + verdict.protocol() + " port " + std::to_string(verdict.port()) +
             (verdict.source_ip().empty() ? ", without addresses (the pods have none of one family)"
                                          : ", from " + verdict.source_ip() + " to " + verdict.destination_ip()) +
             "\n";
  }
  return asked + DirectionText("egress ", verdict.egress()) + DirectionText("ingress", verdict.ingress()) +
         (verdict.allowed() ? "ALLOWED\n" : "DENIED\n");
}

std::string RenderFlow(const v1::FlowEvent& event, Format format) {
  if (format == Format::kJson) {
    return Print({{"sequence", event.sequence()},
                  {"time", Time(event.unix_nanos())},
                  {"unix_nanos", event.unix_nanos()},
                  {"verdict", ActionName(event.action())},
                  {"path", PathName(event.path())},
                  {"direction", event.direction()},
                  {"protocol", event.protocol()},
                  {"source_pod", event.source_pod()},
                  {"source_ip", event.source_ip()},
                  {"source_port", event.source_port()},
                  {"destination_pod", event.destination_pod()},
                  {"destination_ip", event.destination_ip()},
                  {"destination_port", event.destination_port()},
                  {"pod", event.pod()},
                  {"policy", event.policy()},
                  {"reason", event.reason()},
                  {"egress", JsonOf(event.egress())},
                  {"ingress", JsonOf(event.ingress())}},
                 true);
  }
  return Time(event.unix_nanos()) + "  " + Padded(ActionName(event.action()), 7) + "  " + Padded(PathName(event.path()), 6) + "  " +
         Padded(event.direction(), 7) + "  " + event.protocol() + " " + Party(event.source_pod(), event.source_ip(), event.source_port()) +
         " -> " + Party(event.destination_pod(), event.destination_ip(), event.destination_port()) + "  " + Printable(event.reason()) +
         (event.policy().empty() ? "" : " [" + Printable(event.policy()) + "]") + "\n";
}

std::string RenderLostFlows(std::uint64_t lost, Format format) {
  if (format == Format::kJson) return Print({{"lost", lost}}, true);
  return "-- " + std::to_string(lost) + " events lost: they came faster than they were read\n";
}

}  // namespace vsocket::cli
