#include "node-agent/enforce/enforcement_choice.h"

#include <algorithm>
#include <array>

namespace vsocket::enforce {
namespace {

// Who enforces NetworkPolicies, and how one knows. `plugin`: its CNI types; `processes`: what runs on every node that it serves;
// `chains`: what its rules are called, by prefix.
struct KnownEnforcer {
  const char* name;
  std::array<std::string_view, 2> plugins;
  std::array<std::string_view, 2> processes;
  std::array<std::string_view, 2> chains;
};

// Sources: the projects' own manifests and code. Process names are cut to 15 bytes by the kernel (TASK_COMM_LEN).
constexpr std::array<KnownEnforcer, 7> kEnforcers{{
    {"Calico", {"calico", ""}, {"calico-node", "calico-felix"}, {"cali-", "table calico"}},
    {"Cilium", {"cilium-cni", ""}, {"cilium-agent", ""}, {"CILIUM_", ""}},
    {"Antrea", {"antrea", ""}, {"antrea-agent", ""}, {"ANTREA-", ""}},
    // Not KUBE-ROUTER-SERVICES: it also runs as a proxy without a firewall. k3s holds it in its own process.
    {"kube-router", {"", ""}, {"kube-router", "k3s-"}, {"KUBE-ROUTER-FORWARD", "KUBE-NWPLCY-"}},
    {"kube-network-policies", {"", ""}, {"netpol", "kube-network-po"}, {"table kube-network-policies", ""}},
    {"kindnet", {"", ""}, {"kindnetd", ""}, {"table kindnet-network-policies", ""}},
    {"Weave Net", {"weave-net", ""}, {"weave-npc", ""}, {"WEAVE-NPC", ""}},
}};

// A name that ends in a hyphen stands for all that begin so.
bool AnyIs(const auto& names, std::string_view text) {
  return std::any_of(names.begin(), names.end(), [&](std::string_view name) {
    return !name.empty() && (text == name || (name.back() == '-' && text.starts_with(name)));
  });
}

EnforcementChoice ChooseBySight(const Surroundings& seen) {
  const std::string primary = seen.plugin_types.empty() ? "" : seen.plugin_types.front();
  const std::string wired =
      primary.empty() ? "no CNI configuration was found" : "pods are wired by the CNI plugin " + primary + " (" + seen.conflist + ")";
  std::string half;
  for (const KnownEnforcer& enforcer : kEnforcers) {
    const auto process = std::find_if(seen.processes.begin(), seen.processes.end(),
                                      [&](const std::string& name) { return AnyIs(enforcer.processes, name); });
    const bool runs = process != seen.processes.end();
    const bool wires = std::any_of(seen.plugin_types.begin(), seen.plugin_types.end(),
                                   [&](const std::string& type) { return AnyIs(enforcer.plugins, type); });
    const auto chain = std::find_if(seen.chains.begin(), seen.chains.end(), [&](const std::string& name) {
      return std::any_of(enforcer.chains.begin(), enforcer.chains.end(),
                         [&](std::string_view prefix) { return !prefix.empty() && name.starts_with(prefix); });
    });
    const bool has_rules = chain != seen.chains.end();
    const std::string rules = has_rules ? "its rules are in place (" + *chain + ")" : "";
    if (runs && (wires || has_rules)) {
      return {false, std::string(enforcer.name) + " enforces policies on this node: " + *process + " runs, and " +
                         (wires ? "pods are wired by it" : rules)};
    }
    if (!half.empty() || (!runs && !wires && !has_rules)) continue;
    half = std::string(enforcer.name) + " is not sure to enforce policies here: ";
    half += runs ? *process + " runs, but neither wires it pods nor are its rules in place"
                 : (wires ? "pods are wired by it" : rules) +
                       (seen.processes_seen ? ", but its agent does not run" : ", but the node's processes cannot be seen (hostPID)");
  }
  if (!half.empty()) return {true, half};
  return {true, wired + ", and nothing that is known to enforce policies was seen"};
}

}  // namespace

std::optional<EnforcementMode> ParseEnforcementMode(std::string_view text) {
  for (const auto mode : {EnforcementMode::kAuto, EnforcementMode::kBoth, EnforcementMode::kRingOnly}) {
    if (text == NameOf(mode)) return mode;
  }
  return std::nullopt;
}

const char* NameOf(EnforcementMode mode) {
  switch (mode) {
    case EnforcementMode::kAuto:
      return "auto";
    case EnforcementMode::kBoth:
      return "both";
    case EnforcementMode::kRingOnly:
      return "ring-only";
  }
  return "auto";
}

EnforcementChoice Choose(EnforcementMode mode, const Surroundings& seen) {
  switch (mode) {
    case EnforcementMode::kBoth:
      return {true, "as --enforcement says"};
    case EnforcementMode::kRingOnly:
      return {false, "as --enforcement says"};
    case EnforcementMode::kAuto:
      break;
  }
  return ChooseBySight(seen);
}

}  // namespace vsocket::enforce
