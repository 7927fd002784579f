#include "node-agent/model/policy_words.h"

#include <vector>

namespace vsocket::model {
namespace {

std::string Joined(const std::vector<std::string>& words, const char* between) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : between) + word;
  return out;
}

std::string InWords(const SelectorTerm& term) {
  switch (term.op) {
    case SelectorTerm::Operator::kIn:
      return term.key + " in (" + Joined(term.values, ", ") + ")";
    case SelectorTerm::Operator::kNotIn:
      return term.key + " not in (" + Joined(term.values, ", ") + ")";
    case SelectorTerm::Operator::kExists:
      return term.key;
    case SelectorTerm::Operator::kDoesNotExist:
      return "!" + term.key;
  }
  return term.key;
}

std::string InWords(const Cidr& cidr) {
  return cidr.base.ToString() + "/" + std::to_string(cidr.prefix);
}

std::string Pods(const LabelSelector* selector) {
  const std::string words = selector == nullptr ? "" : InWords(*selector);
  return words.empty() ? "every pod" : "pods " + words;
}

}  // namespace

const char* ProtocolName(Protocol protocol) {
  switch (protocol) {
    case Protocol::kTcp:
      return "TCP";
    case Protocol::kUdp:
      return "UDP";
    case Protocol::kSctp:
      return "SCTP";
  }
  return "";
}

std::string InWords(const LabelSelector& selector) {
  std::vector<std::string> terms;
  for (const auto& [key, value] : selector.match_labels) terms.push_back(key + "=" + value);
  for (const SelectorTerm& term : selector.match_expressions) terms.push_back(InWords(term));
  return Joined(terms, ", ");
}

std::string InWords(const PolicyPeer& peer, const std::string& policy_ns) {
  if (peer.ip_block) {
    std::vector<std::string> except;
    for (const Cidr& cidr : peer.ip_block->except) except.push_back(InWords(cidr));
    return InWords(peer.ip_block->cidr) + (except.empty() ? "" : " except " + Joined(except, ", "));
  }
  if (!peer.pod_selector && !peer.namespace_selector) return "nobody";
  const std::string pods = Pods(peer.pod_selector ? &*peer.pod_selector : nullptr);
  if (!peer.namespace_selector) return pods + " of namespace " + policy_ns;
  const std::string namespaces = InWords(*peer.namespace_selector);
  return pods + (namespaces.empty() ? " of every namespace" : " of namespaces " + namespaces);
}

std::string InWords(const PolicyPort& port) {
  const std::string protocol = ProtocolName(port.protocol);
  if (!port.name.empty()) return protocol + " " + port.name;
  if (!port.number) return "every " + protocol + " port";
  const std::string first = std::to_string(*port.number);
  return protocol + " " + (port.end && *port.end != *port.number ? first + "-" + std::to_string(*port.end) : first);
}

std::string InWords(const PolicyRule& rule, RuleDirection direction, const std::string& policy_ns) {
  std::vector<std::string> peers, ports;
  for (const PolicyPeer& peer : rule.peers) peers.push_back(InWords(peer, policy_ns));
  for (const PolicyPort& port : rule.ports) ports.push_back(InWords(port));
  return (direction == RuleDirection::kIngress ? "from " : "to ") + (peers.empty() ? "everyone" : Joined(peers, " or ")) + ", on " +
         (ports.empty() ? "every port" : Joined(ports, " or "));
}

std::string SubjectInWords(const NetworkPolicy& policy) {
  return Pods(&policy.pod_selector) + " of namespace " + policy.ns;
}

}  // namespace vsocket::model
