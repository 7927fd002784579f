// The agent's command line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "node-agent/enforce/enforcement_choice.h"
#include "node-agent/kube/api_access.h"
#include "node-agent/telemetry/log.h"

namespace vsocket {

enum class SourceKind : std::uint8_t { kDirectory, kKube };

struct Flags {
  std::string run_dir = "/run/vsocket";
  std::string state_dir = "/var/lib/vsocket/pods";
  std::string rpc_socket;  // empty: RUN_DIR/agent-rpc.sock
  std::string spool_dir;
  SourceKind source = SourceKind::kDirectory;
  std::string cluster_dir = "/etc/vsocket/cluster";
  kube::ApiAccess kube;   // what is not given is the service account's
  std::string node_name;  // as Kubernetes names this node
  std::uint32_t kube_timeout_seconds = 30;
  std::string http_listen = "127.0.0.1:9809";
  std::uint32_t quota_channels = 4096;
  std::uint64_t quota_bytes = 4ULL << 30;
  std::uint32_t lease_seconds = 10;
  std::string shim_library = "/usr/lib/vsocket/libvsocket.so";
  telemetry::LogLevel log_level = telemetry::LogLevel::kInfo;
  telemetry::LogFormat log_format = telemetry::LogFormat::kText;
  enforce::EnforcementMode enforcement = enforce::EnforcementMode::kAuto;
  std::string cni_conf_dir = "/etc/cni/net.d";
  std::uint32_t revocation_deadline_ms = 1000;
  bool strict_revocation = false;
};

// Prints help, version or an error itself; then there is no value and `*exit_status` is set: 0, or 2 when it could not be understood.
std::optional<Flags> ParseFlags(int argc, char** argv, const char* version, int* exit_status);

}  // namespace vsocket
