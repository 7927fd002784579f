// One call of the plugin as a value: the environment and the configuration on stdin, checked. Pure: no I/O, so tests and the fuzzer
// drive it with texts. CNI spec 1.1.0, sections "Network configuration format" and "CNI operations".
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cni-plugin/cni_error.h"

namespace vsocket::cni {

inline constexpr const char* kSpecVersion = "1.1.0";
inline constexpr const char* kSupportedVersions[] = {"0.4.0", "1.0.0", "1.1.0"};
inline constexpr std::size_t kLargestConfig = 4 << 20;  // a GC of some thousand attachments is under 1 MiB

enum class Command { kAdd, kDel, kCheck, kStatus, kGc, kVersion };

// The CNI_* variables as they are; empty counts as missing.
struct Environment {
  std::string command, container_id, netns, ifname, args;
};

struct Attachment {
  std::string container_id, ifname;
  bool operator==(const Attachment&) const = default;
};

// Keys of our own in the plugin's configuration, with what holds when they are missing.
struct Settings {
  std::string agent_socket;                 // "agentSocket"
  std::string spool_dir;                    // "spoolDir"
  std::chrono::milliseconds timeout{2000};  // "timeoutMs", 1 to 60000: for all that this call asks of the agent
  bool required = false;                    // "required": without the agent pods must not start
};

struct Invocation {
  Command command = Command::kVersion;
  std::string cni_version;  // of the configuration; VERSION: as asked, or kSpecVersion
  Settings settings;
  Attachment attachment;                  // ADD, CHECK, DEL
  std::string netns;                      // ADD, CHECK
  std::string pod_uid, pod_ns, pod_name;  // ADD, CHECK; from CNI_ARGS, or made from the container id
  std::vector<std::string> ips;           // ADD, CHECK: of the pod's side, without prefix length
  std::string previous_result;            // ADD, CHECK: the bytes of prevResult as they came
  std::vector<Attachment> keep;           // GC: cni.dev/valid-attachments
};

// The namespace of pods outside Kubernetes. Not a name Kubernetes allows, so no policy of a cluster selects them by accident.
inline constexpr const char* kNoNamespace = "_cni";

// Code::kInvalidEnvironment for what is missing or malformed in the environment, an unknown command included; kUndecodable for what is
// not JSON; kIncompatibleVersion; kInvalidConfig for a member of the wrong kind, and for an ADD or CHECK without prevResult.
Result<Invocation, Error> ParseInvocation(const Environment& environment, std::string_view config);

// {"cniVersion", "code", "msg", "details"} on one line. Bytes that are not UTF-8 are replaced.
std::string RenderError(const std::string& cni_version, const Error& error);

// The answer to VERSION: the version asked with, and those we accept.
std::string RenderVersions(const std::string& cni_version);

}  // namespace vsocket::cni
