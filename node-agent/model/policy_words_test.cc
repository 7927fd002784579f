#include "node-agent/model/policy_words.h"

#include <gtest/gtest.h>

#include "node-agent/model/address_range.h"

namespace vsocket::model {
namespace {

LabelSelector Labelled(const std::string& key, const std::string& value) {
  LabelSelector selector;
  selector.match_labels[key] = value;
  return selector;
}

TEST(PolicyWords, Selectors) {
  LabelSelector selector = Labelled("app", "web");
  selector.match_expressions = {{"tier", SelectorTerm::Operator::kIn, {"a", "b"}},
                                {"zone", SelectorTerm::Operator::kNotIn, {"x"}},
                                {"new", SelectorTerm::Operator::kExists, {}},
                                {"old", SelectorTerm::Operator::kDoesNotExist, {}}};
  EXPECT_EQ(InWords(selector), "app=web, tier in (a, b), zone not in (x), new, !old");
  EXPECT_EQ(InWords(LabelSelector{}), "");
}

TEST(PolicyWords, Peers) {
  PolicyPeer peer;
  EXPECT_EQ(InWords(peer, "shop"), "nobody");
  peer.pod_selector = LabelSelector{};
  EXPECT_EQ(InWords(peer, "shop"), "every pod of namespace shop");
  peer.pod_selector = Labelled("app", "web");
  EXPECT_EQ(InWords(peer, "shop"), "pods app=web of namespace shop");
  peer.namespace_selector = Labelled("team", "a");
  EXPECT_EQ(InWords(peer, "shop"), "pods app=web of namespaces team=a");
  peer.pod_selector.reset();
  peer.namespace_selector = LabelSelector{};
  EXPECT_EQ(InWords(peer, "shop"), "every pod of every namespace");
  PolicyPeer block;
  block.ip_block = IpBlock{*ParseCidr("10.0.0.0/8"), {*ParseCidr("10.1.0.0/16"), *ParseCidr("10.2.0.0/16")}};
  EXPECT_EQ(InWords(block, "shop"), "10.0.0.0/8 except 10.1.0.0/16, 10.2.0.0/16");
}

TEST(PolicyWords, Rules) {
  PolicyRule rule;
  EXPECT_EQ(InWords(rule, RuleDirection::kIngress, "shop"), "from everyone, on every port");
  rule.peers.resize(2);
  rule.peers[0].pod_selector = Labelled("app", "web");
  rule.peers[1].namespace_selector = Labelled("team", "a");
  rule.ports = {{Protocol::kTcp, "", 80, std::nullopt},
                {Protocol::kTcp, "", 8000, 8080},
                {Protocol::kUdp, "dns", {}, {}},
                {Protocol::kSctp, "", {}, {}}};
  EXPECT_EQ(
      InWords(rule, RuleDirection::kEgress, "shop"),
      "to pods app=web of namespace shop or every pod of namespaces team=a, on TCP 80 or TCP 8000-8080 or UDP dns or every SCTP port");
  NetworkPolicy policy;
  policy.ns = "shop";
  EXPECT_EQ(SubjectInWords(policy), "every pod of namespace shop");
}

}  // namespace
}  // namespace vsocket::model
