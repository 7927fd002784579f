#include "node-agent/policy/explain.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "node-agent/model/policy_words.h"
#include "node-agent/model/selector.h"

namespace vsocket::policy {
namespace {

using model::RuleDirection;

constexpr std::size_t kShownPods = 100;

void Explain(const std::vector<model::Shared<model::NetworkPolicy>>& policies, RuleDirection direction, model::DirectionVerdict& verdict) {
  if (verdict.policy.empty() || verdict.rule == 0) return;
  for (const model::NetworkPolicy& policy : policies) {
    if (policy.ns + "/" + policy.name != verdict.policy) continue;
    const auto& rules = direction == RuleDirection::kIngress ? policy.ingress : policy.egress;
    if (verdict.rule > rules.size()) return;
    const model::PolicyRule& rule = rules[verdict.rule - 1];
    verdict.rule_text = model::InWords(rule, direction, policy.ns);
    if (verdict.peer == 0) {
      verdict.peer_text = "everyone";
    } else if (verdict.peer <= rule.peers.size()) {
      verdict.peer_text = model::InWords(rule.peers[verdict.peer - 1], policy.ns);
    }
    return;
  }
}

bool IsNamePart(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.' || c == '_' || c == '/';
}

bool Names(const std::string& text, const std::string& name) {
  for (std::size_t at = text.find(name); at != std::string::npos; at = text.find(name, at + 1)) {
    const std::size_t end = at + name.size();
    if ((at == 0 || !IsNamePart(text[at - 1])) && (end == text.size() || !IsNamePart(text[end]))) return true;
  }
  return false;
}

}  // namespace

void Explain(const std::vector<model::Shared<model::NetworkPolicy>>& policies, model::Verdict& verdict) {
  Explain(policies, RuleDirection::kEgress, verdict.egress);
  Explain(policies, RuleDirection::kIngress, verdict.ingress);
}

std::vector<model::PolicyInfo> DescribePolicies(const model::ClusterState& state, const std::vector<model::LocalPod>& local,
                                                const std::vector<model::SourceProblem>& problems) {
  std::set<std::pair<std::string, std::string>> here;
  for (const model::LocalPod& pod : local) here.emplace(pod.ns, pod.name);
  std::vector<model::PolicyInfo> infos;
  infos.reserve(state.policies.size());
  for (const model::NetworkPolicy& policy : state.policies) {
    model::PolicyInfo& info = infos.emplace_back();
    info.ns = policy.ns;
    info.name = policy.name;
    info.selects = model::SubjectInWords(policy);
    info.isolates_ingress = policy.isolates_ingress;
    info.isolates_egress = policy.isolates_egress;
    for (const model::PolicyRule& rule : policy.ingress) info.ingress.push_back(model::InWords(rule, RuleDirection::kIngress, policy.ns));
    for (const model::PolicyRule& rule : policy.egress) info.egress.push_back(model::InWords(rule, RuleDirection::kEgress, policy.ns));
    for (const model::Pod& pod : state.pods) {
      if (pod.ns != policy.ns || pod.finished || pod.host_network || !model::Matches(policy.pod_selector, pod.labels)) continue;
      ++info.pod_count;
      if (here.contains({pod.ns, pod.name})) info.local_pods.push_back(pod.ns + "/" + pod.name);
    }
    std::sort(info.local_pods.begin(), info.local_pods.end());
    info.local_pod_count = static_cast<std::uint32_t>(info.local_pods.size());
    if (info.local_pods.size() > kShownPods) info.local_pods.resize(kShownPods);
    for (const model::SourceProblem& problem : problems) {
      const std::string text = problem.where + ": " + problem.what;
      if (Names(text, policy.ns + "/" + policy.name)) info.problems.push_back(text);
    }
  }
  std::sort(infos.begin(), infos.end(), [](const auto& a, const auto& b) { return std::tie(a.ns, a.name) < std::tie(b.ns, b.name); });
  return infos;
}

}  // namespace vsocket::policy
