// Twenty things about NetworkPolicy that are easily got wrong, each under its number, against the evaluator and the flat allow list.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "node-agent/policy/evaluator.h"
#include "node-agent/policy/testing/builders.h"

namespace vsocket::policy {
namespace {

using namespace testing;  // NOLINT: the builders are this file's language
using model::Protocol;

constexpr const char* kNode = "10.0.0.1";

class CasesTest : public ::testing::Test {
 protected:
  // a/web 10.0.1.1, a/db 10.0.1.2, b/web 10.0.2.1, b/bare 10.0.2.2 (no labels)
  CasesTest() {
    state_.namespaces = {model::Namespace{"a", {{"team", "a"}}, {}}, model::Namespace{"b", {{"team", "b"}}, {}}};
    state_.pods = {MakePod("a", "web", "10.0.1.1", {{"app", "web"}}, {{"http", 8080, Protocol::kTcp}}),
                   MakePod("a", "db", "10.0.1.2", {{"app", "db"}}, {{"sql", 5432, Protocol::kTcp}}),
                   MakePod("b", "web", "10.0.2.1", {{"app", "web"}}, {{"http", 9090, Protocol::kTcp}}), MakePod("b", "bare", "10.0.2.2")};
  }

  void Add(model::NetworkPolicy policy) { state_.policies.push_back(std::move(policy)); }
  std::unique_ptr<Evaluator> Compiled() const {
    return std::make_unique<Evaluator>(std::make_shared<const model::ClusterState>(state_), std::vector{Ip(kNode)});
  }
  model::Verdict Judge(const model::Flow& flow) const { return Compiled()->Evaluate(flow); }
  bool Allows(const model::Flow& flow) const { return Judge(flow).allowed; }
  bool Allows(const char* source, const char* destination, std::uint16_t port, Protocol protocol = Protocol::kTcp) const {
    return Allows({Ip(source), Ip(destination), port, protocol});
  }
  static bool Lists(const model::DirectionAllowList& list, const char* remote, std::uint16_t port, Protocol protocol = Protocol::kTcp) {
    return std::any_of(list.entries.begin(), list.entries.end(), [&](const model::AllowEntry& entry) {
      return entry.remote.Contains(Ip(remote)) &&
             (!entry.protocol || (*entry.protocol == protocol && entry.first_port <= port && port <= entry.last_port));
    });
  }
  model::Pod& PodNamed(const std::string& ns, const std::string& name) {
    return std::find_if(state_.pods.begin(), state_.pods.end(), [&](const model::Pod& pod) { return pod.ns == ns && pod.name == name; })
        ->Edit();
  }

  model::ClusterState state_;
};

TEST_F(CasesTest, Case01NamedPortResolvesOnTheDestinationPod) {
  Add(Egress("a", "out", Select({{"app", "db"}}), {{{Namespaces()}, {Named("http")}}}));
  EXPECT_TRUE(Allows("10.0.1.2", "10.0.1.1", 8080));  // the destination's http
  EXPECT_FALSE(Allows("10.0.1.2", "10.0.1.1", 9090));
  EXPECT_FALSE(Allows("10.0.1.2", "10.0.2.2", 8080));   // has no such name
  EXPECT_FALSE(Allows("10.0.1.2", "192.0.2.1", 8080));  // no pod
}

TEST_F(CasesTest, Case02OneNameDifferentNumbers) {
  Add(Egress("a", "out", Select({{"app", "db"}}), {{{Namespaces()}, {Named("http")}}}));
  EXPECT_TRUE(Allows("10.0.1.2", "10.0.2.1", 9090));
  EXPECT_FALSE(Allows("10.0.1.2", "10.0.2.1", 8080));
  const auto list = Compiled()->AllowListFor("a/db").egress;
  EXPECT_TRUE(Lists(list, "10.0.1.1", 8080));
  EXPECT_TRUE(Lists(list, "10.0.2.1", 9090));
  EXPECT_FALSE(Lists(list, "10.0.2.1", 8080));
}

TEST_F(CasesTest, Case03NamedPortOfAnotherProtocolDoesNotMatch) {
  Add(Ingress("a", "in", Select({{"app", "web"}}), {{{}, {Named("http", Protocol::kUdp)}}}));
  EXPECT_FALSE(Allows("10.0.1.2", "10.0.1.1", 8080, Protocol::kUdp));
  EXPECT_FALSE(Allows("10.0.1.2", "10.0.1.1", 8080, Protocol::kTcp));
  EXPECT_TRUE(Compiled()->AllowListFor("a/web").ingress.entries.empty());
}

TEST_F(CasesTest, Case04EndPortIsInclusive) {
  Add(Ingress("a", "in", Select(), {{{}, {Ports(100, 102)}}}));
  EXPECT_FALSE(Allows("10.0.1.2", "10.0.1.1", 99));
  EXPECT_TRUE(Allows("10.0.1.2", "10.0.1.1", 100));
  EXPECT_TRUE(Allows("10.0.1.2", "10.0.1.1", 102));
  EXPECT_FALSE(Allows("10.0.1.2", "10.0.1.1", 103));
}

TEST_F(CasesTest, Case05NoPeersIsEveryoneNoRulesIsNobody) {
  Add(Ingress("a", "everyone", Select({{"app", "web"}}), {{}}));
  Add(Ingress("a", "nobody", Select({{"app", "db"}}), {}));
  EXPECT_TRUE(Allows("192.0.2.1", "10.0.1.1", 1));
  EXPECT_TRUE(Allows("10.0.2.2", "10.0.1.1", 1));
  EXPECT_FALSE(Allows("192.0.2.1", "10.0.1.2", 1));
  EXPECT_FALSE(Allows("10.0.1.1", "10.0.1.2", 1));
}

TEST_F(CasesTest, Case06TwoSelectorsInOnePeerAreAndedTwoPeersAreOred) {
  Add(Ingress("a", "and", Select({{"app", "web"}}), {{{PodsIn({{"app", "web"}}, {{"team", "b"}})}, {}}}));
  Add(Ingress("a", "or", Select({{"app", "db"}}), {{{Pods({{"app", "web"}}), Namespaces({{"team", "b"}})}, {}}}));
  EXPECT_TRUE(Allows("10.0.2.1", "10.0.1.1", 1));   // web in b
  EXPECT_FALSE(Allows("10.0.2.2", "10.0.1.1", 1));  // in b, not web
  EXPECT_FALSE(Allows("10.0.1.2", "10.0.1.1", 1));  // neither
  EXPECT_TRUE(Allows("10.0.1.1", "10.0.1.2", 1));   // web in a
  EXPECT_TRUE(Allows("10.0.2.2", "10.0.1.2", 1));   // any of b
}

TEST_F(CasesTest, Case07EmptyPodSelectorIsTheOwnNamespaceEmptyNamespaceSelectorIsAll) {
  Add(Ingress("a", "own", Select({{"app", "web"}}), {{{Pods()}, {}}}));
  Add(Ingress("a", "all", Select({{"app", "db"}}), {{{Namespaces()}, {}}}));
  EXPECT_TRUE(Allows("10.0.1.2", "10.0.1.1", 1));
  EXPECT_FALSE(Allows("10.0.2.1", "10.0.1.1", 1));
  EXPECT_TRUE(Allows("10.0.2.1", "10.0.1.2", 1));
  EXPECT_TRUE(Allows("10.0.2.2", "10.0.1.2", 1));
  EXPECT_FALSE(Allows("192.0.2.1", "10.0.1.2", 1));  // no pod is in no namespace
}

TEST_F(CasesTest, Case08ExceptDoesNotSubtractFromOtherRules) {
  Add(Ingress("a", "in", Select(), {{{Block("10.0.0.0/8", {"10.0.2.0/24"})}, {}}, {{Block("10.0.2.1/32")}, {}}}));
  EXPECT_TRUE(Allows("10.0.2.1", "10.0.1.1", 1));
  EXPECT_FALSE(Allows("10.0.2.2", "10.0.1.1", 1));
  EXPECT_TRUE(Allows("10.9.9.9", "10.0.1.1", 1));
  const auto list = Compiled()->AllowListFor("a/web").ingress;
  EXPECT_TRUE(Lists(list, "10.0.2.1", 1));
  EXPECT_FALSE(Lists(list, "10.0.2.2", 1));
}

TEST_F(CasesTest, Case09IpBlockMatchesPodAddresses) {
  Add(Ingress("a", "in", Select(), {{{Block("10.0.2.0/24")}, {}}}));
  EXPECT_TRUE(Allows("10.0.2.1", "10.0.1.1", 1));
}

// The defaults are applied where manifests are read (kube/); here the two flags mean what they say.
TEST_F(CasesTest, Case10OnlyTheDirectionsOfPolicyTypesAreIsolated) {
  auto egress_only = Egress("a", "egress", Select({{"app", "web"}}), {});
  egress_only.ingress = {{}};  // has no effect
  Add(egress_only);
  EXPECT_TRUE(Allows("10.0.1.2", "10.0.1.1", 1));
  EXPECT_FALSE(Allows("10.0.1.1", "10.0.1.2", 1));
  const auto isolation = Compiled()->Isolation("a/web");
  EXPECT_FALSE(isolation.ingress);
  EXPECT_TRUE(isolation.egress);
  EXPECT_EQ(isolation.egress_by, std::vector<std::string>{"a/egress"});
}

TEST_F(CasesTest, Case11PortWithoutNumberIsEveryPortOfItsProtocol) {
  Add(Ingress("a", "in", Select(), {{{}, {Every(Protocol::kUdp)}}}));
  EXPECT_TRUE(Allows("10.0.1.2", "10.0.1.1", 1, Protocol::kUdp));
  EXPECT_TRUE(Allows("10.0.1.2", "10.0.1.1", 65535, Protocol::kUdp));
  EXPECT_FALSE(Allows("10.0.1.2", "10.0.1.1", 1, Protocol::kTcp));
  EXPECT_EQ(model::PolicyPort{}.protocol, Protocol::kTcp);  // missing protocol
}

TEST_F(CasesTest, Case12BothDirectionsMustAllow) {
  Add(Egress("a", "out", Select({{"app", "web"}}), {{{Pods({{"app", "db"}})}, {}}}));
  EXPECT_TRUE(Allows("10.0.1.1", "10.0.1.2", 5432));
  Add(Ingress("a", "in", Select({{"app", "db"}}), {}));
  const auto verdict = Judge(Tcp("10.0.1.1", "10.0.1.2", 5432));
  EXPECT_FALSE(verdict.allowed);
  EXPECT_TRUE(verdict.egress.allowed);
  EXPECT_FALSE(verdict.ingress.allowed);
  EXPECT_EQ(verdict.egress.decided_by, "policy a/out, egress rule 1, peer 1");
  EXPECT_EQ(verdict.ingress.decided_by, "no rule matches");
  EXPECT_EQ(verdict.ingress.isolated_by, std::vector<std::string>{"a/in"});
}

// What is asked about is the backend and its target port: the rule names the pod's port, never the Service's.
TEST_F(CasesTest, Case13EgressIsJudgedOnTheBackend) {
  Add(Egress("a", "out", Select({{"app", "db"}}), {{{Pods({{"app", "web"}})}, {Port(8080)}}}));
  EXPECT_TRUE(Allows("10.0.1.2", "10.0.1.1", 8080));
  EXPECT_FALSE(Allows("10.0.1.2", "10.96.0.10", 80));  // a ClusterIP is no pod
}

TEST_F(CasesTest, Case14HostNetworkPodsAreNeverSelected) {
  PodNamed("a", "web").host_network = true;
  Add(Ingress("a", "in", Select(), {}));
  Add(Ingress("b", "from-a", Select(), {{{Namespaces({{"team", "a"}})}, {}}}));
  EXPECT_TRUE(Allows("10.0.1.2", "10.0.1.1", 1));   // not isolated
  EXPECT_FALSE(Allows("10.0.1.1", "10.0.2.1", 1));  // not matched as a peer either
  EXPECT_TRUE(Allows("10.0.1.2", "10.0.2.1", 1));
  EXPECT_FALSE(Compiled()->Isolation("a/web").ingress);
}

TEST_F(CasesTest, Case15TheOwnNodeIsAlwaysAllowedIn) {
  Add(Ingress("a", "in", Select(), {}));
  const auto verdict = Judge(Tcp(kNode, "10.0.1.1", 8080));
  EXPECT_TRUE(verdict.allowed);
  EXPECT_EQ(verdict.ingress.decided_by, "the pod's own node is always allowed in");
  EXPECT_FALSE(Allows("10.0.0.2", "10.0.1.1", 8080));  // another node
  // What the agent does for another pod is judged as that pod.
  EXPECT_FALSE(Allows("10.0.2.1", "10.0.1.1", 8080));
  // Only in, not out.
  Add(Egress("a", "out", Select(), {}));
  EXPECT_FALSE(Allows("10.0.1.1", kNode, 80));
}

TEST_F(CasesTest, Case16FinishedPodsAreGoneTheirAddressIsReused) {
  PodNamed("a", "web").finished = true;
  state_.pods.push_back(MakePod("b", "heir", "10.0.1.1", {{"app", "heir"}}));
  Add(Ingress("a", "in", Select(), {}));
  Add(Ingress("b", "in", Select({{"app", "web"}}), {{{Pods({{"app", "heir"}})}, {}}}));
  EXPECT_TRUE(Allows("10.0.2.2", "10.0.1.1", 1));  // a's policy holds no longer
  EXPECT_TRUE(Allows("10.0.1.1", "10.0.2.1", 1));  // as the heir
  EXPECT_FALSE(Compiled()->Trace("a/web", "b/web", "80").Ok());
}

TEST_F(CasesTest, Case17UnlabelledPodsMatchEmptyNotInAndDoesNotExist) {
  using Operator = model::SelectorTerm::Operator;
  for (const model::LabelSelector& selector : {Select(), model::LabelSelector{{}, {{"app", Operator::kNotIn, {"web"}}}},
                                               model::LabelSelector{{}, {{"app", Operator::kDoesNotExist, {}}}}}) {
    state_.policies = {Ingress("b", "in", selector, {})};
    EXPECT_FALSE(Allows("10.0.1.1", "10.0.2.2", 1));
    state_.policies = {Ingress("a", "in", Select(), {{{model::PolicyPeer{selector, Select(), {}}}, {}}})};
    EXPECT_TRUE(Allows("10.0.2.2", "10.0.1.1", 1));
  }
}

TEST_F(CasesTest, Case18PodNamespaceAndPolicyChangesAreSeenThroughPeers) {
  Add(Ingress("a", "in", Select(), {{{PodsIn({{"app", "web"}}, {{"team", "b"}})}, {}}}));
  EXPECT_TRUE(Allows("10.0.2.1", "10.0.1.2", 1));
  PodNamed("b", "web").labels["app"] = "other";
  EXPECT_FALSE(Allows("10.0.2.1", "10.0.1.2", 1));
  PodNamed("b", "web").labels["app"] = "web";
  state_.namespaces[1].Edit().labels["team"] = "c";
  EXPECT_FALSE(Allows("10.0.2.1", "10.0.1.2", 1));
  state_.policies.clear();
  EXPECT_TRUE(Allows("10.0.2.1", "10.0.1.2", 1));
}

// Cutting is the broker's part: it asks again for every live flow, and must get the new answer for the same question.
TEST_F(CasesTest, Case19AnEstablishedFlowGetsTheNewVerdict) {
  const model::Flow live = Tcp("10.0.2.1", "10.0.1.2", 5432);
  EXPECT_TRUE(Allows(live));
  Add(Ingress("a", "in", Select(), {}));
  EXPECT_FALSE(Allows(live));
}

TEST_F(CasesTest, Case20SelfAlwaysFamiliesApartSctpNotSilently) {
  PodNamed("a", "web").ips.push_back(Ip("fd00::11"));
  PodNamed("a", "db").ips.push_back(Ip("fd00::12"));
  Add(Ingress("a", "in", Select(), {{{Block("10.0.0.0/8")}, {Every(Protocol::kTcp)}}}));
  Add(Egress("a", "out", Select({{"app", "web"}}), {}));
  EXPECT_TRUE(Allows("10.0.1.1", "10.0.1.1", 1));
  EXPECT_TRUE(Allows("fd00::11", "fd00::11", 1));
  EXPECT_TRUE(Allows("127.0.0.1", "127.0.0.1", 1));
  EXPECT_TRUE(Allows("::1", "::1", 1));
  state_.policies.pop_back();
  EXPECT_TRUE(Allows("10.0.1.1", "10.0.1.2", 1));
  EXPECT_FALSE(Allows("fd00::11", "fd00::12", 1));
  EXPECT_FALSE(Allows("10.0.1.1", "10.0.1.2", 1, Protocol::kSctp));
}

}  // namespace
}  // namespace vsocket::policy
