// Our side of the comparison with other judges of NetworkPolicies (oracles_test.py).
//
//   policy_oracles random SEED CLUSTERS   random clusters and flows, as cases, on standard output
//   policy_oracles judge                  answers the cases on standard input: with our verdicts, and with what the slow evaluator would
//   say
//                                         if it read the specification as each of the others does
#include <cstdlib>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/model/address_range.h"
#include "node-agent/policy/evaluator.h"
#include "node-agent/policy/testing/random_cluster.h"
#include "node-agent/policy/testing/slow_evaluator.h"
#include "node-agent/policy/validity.h"
#include "test/oracles/exchange.h"

namespace vsocket::oracles {
namespace {

using policy::testing::Reading;

constexpr int kFlows = 60;

// How the others read the specification. docs/networkpolicy.md gives each its reason.
const std::vector<std::pair<const char*, Reading>> kReadings = {
    {"kube-network-policies",
     {.self_is_judged = true, .node_is_judged = true, .name_means_all_numbers = true, .finished_pods_count = true}},
    {"cyclonus",
     {.self_is_judged = true,
      .node_is_judged = true,
      .not_in_needs_label = true,
      .no_label_is_empty_label = true,
      .name_means_all_numbers = true}}};

// The single points, to count which of them makes a difference.
const std::vector<std::pair<const char*, Reading>> kPoints = {{"self is judged", {.self_is_judged = true}},
                                                              {"the own node is judged", {.node_is_judged = true}},
                                                              {"NotIn needs the label", {.not_in_needs_label = true}},
                                                              {"an empty label is none", {.no_label_is_empty_label = true}},
                                                              {"a name means all its numbers", {.name_means_all_numbers = true}},
                                                              {"finished pods count", {.finished_pods_count = true}}};

// Kubernetes' own validation would not let it through, or not like this.
bool Valid(model::NetworkPolicy& policy) {
  if (!policy::ProblemsOf(policy).empty()) return false;
  for (auto* rules : {&policy.ingress, &policy.egress}) {
    for (auto& rule : *rules) {
      for (auto& peer : rule.peers) {
        if (!peer.ip_block) continue;
        const model::Cidr cidr = peer.ip_block->cidr;
        std::erase_if(peer.ip_block->except, [&](const model::Cidr& hole) {
          return !Covers(cidr, hole) || hole.prefix == cidr.prefix || hole.base.IsV4() != cidr.base.IsV4();
        });
      }
    }
  }
  return true;
}

Case MakeRandom(policy::testing::Random& random, std::uint64_t number) {
  auto cluster = policy::testing::MakeCluster(random, false);
  Case one;
  one.name = "random " + std::to_string(number);
  one.nodes = cluster.node_addresses;
  for (int i = 0; i < kFlows;) {
    const model::Flow flow = policy::testing::MakeFlow(random, cluster);
    if (flow.source.IsLoopback() || flow.destination.IsLoopback()) continue;  // no packet of that kind is seen outside
    one.flows.push_back(flow);
    ++i;
  }
  for (const char* name : {"a", "b", "c"}) {  // with an API server every namespace is an object
    const bool there = std::any_of(cluster.state.namespaces.begin(), cluster.state.namespaces.end(),
                                   [&](const model::Namespace& ns) { return ns.name == name; });
    if (!there) cluster.state.namespaces.push_back(model::Namespace{name, {}, {}});
  }
  for (const model::NetworkPolicy& policy : std::exchange(cluster.state.policies, {})) {
    model::NetworkPolicy valid = policy;
    if (Valid(valid)) cluster.state.policies.push_back(std::move(valid));
  }
  one.state = std::move(cluster.state);
  return one;
}

std::string SlowAnswer(const Case& one, const Reading& reading) {
  std::string answer;
  for (const model::Flow& flow : one.flows) {
    const auto verdict = policy::testing::SlowEvaluate(one.state, one.nodes, flow, reading);
    answer += verdict.egress && verdict.ingress ? '1' : '0';
  }
  return answer;
}

nlohmann::json Answer(const Case& one) {
  const policy::Evaluator evaluator(std::make_shared<const model::ClusterState>(one.state), one.nodes);
  std::string ours;
  for (const model::Flow& flow : one.flows) ours += evaluator.Evaluate(flow).allowed ? '1' : '0';
  nlohmann::json out = {{"name", one.name}, {"allowed", ours}};
  for (const auto& [name, reading] : kReadings) out["as"][name] = SlowAnswer(one, reading);
  for (const auto& [name, reading] : kPoints) out["points"][name] = SlowAnswer(one, reading);
  return out;
}

int Main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "random" && argc == 4) {
    policy::testing::Random random(std::strtoull(argv[2], nullptr, 10));
    const std::uint64_t clusters = std::strtoull(argv[3], nullptr, 10);
    for (std::uint64_t i = 0; i < clusters; ++i) std::cout << ToJson(MakeRandom(random, i)) << "\n";
    return 0;
  }
  if (verb == "judge" && argc == 2) {
    for (std::string line; std::getline(std::cin, line);) std::cout << Answer(CaseFrom(nlohmann::json::parse(line))) << "\n";
    return 0;
  }
  std::cerr << "usage: policy_oracles random SEED CLUSTERS | judge\n";
  return 2;
}

}  // namespace
}  // namespace vsocket::oracles

int main(int argc, char** argv) {
  try {
    return vsocket::oracles::Main(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "policy_oracles: " << error.what() << "\n";
    return 1;
  }
}
