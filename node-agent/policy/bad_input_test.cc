// What cannot be understood, or changes faster than it should: it closes for the pods concerned, it is said, and nothing is left behind.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>

#include "node-agent/policy/evaluator.h"
#include "node-agent/policy/testing/builders.h"

namespace vsocket::policy {
namespace {

using namespace testing;  // NOLINT: the builders are this file's language
using model::Protocol;
using Operator = model::SelectorTerm::Operator;

class BadInputTest : public ::testing::Test {
 protected:
  // a/web 10.0.1.1, a/db 10.0.1.2, b/web 10.0.2.1
  BadInputTest() {
    state_.pods = {MakePod("a", "web", "10.0.1.1", {{"app", "web"}}, {{"http", 8080, Protocol::kTcp}}),
                   MakePod("a", "db", "10.0.1.2", {{"app", "db"}}), MakePod("b", "web", "10.0.2.1", {{"app", "web"}})};
  }

  Delta Apply() { return evaluator_.Apply(std::make_shared<const model::ClusterState>(state_), wired_, {}); }
  Delta Apply(model::NetworkPolicy policy) {
    state_.policies = {std::move(policy)};
    return Apply();
  }
  bool Allows(const std::string& source, const std::string& destination, std::uint16_t port, Protocol protocol = Protocol::kTcp) const {
    return evaluator_.Evaluate({Ip(source), Ip(destination), port, protocol}).allowed;
  }
  // A problem of `where` that says `what`.
  bool Says(const std::string& where, const std::string& what) const {
    const auto problems = evaluator_.Problems();
    return std::any_of(problems.begin(), problems.end(), [&](const model::SourceProblem& problem) {
      return problem.where == where && problem.what.find(what) != std::string::npos;
    });
  }

  model::ClusterState state_;
  std::vector<model::LocalPod> wired_;
  Evaluator evaluator_;
};

const model::LabelSelector kUnknownOperator{{}, {{"app", static_cast<Operator>(9), {"web"}}}};
const model::LabelSelector kInNothing{{}, {{"app", Operator::kIn, {}}}};
const model::LabelSelector kNotInNothing{{}, {{"app", Operator::kNotIn, {}}}};
const model::LabelSelector kExistsSomething{{}, {{"app", Operator::kExists, {"web"}}}};

TEST_F(BadInputTest, ASubjectThatCannotBeUnderstoodIsTheWholeNamespace) {
  for (const auto& selector : {kUnknownOperator, kInNothing, kNotInNothing, kExistsSomething}) {
    Apply(Ingress("a", "odd", selector, {}));
    EXPECT_FALSE(Allows("10.0.2.1", "10.0.1.1", 8080));
    EXPECT_FALSE(Allows("10.0.2.1", "10.0.1.2", 8080));
    EXPECT_TRUE(Allows("10.0.1.1", "10.0.2.1", 8080));  // another namespace's pods are not concerned
    EXPECT_TRUE(Says("NetworkPolicy a/odd", "it selects every pod of the namespace"));
  }
}

TEST_F(BadInputTest, APeerThatCannotBeUnderstoodMatchesNothing) {
  model::PolicyPeer both = Pods();
  both.ip_block = Block("0.0.0.0/0").ip_block;
  for (const auto& peer :
       {model::PolicyPeer{kUnknownOperator, {}, {}}, model::PolicyPeer{{}, kNotInNothing, {}}, model::PolicyPeer{}, both}) {
    Apply(Ingress("a", "odd", Select(), {{{peer}, {}}}));
    EXPECT_FALSE(Allows("10.0.2.1", "10.0.1.1", 8080));
    EXPECT_FALSE(Allows("10.0.1.2", "10.0.1.1", 8080));
    EXPECT_TRUE(Says("NetworkPolicy a/odd", "ingress rule 1, peer 1 has"));
    EXPECT_TRUE(evaluator_.AllowListFor("a/web").ingress.entries.empty());
  }
  // The others of the rule hold.
  Apply(Ingress("a", "odd", Select(), {{{model::PolicyPeer{}, Pods()}, {}}}));
  EXPECT_TRUE(Allows("10.0.1.2", "10.0.1.1", 8080));
}

TEST_F(BadInputTest, APortThatCannotBeUnderstoodMatchesNothingAndIsNotEveryPort) {
  const std::vector<model::PolicyPort> odd = {{Protocol::kTcp, "", {}, std::uint16_t{90}},      // endPort without a number
                                              {Protocol::kTcp, "http", {}, std::uint16_t{90}},  // endPort of a name
                                              {Protocol::kTcp, "", std::uint16_t{80}, std::uint16_t{79}},
                                              {Protocol::kTcp, "", std::uint16_t{0}, {}},
                                              {Protocol::kTcp, "http", std::uint16_t{80}, {}},
                                              {static_cast<Protocol>(7), "", {}, {}}};
  for (const auto& port : odd) {
    Apply(Ingress("a", "odd", Select(), {{{}, {port}}}));
    for (const std::uint16_t number : std::initializer_list<std::uint16_t>{0, 79, 80, 85, 90, 8080})
      EXPECT_FALSE(Allows("10.0.1.2", "10.0.1.1", number)) << number;
    EXPECT_TRUE(Says("NetworkPolicy a/odd", "ingress rule 1, port 1 has"));
  }
  EXPECT_FALSE(Allows("10.0.1.2", "10.0.1.1", 80, static_cast<Protocol>(7)));
}

TEST_F(BadInputTest, APolicyOfNoKnownTypeClosesBothDirections) {
  auto policy = Ingress("a", "odd", Select({{"app", "web"}}), {{}});
  policy.isolates_ingress = false;
  Apply(policy);
  EXPECT_FALSE(Allows("10.0.2.1", "10.0.1.1", 8080));
  EXPECT_FALSE(Allows("10.0.1.1", "10.0.2.1", 8080));
  EXPECT_TRUE(Allows("10.0.2.1", "10.0.1.2", 8080));
  EXPECT_TRUE(Says("NetworkPolicy a/odd", "no policyType that is known"));
}

TEST_F(BadInputTest, WhatIsRepairedIsNoProblemAnyMore) {
  Apply(Ingress("a", "odd", kUnknownOperator, {}));
  EXPECT_EQ(evaluator_.Problems().size(), 1u);
  Apply(Ingress("a", "odd", Select(), {}));
  EXPECT_TRUE(evaluator_.Problems().empty());
}

TEST_F(BadInputTest, OfOverlappingCidrsEachHolds) {
  Apply(Ingress("a", "blocks", Select(),
                {{{Block("10.0.0.0/8", {"10.0.2.0/24"})}, {Port(80)}},
                 {{Block("10.0.2.0/24")}, {Port(81)}},
                 {{Block("10.0.2.0/25"), Block("0.0.0.0/0", {"10.0.0.0/8"})}, {Ports(80, 82)}}}));
  EXPECT_TRUE(Allows("10.0.1.2", "10.0.1.1", 80));
  EXPECT_FALSE(Allows("10.0.1.2", "10.0.1.1", 81));
  EXPECT_EQ(evaluator_.Evaluate(Tcp("10.0.2.1", "10.0.1.1", 80)).ingress.decided_by, "policy a/blocks, ingress rule 3, peer 1");
  EXPECT_EQ(evaluator_.Evaluate(Tcp("10.0.2.1", "10.0.1.1", 81)).ingress.decided_by, "policy a/blocks, ingress rule 2, peer 1");
  EXPECT_FALSE(Allows("10.0.2.200", "10.0.1.1", 82));
  EXPECT_TRUE(Allows("192.0.2.1", "10.0.1.1", 82));
}

TEST_F(BadInputTest, Ipv4MappedIpv6IsTheIpv4Pod) {
  state_.pods[2].Edit().ips = {Ip("::ffff:10.0.2.1")};
  Apply(Ingress("a", "in", Select(), {{{Namespaces({{"kubernetes.io/metadata.name", "b"}})}, {}}}));
  EXPECT_TRUE(Allows("10.0.2.1", "::ffff:10.0.1.1", 80));
  EXPECT_TRUE(Allows("::ffff:10.0.2.1", "10.0.1.1", 80));
  EXPECT_FALSE(Allows("::ffff:10.0.1.2", "10.0.1.1", 80));
  EXPECT_FALSE(model::ParseCidr("::ffff:10.0.0.0/104"));
}

TEST_F(BadInputTest, AnAddressThatAnotherPodHasAlreadyIsOnlyAllowedWhatBothAre) {
  Apply(Ingress("a", "in", Select({{"app", "db"}}), {{{PodsIn({{"app", "web"}}, {})}, {}}}));
  EXPECT_TRUE(Allows("10.0.2.1", "10.0.1.2", 80));
  // The heir is there before the one whose address it has is gone.
  state_.pods.push_back(MakePod("b", "heir", "10.0.2.1", {{"app", "heir"}}));
  Delta delta = Apply();
  EXPECT_TRUE(delta.affected.Concerns(Tcp("10.0.2.1", "10.0.1.2", 80)));
  EXPECT_FALSE(delta.affected.Concerns(Tcp("10.0.1.1", "10.0.1.2", 80)));
  EXPECT_FALSE(Allows("10.0.2.1", "10.0.1.2", 80));
  EXPECT_TRUE(Says("Pods b/heir, b/web", "all have the address 10.0.2.1"));
  EXPECT_TRUE(evaluator_.AllowListFor("a/db").ingress.entries.size() == 1);  // a/web's
  state_.pods.erase(state_.pods.begin() + 2);
  Apply();
  EXPECT_FALSE(Allows("10.0.2.1", "10.0.1.2", 80));  // the heir's own policies
  EXPECT_TRUE(evaluator_.Problems().empty());
  state_.pods.back().Edit().labels = {{"app", "web"}};
  Apply();
  EXPECT_TRUE(Allows("10.0.2.1", "10.0.1.2", 80));
}

TEST_F(BadInputTest, APodWiredHereHasItsAddressWhateverTheClusterSays) {
  model::LocalPod heir;
  heir.ns = "b";
  heir.name = "heir";
  heir.uid = "u2";
  heir.ips = {Ip("10.0.2.1")};
  Apply(Ingress("a", "in", Select({{"app", "db"}}), {{{PodsIn({{"app", "web"}}, {})}, {}}}));
  wired_ = {heir};  // its object is not there yet, b/web's still is
  EXPECT_TRUE(Apply().affected.Concerns(Ip("10.0.2.1")));
  EXPECT_FALSE(Allows("10.0.2.1", "10.0.1.2", 80));
  EXPECT_TRUE(evaluator_.Problems().empty());
  wired_.clear();
  Apply();
  EXPECT_TRUE(Allows("10.0.2.1", "10.0.1.2", 80));
}

TEST_F(BadInputTest, LabelsThatFlapLeaveNothingBehind) {
  Apply(Ingress("a", "in", Select({{"app", "db"}}), {{{PodsIn({{"app", "web"}}, {})}, {}}}));
  const EvaluatorSize before = evaluator_.Size();
  for (int i = 0; i < 2'000; ++i) {
    state_.pods[2].Edit().labels = {{"app", i % 2 == 0 ? "other" : "web"}, {"turn", std::to_string(i)}};
    const Delta delta = Apply();
    ASSERT_EQ(delta.affected.addresses, std::vector{Ip("10.0.2.1")});
    ASSERT_EQ(Allows("10.0.2.1", "10.0.1.2", 80), i % 2 != 0) << i;
  }
  EXPECT_EQ(evaluator_.Size().identities, before.identities);
  EXPECT_EQ(evaluator_.Size().groups, before.groups);
}

TEST_F(BadInputTest, APortNameOfTwoContainersMeansNeither) {
  state_.pods[0].Edit().ports = {{"http", 8080, Protocol::kTcp}, {"http", 8081, Protocol::kTcp}, {"http", 53, Protocol::kUdp}};
  Apply(Ingress("a", "in", Select({{"app", "web"}}), {{{}, {Named("http"), Named("http", Protocol::kUdp), Port(8443)}}}));
  EXPECT_FALSE(Allows("10.0.2.1", "10.0.1.1", 8080));
  EXPECT_FALSE(Allows("10.0.2.1", "10.0.1.1", 8081));
  EXPECT_TRUE(Allows("10.0.2.1", "10.0.1.1", 53, Protocol::kUdp));  // of UDP it has one meaning
  EXPECT_TRUE(Allows("10.0.2.1", "10.0.1.1", 8443));
  EXPECT_TRUE(Says("Pod a/web", "several of its ports have one name (http)"));
  EXPECT_EQ(evaluator_.Trace("b/web", "a/web", "http").Error().kind, model::ApiErrorKind::kInvalid);
  state_.pods[0].Edit().ports.resize(1);
  Apply();
  EXPECT_TRUE(Allows("10.0.2.1", "10.0.1.1", 8080));
  EXPECT_TRUE(evaluator_.Problems().empty());
}

TEST_F(BadInputTest, TenThousandRulesOfOnePolicyEachHold) {
  std::vector<model::PolicyRule> rules;
  for (unsigned i = 0; i < 10'000; ++i) {
    const auto port = static_cast<std::uint16_t>(i + 1);
    if (i % 2 == 0) {
      rules.push_back({{Block("10." + std::to_string(i % 250) + ".0.0/" + std::to_string(12 + i % 13))}, {Port(port)}});
    } else {
      rules.push_back({{PodsIn({{"app", "web"}}, {})}, {Port(port)}});
    }
  }
  Apply(Ingress("a", "long", Select({{"app", "db"}}), rules));
  EXPECT_EQ(evaluator_.Evaluate(Tcp("10.0.2.1", "10.0.1.2", 10'000)).ingress.decided_by, "policy a/long, ingress rule 10000, peer 1");
  EXPECT_EQ(evaluator_.Evaluate(Tcp("10.0.2.1", "10.0.1.2", 1)).ingress.decided_by, "policy a/long, ingress rule 1, peer 1");
  EXPECT_FALSE(Allows("10.0.2.1", "10.0.1.2", 10'001));
  EXPECT_FALSE(Allows("192.0.2.1", "10.0.1.2", 9));
  unsigned listed = 0;
  const auto list = evaluator_.AllowListFor("a/db");
  for (const auto& entry : list.ingress.entries) listed += entry.remote.first == entry.remote.last ? 1U : 0U;
  EXPECT_EQ(listed, 2u * 5'000u);  // a/web and b/web, each odd rule's port; the ports in between are not adjacent
}

TEST(SizeTest, TenThousandPodsOfAHundredDeploymentsAreAHundredIdentities) {
  model::ClusterState state;
  for (unsigned i = 0; i < 10'000; ++i) {
    state.pods.push_back(MakePod("ns", "p" + std::to_string(i), "10.1." + std::to_string(i / 250) + "." + std::to_string(i % 250),
                                 {{"app", "app" + std::to_string(i % 100)}}));
  }
  Evaluator evaluator(std::make_shared<const model::ClusterState>(state), {});
  EXPECT_EQ(evaluator.Size().identities, 100u);
  EXPECT_EQ(evaluator.Size().pods, 10'000u);
  // One pod with labels of its own is one more, for as long as it has them.
  auto changed = state;
  changed.pods[7].Edit().labels["own"] = "yes";
  const Delta delta = evaluator.Apply(std::make_shared<const model::ClusterState>(changed), {}, {});
  EXPECT_EQ(evaluator.Size().identities, 101u);
  EXPECT_EQ(delta.affected.addresses, state.pods[7]->ips);
  static_cast<void>(evaluator.Apply(std::make_shared<const model::ClusterState>(state), {}, {}));
  EXPECT_EQ(evaluator.Size().identities, 100u);
}

}  // namespace
}  // namespace vsocket::policy
