// What the agent can be asked over gRPC, as a plain interface: rpc/ adapts it, main.cc provides it, tests fake it.
// Thread safety: every method may be called from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "node-agent/model/bandwidth.h"
#include "node-agent/model/connection.h"
#include "node-agent/model/local_pod.h"
#include "node-agent/model/verdict.h"

namespace vsocket::model {

enum class ApiErrorKind : std::uint8_t { kInvalid, kNotFound, kConflict, kUnavailable, kInternal };
struct ApiError {
  ApiErrorKind kind = ApiErrorKind::kInternal;
  std::string message;
};
struct Done {};

struct LocalPodStatus {
  LocalPod pod;
  std::string socket_dir;       // holds agent.sock and libvsocket.so; what is mounted at /run/vsocket in the pod
  std::uint32_t processes = 0;  // connected shims
  std::uint32_t channels = 0;
  std::uint64_t channel_bytes = 0;  // reserved against the quota
  bool isolated_ingress = false, isolated_egress = false;
  Bandwidth bandwidth;
};

// Something that people should know of, as long as it lasts.
struct Condition {
  std::string type;     // for programs: "PacketFilterNotSet"
  std::string subject;  // "pod ns/name", "service ns/name", "node"
  std::string what;     // in words
  bool operator==(const Condition&) const = default;
};

// Where policies hold besides on rings.
struct EnforcementStatus {
  std::string asked;     // "auto", "both" or "ring-only"
  std::string in_force;  // "both" or "ring-only"
  std::string why;       // in words
};

// One NetworkPolicy in force, for people.
struct PolicyInfo {
  std::string ns, name;
  std::string selects;  // in words
  bool isolates_ingress = false, isolates_egress = false;
  std::vector<std::string> ingress, egress;  // a rule each, in words
  std::vector<std::string> local_pods;       // "ns/name" of those of this node that it selects: the first 100 by name
  std::uint32_t local_pod_count = 0, pod_count = 0;
  std::vector<std::string> problems;  // what is wrong with it
};

struct AgentStatus {
  std::string version;
  std::uint64_t instance = 0;
  std::uint64_t uptime_seconds = 0;
  std::string source;          // "dir:/etc/vsocket/cluster"
  std::uint64_t revision = 0;  // of the cluster state in force
  std::vector<SourceProblem> problems;
  std::uint32_t pods = 0, processes = 0, channels = 0, regions = 0;
  std::uint64_t upgrades = 0, denials = 0, revocations = 0;
  bool ready = false;
  EnforcementStatus enforcement;
  std::vector<Condition> conditions;
};

class NodeApi {
 public:
  virtual ~NodeApi() = default;
  // Idempotent for the same (uid, container_id, netns); a new sandbox of a known uid replaces the old one. Makes the pod's socket.
  virtual Result<LocalPodStatus, ApiError> AddPod(LocalPod pod) = 0;
  // Succeeds when the pod is unknown. Keyed by container id: a late DEL of an old sandbox must not remove the new one.
  virtual Result<Done, ApiError> RemovePod(const std::string& container_id, const std::string& ifname) = 0;
  virtual Result<LocalPodStatus, ApiError> CheckPod(const LocalPod& pod) = 0;
  // Removes every pod whose (container_id, ifname) is not in `keep` (CNI GC).
  virtual Result<std::uint32_t, ApiError> CollectPods(const std::vector<std::pair<std::string, std::string>>& keep) = 0;
  virtual std::vector<LocalPodStatus> Pods() = 0;
  virtual std::vector<ConnectionInfo> Connections() = 0;
  // Pods by "ns/name"; `port` a number or a port name of the destination, then "/udp" or "/sctp" when it is not TCP.
  virtual Result<Verdict, ApiError> TracePolicy(const std::string& source_pod, const std::string& destination_pod,
                                                const std::string& port) = 0;
  virtual std::vector<PolicyInfo> Policies() = 0;
  virtual AgentStatus Status() = 0;
};

}  // namespace vsocket::model
