#include "cli/render.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "cli/render_parts.h"
#include "cli/table.h"

namespace vsocket::cli {
namespace {

const char* StateName(v1::ConnectionState state) {
  switch (state) {
    case v1::CONNECTION_STATE_TCP:
      return "tcp";
    case v1::CONNECTION_STATE_UPGRADING:
      return "upgrading";
    case v1::CONNECTION_STATE_RING:
      return "ring";
    default:
      return "unknown";
  }
}

std::string SentReceived(std::uint64_t sent, std::uint64_t received) {
  if (sent == 0 && received == 0) return "";
  return HumanBytes(sent) + " / " + HumanBytes(received);
}

ordered_json JsonOf(const v1::Connection& c) {
  return {{"pod", c.pod()},
          {"pod_uid", c.pod_uid()},
          {"program", c.program()},
          {"pid", c.pid()},
          {"local_ip", c.local_ip()},
          {"local_port", c.local_port()},
          {"remote_ip", c.remote_ip()},
          {"remote_port", c.remote_port()},
          {"remote_pod", c.remote_pod()},
          {"cookie", c.cookie()},
          {"state", StateName(c.state())},
          {"tcp_sent", c.tcp_sent()},
          {"tcp_received", c.tcp_received()},
          {"ring_sent", c.ring_sent()},
          {"ring_received", c.ring_received()},
          {"reason", c.reason()},
          {"reason_text", c.reason_text()},
          {"limited_by", c.limited_by()}};
}

std::string Isolation(const v1::PodStatus& pod) {
  if (pod.isolated_ingress() && pod.isolated_egress()) return "ingress, egress";
  if (pod.isolated_ingress()) return "ingress";
  return pod.isolated_egress() ? "egress" : "";
}

std::string BandwidthText(const v1::PodStatus& pod) {
  if (!pod.bandwidth_problem().empty()) return "NOT UNDERSTOOD";
  std::string out;
  if (!pod.ingress_bandwidth().empty()) out = "in " + Printable(pod.ingress_bandwidth());
  if (!pod.egress_bandwidth().empty()) out += (out.empty() ? "out " : ", out ") + Printable(pod.egress_bandwidth());
  return out;
}

// Why it is not on a ring, or what holds it back there.
std::string RemarkOn(const v1::Connection& c) {
  if (c.reason() != 0) return c.reason_text();
  return c.limited_by().empty() ? "" : "(limited by " + Printable(c.limited_by()) + ")";
}

}  // namespace

std::string RenderStatus(const v1::StatusResponse& status, Format format) {
  if (format == Format::kJson) {
    ordered_json problems = ordered_json::array();
    for (const auto& problem : status.problems()) problems.push_back({{"where", problem.where()}, {"what", problem.what()}});
    ordered_json conditions = ordered_json::array();
    for (const auto& condition : status.conditions()) {
      conditions.push_back({{"type", condition.type()}, {"subject", condition.subject()}, {"what", condition.what()}});
    }
    return Print(
        {{"ready", status.ready()},
         {"version", status.version()},
         {"protocol_version", status.protocol_version()},
         {"instance", status.instance()},
         {"uptime_seconds", status.uptime_seconds()},
         {"source", status.source()},
         {"revision", status.revision()},
         {"problems", problems},
         {"enforcement",
          {{"asked", status.enforcement().asked()}, {"in_force", status.enforcement().in_force()}, {"why", status.enforcement().why()}}},
         {"conditions", conditions},
         {"pods", status.pods()},
         {"processes", status.processes()},
         {"channels", status.channels()},
         {"regions", status.regions()},
         {"upgrades", status.upgrades()},
         {"denials", status.denials()},
         {"revocations", status.revocations()}});
  }
  std::string out = "agent:     " + std::string(status.ready() ? "ready" : "NOT READY") + ", version " + status.version() + ", up " +
                    HumanSeconds(status.uptime_seconds()) + "\n";
  out += "source:    " + status.source() + ", revision " + std::to_string(status.revision()) + "\n";
  if (!status.enforcement().in_force().empty()) {
    out += "policies:  enforced " +
           std::string(status.enforcement().in_force() == "both" ? "on rings and, with nftables, on the kernel's path" : "on rings only") +
           " (" + Printable(status.enforcement().asked()) + ": " + Printable(status.enforcement().why()) + ")\n";
  }
  out += "pods:      " + std::to_string(status.pods()) + ", with " + std::to_string(status.processes()) + " connected processes\n";
  out += "channels:  " + std::to_string(status.channels()) + " in " + std::to_string(status.regions()) + " regions\n";
  out += "since start: " + std::to_string(status.upgrades()) + " upgrades, " + std::to_string(status.denials()) + " denials, " +
         std::to_string(status.revocations()) + " revocations\n";
  if (!status.problems().empty()) out += "problems:\n";
  for (const auto& problem : status.problems()) out += "  " + Printable(problem.where()) + ": " + Printable(problem.what()) + "\n";
  if (!status.conditions().empty()) out += "conditions:\n";
  for (const auto& condition : status.conditions()) {
    out += "  " + Printable(condition.type()) + ", " + Printable(condition.subject()) + ": " + Printable(condition.what()) + "\n";
  }
  return out;
}

std::string RenderPods(const std::vector<v1::PodStatus>& pods, Format format) {
  if (format == Format::kJson) {
    ordered_json out = ordered_json::array();
    for (const v1::PodStatus& status : pods) {
      const v1::LocalPod& pod = status.pod();
      out.push_back(
          {{"namespace", pod.namespace_()},
           {"name", pod.name()},
           {"uid", pod.uid()},
           {"ips", ListOf(pod.ips())},
           {"container_id", pod.container_id()},
           {"ifname", pod.ifname()},
           {"netns", {{"path", pod.netns_path()}, {"cookie", pod.netns_cookie()}, {"inode", pod.netns_inode()}}},
           {"socket_dir", status.socket_dir()},
           {"processes", status.processes()},
           {"channels", status.channels()},
           {"channel_bytes", status.channel_bytes()},
           {"isolated", {{"ingress", status.isolated_ingress()}, {"egress", status.isolated_egress()}}},
           {"bandwidth",
            {{"ingress", status.ingress_bandwidth()}, {"egress", status.egress_bandwidth()}, {"problem", status.bandwidth_problem()}}}});
    }
    return Print({{"pods", out}});
  }
  if (pods.empty()) return "no pods on this node\n";
  Table table({"NAMESPACE", "NAME", "ADDRESSES", "PROCESSES", "CHANNELS", "MEMORY", "ISOLATED", "BANDWIDTH", "SOCKET DIRECTORY"},
              {3, 4, 5});
  for (const v1::PodStatus& status : pods) {
    table.Add({Printable(status.pod().namespace_()), Printable(status.pod().name()), Join(status.pod().ips()),
               std::to_string(status.processes()), std::to_string(status.channels()), HumanBytes(status.channel_bytes()), Isolation(status),
               BandwidthText(status), status.socket_dir()});
  }
  return table.Render();
}

std::string RenderConnections(std::vector<v1::Connection> connections, Format format, bool compact) {
  const auto key = [](const v1::Connection& c) {
    return std::make_tuple(c.pod(), c.local_port(), c.remote_ip(), c.remote_port(), c.cookie());
  };
  std::sort(connections.begin(), connections.end(), [&](const auto& a, const auto& b) { return key(a) < key(b); });
  if (format == Format::kJson) {
    ordered_json out = ordered_json::array();
    for (const v1::Connection& connection : connections) out.push_back(JsonOf(connection));
    return Print({{"connections", out}}, compact);
  }
  if (connections.empty()) return "no connections\n";
  Table table({"POD", "PROGRAM", "LOCAL", "REMOTE", "REMOTE POD", "STATE", "TCP OUT / IN", "RING OUT / IN", "WHY NOT ACCELERATED"});
  for (const v1::Connection& c : connections) {
    std::string program = Printable(c.program());
    if (c.pid() != 0) program += "[" + std::to_string(c.pid()) + "]";
    table.Add({Printable(c.pod()), program, Endpoint(c.local_ip(), c.local_port()), Endpoint(c.remote_ip(), c.remote_port()),
               Printable(c.remote_pod()), StateName(c.state()), SentReceived(c.tcp_sent(), c.tcp_received()),
               SentReceived(c.ring_sent(), c.ring_received()), RemarkOn(c)});
  }
  return table.Render();
}

}  // namespace vsocket::cli
