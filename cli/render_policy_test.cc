#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/render.h"

namespace vsocket::cli {
namespace {

using nlohmann::json;

TEST(RenderTrace, WhatWasAskedBothDirectionsAndTheVerdict) {
  v1::TracePolicyRequest request;
  request.set_source_pod("default/web");
  request.set_destination_pod("shop/redis");
  request.set_port("redis/udp");
  v1::TracePolicyResponse verdict;
  verdict.set_source_ip("10.0.0.1");
  verdict.set_destination_ip("10.0.0.2");
  verdict.set_port(6379);
  verdict.set_protocol("UDP");
  verdict.mutable_egress()->set_allowed(true);
  verdict.mutable_egress()->set_pod("default/web");
  verdict.mutable_egress()->add_isolated_by("default/out");
  verdict.mutable_egress()->set_decided_by("policy default/out, egress rule 1, peer 2");
  verdict.mutable_egress()->set_policy("default/out");
  verdict.mutable_egress()->set_rule(1);
  verdict.mutable_egress()->set_peer(2);
  verdict.mutable_egress()->set_rule_text("to pods a=b of namespace default or 10.0.0.0/8, on every port");
  verdict.mutable_egress()->set_peer_text("10.0.0.0/8");
  verdict.mutable_ingress()->set_pod("shop/redis");
  verdict.mutable_ingress()->add_isolated_by("shop/deny");
  verdict.mutable_ingress()->add_isolated_by("shop/redis");
  verdict.mutable_ingress()->set_decided_by("no rule matches");
  EXPECT_EQ(RenderTrace(request, verdict, Format::kTable),
            "default/web -> shop/redis:redis/udp\n"
            "asked: UDP port 6379, from 10.0.0.1 to 10.0.0.2\n"
            "egress   ALLOWED  (policies of default/web)\n"
            "  isolated by: default/out\n"
            "  decided by:  policy default/out, egress rule 1, peer 2\n"
            "  the rule:    to pods a=b of namespace default or 10.0.0.0/8, on every port\n"
            "  the peer:    10.0.0.0/8\n"
            "ingress  DENIED  (policies of shop/redis)\n"
            "  isolated by: shop/deny, shop/redis\n"
            "  decided by:  no rule matches\n"
            "DENIED\n");
  const json object = json::parse(RenderTrace(request, verdict, Format::kJson));
  EXPECT_EQ(object["allowed"], false);
  EXPECT_EQ(object["ingress"]["isolated_by"], json({"shop/deny", "shop/redis"}));
  EXPECT_EQ(object["egress"]["policy"], "default/out");
  EXPECT_EQ(object["egress"]["rule"], 1);
  EXPECT_EQ(object["egress"]["peer_text"], "10.0.0.0/8");
  EXPECT_EQ(object["asked"]["protocol"], "UDP");
  EXPECT_EQ(object["asked"]["port"], 6379);
}

v1::Policy Policy(const std::string& name, std::uint32_t local) {
  v1::Policy policy;
  policy.set_namespace_("shop");
  policy.set_name(name);
  policy.set_selects("pods app=redis of namespace shop");
  policy.set_isolates_ingress(true);
  policy.set_isolates_egress(true);
  policy.add_ingress("from everyone, on TCP 6379");
  policy.set_local_pod_count(local);
  for (std::uint32_t i = 0; i < local; ++i) policy.add_local_pods("shop/redis-" + std::to_string(i));
  policy.set_pod_count(local + 1);
  return policy;
}

TEST(RenderPolicies, InWordsWithWhatTheySelectHere) {
  v1::StatusResponse status;
  status.set_source("dir:/etc/vsocket");
  v1::SourceProblem* problem = status.add_problems();
  problem->set_where("a.yaml:3");
  problem->set_what("no such operator");
  v1::Policy here = Policy("redis", 2);
  here.add_problems("a.yaml:3: no such operator");
  const std::string tail = "problems in dir:/etc/vsocket:\n  a.yaml:3: no such operator\n";
  EXPECT_EQ(RenderPolicies({here, Policy("other", 0)}, status, false, Format::kTable),
            "shop/redis\n"
            "  selects pods app=redis of namespace shop: 2 on this node, 3 in the cluster: shop/redis-0, shop/redis-1\n"
            "  ingress rule 1: from everyone, on TCP 6379\n"
            "  egress: nothing is allowed\n"
            "  problem: a.yaml:3: no such operator\n"
            "1 more policy selects no pod of this node (--all shows them)\n" +
                tail);
  EXPECT_NE(RenderPolicies({Policy("other", 0)}, status, true, Format::kTable).find("shop/other\n  selects"), std::string::npos);
  EXPECT_EQ(RenderPolicies({}, {}, false, Format::kTable), "no NetworkPolicy is in force\n");
  const json object = json::parse(RenderPolicies({here, Policy("other", 0)}, status, false, Format::kJson));
  ASSERT_EQ(object["policies"].size(), 1U);
  EXPECT_EQ(object["policies"][0]["ingress"][0], "from everyone, on TCP 6379");
  EXPECT_EQ(object["policies"][0]["isolates"]["egress"], true);
  EXPECT_EQ(object["problems"][0]["where"], "a.yaml:3");
}

TEST(RenderFlow, ALineAnEvent) {
  v1::FlowEvent event;
  event.set_sequence(7);
  event.set_unix_nanos(1'700'000'000'123'000'000U);
  event.set_action(v1::FLOW_ACTION_DENIED);
  event.set_path(v1::FLOW_PATH_KERNEL);
  event.set_protocol("TCP");
  event.set_source_ip("fd00::1");
  event.set_source_port(40000);
  event.set_source_pod("default/web\033");
  event.set_destination_ip("10.0.0.9");
  event.set_destination_port(80);
  event.set_direction("ingress");
  event.set_policy("shop/redis");
  event.set_reason("no rule matches");
  EXPECT_EQ(RenderFlow(event, Format::kTable),
            "2023-11-14T22:13:20.123Z  denied   kernel  ingress  TCP default/web? ([fd00::1]:40000) -> 10.0.0.9:80  no rule matches "
            "[shop/redis]\n");
  const std::string line = RenderFlow(event, Format::kJson);
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const json object = json::parse(line);
  EXPECT_EQ(object["verdict"], "denied");
  EXPECT_EQ(object["path"], "kernel");
  EXPECT_EQ(object["time"], "2023-11-14T22:13:20.123Z");
  EXPECT_EQ(object["policy"], "shop/redis");
  EXPECT_EQ(json::parse(RenderLostFlows(12, Format::kJson))["lost"], 12);
  EXPECT_EQ(RenderLostFlows(12, Format::kTable), "-- 12 events lost: they came faster than they were read\n");
}

}  // namespace
}  // namespace vsocket::cli
