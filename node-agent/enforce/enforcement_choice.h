// Whether the agent holds the kernel's path to policies itself, or the cluster's CNI does already.
//
// To enforce twice is harmless: both read the same policies, and a packet needs both. To enforce nowhere is a hole. So `auto` leaves it to
// another only on evidence that one enforces here and now: its agent runs on this node, and pods are wired by it or its rules are in place.
// One of the two alone (a stopped agent's rules, an agent that starts), an unknown CNI, or nothing to look at: both.
//
// Thread safety: pure functions, but for Survey, which reads files and runs nft(8), iptables-legacy(8) included, for some milliseconds.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace vsocket::enforce {

enum class EnforcementMode { kAuto, kBoth, kRingOnly };

// "auto", "both", "ring-only".
std::optional<EnforcementMode> ParseEnforcementMode(std::string_view text);
const char* NameOf(EnforcementMode mode);

// What can be seen on a node.
struct Surroundings {
  std::string conflist;                   // the file that the container runtime uses; empty: none was found
  std::vector<std::string> plugin_types;  // in order; the first is the primary
  std::set<std::string> processes;        // names as in /proc/PID/comm: at most 15 bytes
  bool processes_seen = false;            // false: only the agent's own pod can be seen (no hostPID)
  std::set<std::string> chains;           // of packet filters in the node's namespace: "cali-FORWARD", and tables as "table NAME"
};

struct SurveyPlaces {
  std::string cni_conf_dir = "/etc/cni/net.d";
  std::string proc = "/proc";
  std::string nft = "/usr/sbin/nft";
};
Surroundings Survey(const SurveyPlaces& places);

struct EnforcementChoice {
  bool kernel = true;  // rules in the pods, too
  std::string why;     // in words
  bool operator==(const EnforcementChoice&) const = default;
};
EnforcementChoice Choose(EnforcementMode mode, const Surroundings& seen);

// The parts of Survey that read text; the parsers of what others write.
// Of a conflist or a single plugin's configuration: the types, in order; empty when it is not understood.
std::vector<std::string> PluginTypes(std::string_view json);
// Of `nft list chains` and `iptables -S`: names.
std::set<std::string> ChainNames(std::string_view listing);

}  // namespace vsocket::enforce
