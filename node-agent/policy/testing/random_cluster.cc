#include "node-agent/policy/testing/random_cluster.h"

#include <string>

#include "node-agent/model/address_range.h"

namespace vsocket::policy::testing {
namespace {

unsigned Below(Random& random, unsigned bound) {
  return static_cast<unsigned>(random() % bound);
}
bool Chance(Random& random, unsigned percent) {
  return Below(random, 100) < percent;
}

template <typename T>
const T& Pick(Random& random, const std::vector<T>& choices) {
  return choices[Below(random, static_cast<unsigned>(choices.size()))];
}

const std::vector<std::string> kNamespaces = {"a", "b", "c"};
const std::vector<std::string> kKeys = {"app", "tier", "env"};
const std::vector<std::string> kValues = {"x", "y", ""};
const std::vector<std::string> kPortNames = {"http", "dns", "db"};
const std::vector<std::uint16_t> kPorts = {53, 80, 81, 82, 90, 443};
const std::vector<model::Protocol> kProtocols = {model::Protocol::kTcp, model::Protocol::kTcp, model::Protocol::kUdp,
                                                 model::Protocol::kSctp};
const std::vector<const char*> kBlocks = {"10.0.0.0/28", "10.0.0.0/24", "10.0.0.8/29", "10.0.0.4/30", "10.0.0.5/32", "0.0.0.0/0",
                                          "fd00::/120",  "fd00::/124",  "fd00::8/125", "::/0",        "192.0.2.0/24"};

model::IpAddress V4(unsigned host) {
  return model::IpAddress::V4({10, 0, 0, static_cast<std::uint8_t>(host)});
}
model::IpAddress V6(unsigned host) {
  std::array<std::uint8_t, 16> bytes{0xfd};
  bytes[15] = static_cast<std::uint8_t>(host);
  return model::IpAddress::V6(bytes);
}

model::Labels MakeLabels(Random& random) {
  model::Labels labels;
  for (const auto& key : kKeys) {
    if (Chance(random, 50)) labels[key] = Pick(random, kValues);
  }
  return labels;
}

// What an API server would not let through.
void MakeNonsense(Random& random, model::SelectorTerm& term) {
  using Operator = model::SelectorTerm::Operator;
  if (Chance(random, 50)) {
    term.op = static_cast<Operator>(7);
  } else if (term.op == Operator::kIn || term.op == Operator::kNotIn) {
    term.values.clear();
  } else {
    term.values = {"x"};
  }
}

model::LabelSelector MakeSelector(Random& random) {
  model::LabelSelector selector;
  if (Chance(random, 30)) return selector;
  if (Chance(random, 50)) selector.match_labels[Pick(random, kKeys)] = Pick(random, kValues);
  const unsigned terms = Below(random, 3);
  for (unsigned i = 0; i < terms; ++i) {
    model::SelectorTerm term;
    term.key = Chance(random, 15) ? "kubernetes.io/metadata.name" : Pick(random, kKeys);
    term.op = static_cast<model::SelectorTerm::Operator>(Below(random, 4));
    if (term.op == model::SelectorTerm::Operator::kIn || term.op == model::SelectorTerm::Operator::kNotIn) {
      const auto& choices = term.key == "kubernetes.io/metadata.name" ? kNamespaces : kValues;
      term.values.push_back(Pick(random, choices));
      if (Chance(random, 50)) term.values.push_back(Pick(random, choices));
    }
    if (Chance(random, 2)) MakeNonsense(random, term);
    selector.match_expressions.push_back(term);
  }
  return selector;
}

model::PolicyPeer MakePeer(Random& random) {
  model::PolicyPeer peer;
  const unsigned kind = Below(random, 4);
  if (kind == 0) {
    peer.ip_block = model::IpBlock{model::ParseCidr(Pick(random, kBlocks)).value(), {}};
    const unsigned holes = Below(random, 3);
    for (unsigned i = 0; i < holes; ++i) peer.ip_block->except.push_back(model::ParseCidr(Pick(random, kBlocks)).value());
    return peer;
  }
  if (kind != 1) peer.pod_selector = MakeSelector(random);
  if (kind != 2) peer.namespace_selector = MakeSelector(random);
  if (Chance(random, 2)) peer.ip_block = model::IpBlock{model::ParseCidr(Pick(random, kBlocks)).value(), {}};
  if (Chance(random, 2)) peer = {};
  return peer;
}

model::PolicyPort MakePort(Random& random) {
  model::PolicyPort port;
  port.protocol = Pick(random, kProtocols);
  switch (Below(random, 4)) {
    case 0:
      break;
    case 1:
      port.name = Pick(random, kPortNames);
      break;
    case 2:
      port.number = Pick(random, kPorts);
      break;
    default:
      port.number = static_cast<std::uint16_t>(79 + Below(random, 4));
      port.end = static_cast<std::uint16_t>(*port.number + Below(random, 12));
  }
  if (Chance(random, 2)) port.end = static_cast<std::uint16_t>(Below(random, 90));
  if (Chance(random, 1)) port.number = std::uint16_t{0};
  return port;
}

std::vector<model::PolicyRule> MakeRules(Random& random) {
  std::vector<model::PolicyRule> rules(Below(random, 3));
  for (auto& rule : rules) {
    const unsigned peers = Below(random, 4), ports = Below(random, 3);
    for (unsigned i = 0; i < peers; ++i) rule.peers.push_back(MakePeer(random));
    for (unsigned i = 0; i < ports; ++i) rule.ports.push_back(MakePort(random));
  }
  return rules;
}

}  // namespace

model::Namespace MakeNamespace(Random& random) {
  return {Pick(random, kNamespaces), MakeLabels(random), {}};
}

model::Pod MakePod(Random& random, unsigned number, bool contested) {
  model::Pod pod;
  pod.ns = Pick(random, kNamespaces);
  pod.name = "p" + std::to_string(number);
  if (Chance(random, 50)) pod.uid = "u" + std::to_string(Below(random, 3));
  pod.labels = MakeLabels(random);
  const unsigned host = contested && Chance(random, 20) ? Below(random, 16) : number;
  if (Chance(random, 95)) pod.ips.push_back(V4(host));
  if (Chance(random, 60)) pod.ips.push_back(V6(host));
  pod.host_network = Chance(random, 8);
  pod.finished = Chance(random, 8);
  const unsigned ports = Below(random, 4);
  for (unsigned p = 0; p < ports; ++p)
    pod.ports.push_back({Chance(random, 80) ? Pick(random, kPortNames) : "", Pick(random, kPorts), Pick(random, kProtocols)});
  return pod;
}

model::NetworkPolicy MakePolicy(Random& random, unsigned number) {
  model::NetworkPolicy policy;
  policy.ns = Pick(random, kNamespaces);
  policy.name = "n" + std::to_string(number);
  policy.pod_selector = MakeSelector(random);
  policy.isolates_ingress = Chance(random, 70);
  policy.isolates_egress = Chance(random, policy.isolates_ingress ? 60 : 95);
  policy.ingress = MakeRules(random);
  policy.egress = MakeRules(random);
  return policy;
}

RandomCluster MakeCluster(Random& random, bool contested) {
  RandomCluster cluster;
  cluster.node_addresses = {V4(200), V6(200)};
  for (const auto& name : kNamespaces) {
    if (Chance(random, 80)) cluster.state.namespaces.push_back(model::Namespace{name, MakeLabels(random), {}});
  }
  const unsigned pods = 3 + Below(random, 14);
  for (unsigned i = 0; i < pods; ++i) cluster.state.pods.push_back(MakePod(random, i, contested));
  const unsigned policies = Below(random, 6);
  for (unsigned i = 0; i < policies; ++i) cluster.state.policies.push_back(MakePolicy(random, i));
  return cluster;
}

model::Flow MakeFlow(Random& random, const RandomCluster& cluster) {
  const auto any_address = [&](bool ipv4) {
    const unsigned dice = Below(random, 100);
    if (dice < 80) {
      const unsigned host = Below(random, static_cast<unsigned>(cluster.state.pods.size()) + 1);
      return ipv4 ? V4(host) : V6(host);
    }
    if (dice < 86) return ipv4 ? V4(200) : V6(200);
    if (dice < 88) return *model::IpAddress::Parse(ipv4 ? "127.0.0.1" : "::1");
    if (dice < 94) return *model::IpAddress::Parse(ipv4 ? "192.0.2.7" : "2001:db8::7");
    return ipv4 ? V4(Below(random, 256)) : V6(Below(random, 256));
  };
  const bool ipv4 = Chance(random, 65);
  model::Flow flow;
  flow.source = any_address(ipv4);
  flow.destination = any_address(ipv4);
  flow.destination_port = Chance(random, 85) ? Pick(random, kPorts) : static_cast<std::uint16_t>(1 + Below(random, 65535));
  flow.protocol = Pick(random, kProtocols);
  return flow;
}

}  // namespace vsocket::policy::testing
