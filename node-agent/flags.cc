#include "node-agent/flags.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <climits>
#include <cstdlib>

#include "proto/spool.h"

namespace vsocket {
namespace {

constexpr char kDescription[] =
    "vsocket-agent: moves TCP connections between pods of this node to shared memory, as far as NetworkPolicies allow.\n"
    "Pods are announced by vsocket-cni over the RPC socket; policies come from a directory or from the API server (--source).";
constexpr char kFooter[] =
    "Signals: SIGTERM and SIGINT end the agent; connections on rings go on, and a new agent takes them over.\n"
    "Needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_SYS_PTRACE) and Linux 5.14 or later.";

constexpr int kUsageError = 2;

// NODE_NAME, as a DaemonSet sets it from spec.nodeName; else the host's name, which is what a kubelet calls its node unless told otherwise.
std::string ThisNode() {
  if (const char* name = std::getenv("NODE_NAME"); name != nullptr && *name != '\0') return name;
  char host[HOST_NAME_MAX + 1] = {};
  return ::gethostname(host, sizeof(host) - 1) == 0 ? host : "";
}

void AddKubeOptions(CLI::App& app, Flags& flags) {
  app.add_option("--node-name", flags.node_name, "This node as Kubernetes names it (--source kube) [$NODE_NAME, or the host's name]");
  app.add_option("--kube-server", flags.kube.server, "https://HOST:PORT of the API server [the cluster's, as a pod finds it]");
  app.add_option("--kube-token-file", flags.kube.token_file, "Bearer token, read anew for each request [the service account's]");
  app.add_option("--kube-ca-file", flags.kube.ca_file, "Whom to trust, PEM, read anew for each request [the service account's]");
  app.add_option("--kube-cert-file", flags.kube.cert_file, "Client certificate, PEM, instead of a token; with --kube-key-file");
  app.add_option("--kube-key-file", flags.kube.key_file, "Key of the client certificate, PEM");
  app.add_option("--kube-timeout-seconds", flags.kube_timeout_seconds,
                 "How long the API server may be silent in a request; in a watch five times as long")
      ->check(CLI::Range(1, 600));
}

// What was not given is what a pod has.
void CompleteKube(Flags& flags) {
  const kube::ApiAccess pod = kube::InClusterAccess();
  if (flags.kube.server.empty()) flags.kube.server = pod.server;
  if (flags.kube.token_file.empty() && flags.kube.cert_file.empty()) flags.kube.token_file = pod.token_file;
  if (flags.kube.ca_file.empty()) flags.kube.ca_file = pod.ca_file;
  if (flags.node_name.empty()) flags.node_name = ThisNode();
}

}  // namespace

std::optional<Flags> ParseFlags(int argc, char** argv, const char* version, int* exit_status) {
  Flags flags;
  flags.spool_dir = rpc::kDefaultSpoolDir;
  std::string log_level = "info";
  std::string log_format = "text";
  std::string enforcement = "auto";
  std::string source = "dir";
  CLI::App app(kDescription, "vsocket-agent");
  app.footer(kFooter);
  app.set_version_flag("--version", version);
  app.option_defaults()->always_capture_default();
  app.add_option("--run-dir", flags.run_dir, "What pods see: one directory each with agent.sock and the shim. One agent a directory");
  app.add_option("--state-dir", flags.state_dir, "Known pods, one JSON file each; must survive a restart of the agent");
  app.add_option("--rpc-socket", flags.rpc_socket, "UNIX socket for vsocket-cni and vsocketctl [RUN_DIR/agent-rpc.sock]");
  app.add_option("--spool-dir", flags.spool_dir, "Where vsocket-cni leaves what happened while no agent ran");
  app.add_option("--source", source, "Where cluster state comes from: a directory, or the API server")
      ->check(CLI::IsMember({"dir", "kube"}));
  app.add_option(
      "--cluster-dir", flags.cluster_dir,
      "--source dir: Pods, Namespaces, NetworkPolicies, Services and EndpointSlices as Kubernetes YAML; watched. Nothing is accelerated "
      "until it could be read");
  AddKubeOptions(app, flags);
  app.add_option("--http-listen", flags.http_listen, "ADDRESS:PORT for /metrics, /healthz and /readyz; empty: none");
  app.add_option("--quota-channels", flags.quota_channels, "Accelerated connections a pod may have at the same time");
  app.add_option("--quota-bytes", flags.quota_bytes, "Ring memory a pod may have reserved (513 KiB a connection)");
  app.add_option("--lease-seconds", flags.lease_seconds, "How long rings go on without an agent")->check(CLI::Range(2, 3600));
  app.add_option("--shim-library", flags.shim_library, "libvsocket.so to offer to pods; empty: none");
  app.add_option("--log-level", log_level, "Least level to log")->check(CLI::IsMember({"debug", "info", "warning", "error"}));
  app.add_option("--log-format", log_format, "Log lines for people or for collectors")->check(CLI::IsMember({"text", "json"}));
  app.add_option(
         "--enforcement", enforcement,
         "Where policies hold: both, on rings and by nftables rules in the pods; ring-only, when the cluster's CNI enforces them on "
         "the kernel's path; auto, ring-only when one that does is seen at work on this node, otherwise both")
      ->check(CLI::IsMember({"auto", "both", "ring-only"}));
  app.add_option("--cni-conf-dir", flags.cni_conf_dir, "The container runtime's CNI configuration, for --enforcement=auto");
  app.add_option("--revocation-deadline-ms", flags.revocation_deadline_ms,
                 "How long after a policy's cut a process may still map the shared memory, before it is reported")
      ->check(CLI::Range(100, 600000));
  app.add_flag("--strict-revocation", flags.strict_revocation, "Kill processes that still map revoked memory after the deadline");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    *exit_status = app.exit(error) == 0 ? 0 : kUsageError;  // CLI11's own numbers are its affair
    return std::nullopt;
  }
  // IsMember has seen to the words.
  flags.log_level = *telemetry::ParseLogLevel(log_level);
  flags.log_format = *telemetry::ParseLogFormat(log_format);
  flags.enforcement = *enforce::ParseEnforcementMode(enforcement);
  flags.source = source == "kube" ? SourceKind::kKube : SourceKind::kDirectory;
  CompleteKube(flags);
  if (flags.rpc_socket.empty()) flags.rpc_socket = flags.run_dir + "/agent-rpc.sock";
  return flags;
}

}  // namespace vsocket
