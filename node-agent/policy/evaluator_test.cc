#include "node-agent/policy/evaluator.h"

#include <gtest/gtest.h>

#include <memory>

#include "node-agent/policy/testing/builders.h"

namespace vsocket::policy {
namespace {

using namespace testing;  // NOLINT: the builders are this file's language
using model::ApiErrorKind;
using model::Protocol;

std::shared_ptr<const model::ClusterState> Share(model::ClusterState state) {
  return std::make_shared<const model::ClusterState>(std::move(state));
}

model::ClusterState Shop() {
  model::ClusterState state;
  state.pods = {
      MakePod("shop", "web", "10.0.1.1", {{"app", "web"}}),
      MakePod("shop", "redis", "10.0.1.2", {{"app", "redis"}}, {{"redis", 6379, Protocol::kTcp}, {"stats", 9000, Protocol::kUdp}}),
      MakePod("default", "other", "10.0.3.1")};
  state.policies = {
      Ingress("shop", "redis", Select({{"app", "redis"}}), {{{Pods({{"app", "nobody"}}), Pods({{"app", "web"}})}, {Named("redis")}}})};
  return state;
}

TEST(EvaluatorTest, WithoutPoliciesEverythingIsAllowed) {
  model::ClusterState state = Shop();
  state.policies.clear();
  const Evaluator evaluator(Share(state), {});
  const auto verdict = evaluator.Evaluate(Tcp("10.0.3.1", "10.0.1.2", 1));
  EXPECT_TRUE(verdict.allowed);
  EXPECT_EQ(verdict.ingress.decided_by, "no policy selects the pod");
  EXPECT_EQ(verdict.ingress.pod, "shop/redis");
  EXPECT_EQ(evaluator.Evaluate(Tcp("192.0.2.1", "192.0.2.2", 1)).ingress.decided_by, "not a pod");
}

TEST(EvaluatorTest, ExplainsWithOneBasedRuleAndPeer) {
  const Evaluator evaluator(Share(Shop()), {});
  const auto verdict = evaluator.Evaluate(Tcp("10.0.1.1", "10.0.1.2", 6379));
  EXPECT_TRUE(verdict.allowed);
  EXPECT_EQ(verdict.ingress.decided_by, "policy shop/redis, ingress rule 1, peer 2");
  EXPECT_EQ(verdict.egress.pod, "shop/web");
  EXPECT_FALSE(evaluator.Evaluate(Tcp("10.0.3.1", "10.0.1.2", 6379)).allowed);
}

TEST(EvaluatorTest, Ipv4MappedSourceIsThePod) {
  const Evaluator evaluator(Share(Shop()), {});
  EXPECT_TRUE(evaluator.Evaluate(Tcp("::ffff:10.0.1.1", "::ffff:10.0.1.2", 6379)).allowed);
  EXPECT_FALSE(evaluator.Evaluate(Tcp("::ffff:10.0.3.1", "::ffff:10.0.1.2", 6379)).allowed);
}

TEST(EvaluatorTest, AContestedAddressIsAllowedWhatBothAre) {
  model::ClusterState state = Shop();
  state.pods.push_back(MakePod("shop", "impostor", "10.0.1.1", {{"app", "impostor"}}));
  EXPECT_FALSE(Evaluator(Share(state), {}).Evaluate(Tcp("10.0.1.1", "10.0.1.2", 6379)).allowed);
  EXPECT_TRUE(Evaluator(Share(state), {}).AllowListFor("shop/redis").ingress.entries.empty());
}

TEST(EvaluatorTest, APeerWithoutAnyMemberSelectsNobody) {
  model::ClusterState state = Shop();
  state.policies = {Ingress("shop", "odd", Select(), {{{model::PolicyPeer{}}, {}}})};
  EXPECT_FALSE(Evaluator(Share(state), {}).Evaluate(Tcp("10.0.1.1", "10.0.1.2", 6379)).allowed);
}

TEST(EvaluatorTest, NamespacesHaveTheirNameAsALabel) {
  model::ClusterState state = Shop();
  state.policies = {Ingress("shop", "from-default", Select(), {{{Namespaces({{"kubernetes.io/metadata.name", "default"}})}, {}}})};
  const Evaluator evaluator(Share(state), {});
  EXPECT_TRUE(evaluator.Evaluate(Tcp("10.0.3.1", "10.0.1.2", 1)).allowed);
  EXPECT_FALSE(evaluator.Evaluate(Tcp("10.0.1.1", "10.0.1.2", 1)).allowed);
}

TEST(TraceTest, ByNumberNameAndProtocol) {
  const Evaluator evaluator(Share(Shop()), {});
  EXPECT_TRUE(evaluator.Trace("shop/web", "shop/redis", "6379")->allowed);
  EXPECT_TRUE(evaluator.Trace("shop/web", "shop/redis", "redis")->allowed);
  EXPECT_TRUE(evaluator.Trace("shop/web", "shop/redis", "6379/tcp")->allowed);
  EXPECT_FALSE(evaluator.Trace("shop/web", "shop/redis", "6379/UDP")->allowed);
  EXPECT_FALSE(evaluator.Trace("shop/web", "shop/redis", "stats")->allowed);  // resolves to 9000/UDP
  EXPECT_FALSE(evaluator.Trace("other", "shop/redis", "redis")->allowed);     // default/other
  EXPECT_TRUE(evaluator.Trace("shop/redis", "shop/redis", "1")->allowed);
}

TEST(TraceTest, Errors) {
  const Evaluator evaluator(Share(Shop()), {});
  EXPECT_EQ(evaluator.Trace("shop/nobody", "shop/redis", "1").Error().kind, ApiErrorKind::kNotFound);
  EXPECT_EQ(evaluator.Trace("shop/web", "shop/nobody", "1").Error().kind, ApiErrorKind::kNotFound);
  EXPECT_EQ(evaluator.Trace("shop/web", "shop/redis", "nope").Error().kind, ApiErrorKind::kNotFound);
  EXPECT_EQ(evaluator.Trace("shop/web", "shop/redis", "redis/udp").Error().kind, ApiErrorKind::kNotFound);
  for (const char* port : {"", "0", "65536", "99999999999", "/tcp", "80/icmp"}) {
    EXPECT_EQ(evaluator.Trace("shop/web", "shop/redis", port).Error().kind, ApiErrorKind::kInvalid) << port;
  }
}

TEST(TraceTest, PodsWithoutAddressesAreJudgedBySelectors) {
  model::ClusterState state = Shop();
  for (auto& pod : state.pods) pod.Edit().ips.clear();
  const Evaluator evaluator(Share(state), {});
  EXPECT_TRUE(evaluator.Trace("shop/web", "shop/redis", "redis")->allowed);
  EXPECT_FALSE(evaluator.Trace("default/other", "shop/redis", "redis")->allowed);
}

TEST(AllowListTest, UnknownPodIsNotIsolated) {
  const Evaluator evaluator(Share(Shop()), {Ip("10.0.0.1"), Ip("10.0.0.1")});
  const auto list = evaluator.AllowListFor("shop/nobody");
  EXPECT_FALSE(list.ingress.isolated);
  EXPECT_FALSE(list.egress.isolated);
  EXPECT_EQ(list.pod, "shop/nobody");
  EXPECT_EQ(list.node_addresses, std::vector{Ip("10.0.0.1")});
  EXPECT_FALSE(evaluator.Isolation("shop/nobody").ingress);
}

TEST(AllowListTest, ListsExactlyTheAllowedTuples) {
  const Evaluator evaluator(Share(Shop()), {});
  const auto list = evaluator.AllowListFor("shop/redis");
  EXPECT_TRUE(list.ingress.isolated);
  EXPECT_FALSE(list.egress.isolated);
  ASSERT_EQ(list.ingress.entries.size(), 1u);
  EXPECT_EQ(list.ingress.entries[0], (model::AllowEntry{{Ip("10.0.1.1"), Ip("10.0.1.1")}, Protocol::kTcp, 6379, 6379}));
}

TEST(ScaleTest, ThousandsOfPodsAreResolvedOnce) {
  model::ClusterState state;
  for (unsigned i = 0; i < 5000; ++i) {
    state.pods.push_back(MakePod("ns" + std::to_string(i % 50), "p" + std::to_string(i),
                                 "10.1." + std::to_string(i / 250) + "." + std::to_string(i % 250),
                                 {{"app", "app" + std::to_string(i % 20)}}));
  }
  for (unsigned i = 0; i < 500; ++i) {
    state.policies.push_back(Ingress("ns" + std::to_string(i % 50), "policy" + std::to_string(i),
                                     Select({{"app", "app" + std::to_string(i % 20)}}),
                                     {{{PodsIn({{"app", "app" + std::to_string(i % 7)}}, {})}, {Port(80)}}}));
  }
  const Evaluator evaluator(Share(state), {});
  unsigned allowed = 0;
  for (unsigned i = 0; i < 100000; ++i) {
    const model::Flow flow{state.pods[i * 7 % 5000]->ips[0], state.pods[i * 13 % 5000]->ips[0], 80, Protocol::kTcp};
    allowed += evaluator.Evaluate(flow).allowed ? 1u : 0u;
  }
  EXPECT_GT(allowed, 0u);
  EXPECT_LT(allowed, 100000u);
}

}  // namespace
}  // namespace vsocket::policy
