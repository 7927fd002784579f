#include "node-agent/policy/validity.h"

#include <algorithm>

namespace vsocket::policy {
namespace {

std::optional<std::string> WhyTermInvalid(const model::SelectorTerm& term) {
  using Operator = model::SelectorTerm::Operator;
  switch (term.op) {
    case Operator::kIn:
    case Operator::kNotIn:
      if (term.values.empty()) return "has an In or NotIn without values for the label " + term.key;
      break;
    case Operator::kExists:
    case Operator::kDoesNotExist:
      if (!term.values.empty()) return "has an Exists or DoesNotExist with values for the label " + term.key;
      break;
    default:
      return "has an unknown operator for the label " + term.key;
  }
  if (term.key.empty()) return std::string("asks for a label without a name");
  return std::nullopt;
}

bool Known(model::Protocol protocol) {
  return protocol == model::Protocol::kTcp || protocol == model::Protocol::kUdp || protocol == model::Protocol::kSctp;
}

void CheckRules(const std::vector<model::PolicyRule>& rules, const char* direction, std::vector<std::string>& problems) {
  for (std::size_t i = 0; i < rules.size(); ++i) {
    const std::string rule = std::string(direction) + " rule " + std::to_string(i + 1) + ", ";
    for (std::size_t k = 0; k < rules[i].peers.size(); ++k) {
      if (const auto why = WhyInvalid(rules[i].peers[k])) {
        problems.push_back(rule + "peer " + std::to_string(k + 1) + " " + *why + "; it matches nothing");
      }
    }
    for (std::size_t k = 0; k < rules[i].ports.size(); ++k) {
      if (const auto why = WhyInvalid(rules[i].ports[k])) {
        problems.push_back(rule + "port " + std::to_string(k + 1) + " " + *why + "; it matches nothing");
      }
    }
  }
}

}  // namespace

std::optional<std::string> WhyInvalid(const model::LabelSelector& selector) {
  for (const model::SelectorTerm& term : selector.match_expressions) {
    if (auto why = WhyTermInvalid(term)) return why;
  }
  return std::nullopt;
}

std::optional<std::string> WhyInvalid(const model::PolicyPeer& peer) {
  const bool selects = peer.pod_selector || peer.namespace_selector;
  if (peer.ip_block && selects) return "has an ipBlock beside a selector";
  if (!peer.ip_block && !selects) return "has neither a selector nor an ipBlock";
  if (peer.ip_block) {
    if (peer.ip_block->cidr.prefix > (peer.ip_block->cidr.base.IsV4() ? 32U : 128U)) return "has a cidr that is none";
    const auto too_long = [&](const model::Cidr& hole) { return hole.prefix > (hole.base.IsV4() ? 32U : 128U); };
    if (std::any_of(peer.ip_block->except.begin(), peer.ip_block->except.end(), too_long)) return "has an except that is no CIDR";
  }
  if (peer.pod_selector) {
    if (auto why = WhyInvalid(*peer.pod_selector)) return "has a podSelector that " + *why;
  }
  if (peer.namespace_selector) {
    if (auto why = WhyInvalid(*peer.namespace_selector)) return "has a namespaceSelector that " + *why;
  }
  return std::nullopt;
}

std::optional<std::string> WhyInvalid(const model::PolicyPort& port) {
  if (!Known(port.protocol)) return std::string("has an unknown protocol");
  if (port.number && !port.name.empty()) return std::string("has both a name and a number");
  if (port.number && *port.number == 0) return std::string("has the number 0");
  if (port.end && !port.number) return std::string("has an endPort without a number");
  if (port.end && *port.end < *port.number) return std::string("has an endPort that is less than its number");
  return std::nullopt;
}

std::vector<std::string> ProblemsOf(const model::NetworkPolicy& policy) {
  std::vector<std::string> problems;
  if (const auto why = WhyInvalid(policy.pod_selector)) {
    problems.push_back("its podSelector " + *why + "; it selects every pod of the namespace");
  }
  if (!policy.isolates_ingress && !policy.isolates_egress) {
    problems.emplace_back("it has no policyType that is known; the pods it selects may exchange nothing with others");
    return problems;
  }
  CheckRules(policy.ingress, "ingress", problems);
  CheckRules(policy.egress, "egress", problems);
  return problems;
}

}  // namespace vsocket::policy
