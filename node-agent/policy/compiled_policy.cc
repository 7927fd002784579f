#include "node-agent/policy/compiled_policy.h"

#include <utility>

#include "node-agent/policy/validity.h"

namespace vsocket::policy {
namespace {

// Those that can be understood. Nothing: none can, so the rule matches nothing; an empty list would match everything.
std::optional<std::vector<model::PolicyPort>> ValidPorts(const std::vector<model::PolicyPort>& ports) {
  std::vector<model::PolicyPort> valid;
  for (const model::PolicyPort& port : ports) {
    if (!WhyInvalid(port)) valid.push_back(port);
  }
  if (valid.empty() && !ports.empty()) return std::nullopt;
  return valid;
}

class RuleCompiler {
 public:
  RuleCompiler(const std::string& ns, CompiledPolicy& policy, Membership& membership) : ns_(ns), policy_(policy), membership_(membership) {}

  void Compile(const std::vector<model::PolicyRule>& rules, PeerTable& table) {
    for (std::size_t i = 0; i < rules.size(); ++i) {
      const auto ports = ValidPorts(rules[i].ports);
      if (!ports) continue;
      const auto rule = static_cast<std::uint32_t>(i + 1);
      if (rules[i].peers.empty()) table.AddAnyone(*ports, rule);
      for (std::size_t k = 0; k < rules[i].peers.size(); ++k) {
        AddPeer(rules[i].peers[k], *ports, {rule, static_cast<std::uint32_t>(k + 1)}, table);
      }
    }
    table.Seal();
  }

 private:
  void AddPeer(const model::PolicyPeer& peer, const std::vector<model::PolicyPort>& ports, RuleRef ref, PeerTable& table) {
    if (WhyInvalid(peer)) return;
    if (peer.ip_block) {
      table.AddBlock(*peer.ip_block, ports, ref);
      return;
    }
    const GroupId group = membership_.AcquireGroup({ns_, peer.pod_selector, peer.namespace_selector});
    policy_.groups.push_back(group);
    table.AddGroup(group, ports, ref);
  }

  const std::string& ns_;
  CompiledPolicy& policy_;
  Membership& membership_;
};

}  // namespace

CompiledPolicy Compile(const model::NetworkPolicy& policy, Membership& membership) {
  CompiledPolicy compiled;
  compiled.name = policy.ns + "/" + policy.name;
  compiled.problems = ProblemsOf(policy);
  const bool clear = !WhyInvalid(policy.pod_selector);
  compiled.subjects = membership.AcquireGroup({policy.ns, clear ? std::optional(policy.pod_selector) : std::nullopt, std::nullopt});
  compiled.groups.push_back(compiled.subjects);
  if (!policy.isolates_ingress && !policy.isolates_egress) {
    compiled.isolates = {true, true};
    return compiled;
  }
  compiled.isolates = {policy.isolates_ingress, policy.isolates_egress};
  RuleCompiler compiler(policy.ns, compiled, membership);
  if (policy.isolates_ingress) compiler.Compile(policy.ingress, compiled.peers[Index(Direction::kIngress)]);
  if (policy.isolates_egress) compiler.Compile(policy.egress, compiled.peers[Index(Direction::kEgress)]);
  return compiled;
}

}  // namespace vsocket::policy
