#include "node-agent/policy/explain.h"

#include <gtest/gtest.h>

#include <string>

namespace vsocket::policy {
namespace {

model::NetworkPolicy Policy(const std::string& name) {
  model::NetworkPolicy policy;
  policy.ns = "shop";
  policy.name = name;
  policy.pod_selector.match_labels["app"] = "redis";
  model::PolicyRule rule;
  rule.peers.resize(2);
  rule.peers[0].pod_selector = model::LabelSelector{};
  rule.peers[1].namespace_selector = model::LabelSelector{};
  rule.ports = {{model::Protocol::kTcp, "", 6379, {}}};
  policy.ingress = {{}, rule};
  return policy;
}

TEST(Explain, TheRuleAndPeerThatDecided) {
  model::Verdict verdict;
  verdict.ingress.policy = "shop/allow";
  verdict.ingress.rule = 2;
  verdict.ingress.peer = 2;
  Explain({Policy("other"), Policy("allow")}, verdict);
  EXPECT_EQ(verdict.ingress.rule_text, "from every pod of namespace shop or every pod of every namespace, on TCP 6379");
  EXPECT_EQ(verdict.ingress.peer_text, "every pod of every namespace");
  EXPECT_EQ(verdict.egress.rule_text, "");
  verdict.ingress.rule = 1;
  verdict.ingress.peer = 0;
  Explain({Policy("allow")}, verdict);
  EXPECT_EQ(verdict.ingress.peer_text, "everyone");
}

TEST(Explain, NumbersThatFitNoRuleAreLeftAlone) {
  model::Verdict verdict;
  verdict.ingress.policy = "shop/allow";
  verdict.ingress.rule = 3;
  Explain({Policy("allow")}, verdict);
  EXPECT_EQ(verdict.ingress.rule_text, "");
  verdict.ingress.rule = 2;
  verdict.ingress.peer = 9;
  Explain({Policy("allow")}, verdict);
  EXPECT_EQ(verdict.ingress.peer_text, "");
}

TEST(DescribePolicies, WhatEachSelectsHereAndInTheCluster) {
  model::ClusterState state;
  state.policies = {Policy("z"), Policy("a")};
  for (const std::string name : {"r1", "r2", "r3"}) {
    model::Pod pod;
    pod.ns = "shop";
    pod.name = name;
    pod.labels["app"] = "redis";
    pod.finished = name == "r3";
    state.pods.push_back(std::move(pod));
  }
  model::LocalPod local;
  local.ns = "shop";
  local.name = "r2";
  const auto infos =
      DescribePolicies(state, {local}, {{"policies.yaml:3", "NetworkPolicy shop/a: a bad port"}, {"x", "shop/aa is another"}});
  ASSERT_EQ(infos.size(), 2U);
  EXPECT_EQ(infos[0].name, "a");
  EXPECT_EQ(infos[0].selects, "pods app=redis of namespace shop");
  EXPECT_TRUE(infos[0].isolates_ingress);
  EXPECT_EQ(infos[0].ingress[0], "from everyone, on every port");
  EXPECT_EQ(infos[0].pod_count, 2U);
  EXPECT_EQ(infos[0].local_pods, std::vector<std::string>{"shop/r2"});
  EXPECT_EQ(infos[0].problems, std::vector<std::string>{"policies.yaml:3: NetworkPolicy shop/a: a bad port"});
  EXPECT_TRUE(infos[1].problems.empty());
}

}  // namespace
}  // namespace vsocket::policy
