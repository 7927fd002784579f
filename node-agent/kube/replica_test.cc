#include "node-agent/kube/replica.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "node-agent/kube/json_tree.h"
#include "node-agent/kube/testing/json_objects.h"

namespace vsocket::kube {
namespace {

using testing::Metadata;
using testing::NamespaceJson;
using testing::PodJson;
using testing::PolicyJson;

class ReplicaTest : public ::testing::Test {
 protected:
  ReplicaTest() {
    for (const Kind kind : kKinds) {
      replica_.BeginList(kind);
      if (kind == Kind::kNamespace) Add(kind, NamespaceJson("default", "1"));
      replica_.EndList(kind);
    }
  }

  static std::pair<Identity, YamlNodePtr> Parse(Kind kind, const std::string& json) {
    auto tree = ParseJson(json, OmittedFieldsOf(kind));
    EXPECT_TRUE(tree.Ok()) << json << tree.Error();
    auto identity = IdentityOf(**tree);
    EXPECT_TRUE(identity.Ok()) << json << identity.Error();
    return {identity.Value(), tree.Value()};
  }
  void Add(Kind kind, const std::string& json) {
    const auto [identity, tree] = Parse(kind, json);
    EXPECT_TRUE(replica_.AddToList(kind, identity, *tree));
  }
  void Put(Kind kind, const std::string& json) {
    const auto [identity, tree] = Parse(kind, json);
    EXPECT_TRUE(replica_.Put(kind, identity, *tree));
  }
  void Remove(Kind kind, const std::string& json) { replica_.Remove(kind, Parse(kind, json).first); }

  // Of the snapshot as it is now.
  model::Pod Pod(std::size_t index) { return replica_.Assemble().state.pods.at(index); }
  model::NetworkPolicy Policy(std::size_t index) { return replica_.Assemble().state.policies.at(index); }

  std::vector<std::string> IpsOf(const std::string& name) {
    std::vector<std::string> ips;
    const auto view = replica_.Assemble();
    for (const model::Pod& pod : view.state.pods) {
      if (pod.name != name) continue;
      for (const auto& ip : pod.ips) ips.push_back(ip.ToString());
    }
    return ips;
  }

  Replica replica_;
};

TEST(Replica, IsCompleteWhenEveryKindHasBeenListed) {
  Replica replica;
  for (const Kind kind : kKinds) {
    EXPECT_FALSE(replica.Complete());
    replica.BeginList(kind);
    EXPECT_FALSE(replica.Complete());
    replica.EndList(kind);
  }
  EXPECT_TRUE(replica.Complete());
}

TEST_F(ReplicaTest, AListTakesForceAsAWhole) {
  Put(Kind::kPod, PodJson("a", "2", "10.0.0.1"));
  replica_.BeginList(Kind::kPod);
  Add(Kind::kPod, PodJson("b", "3", "10.0.0.2"));
  EXPECT_EQ(Pod(0).name, "a");
  replica_.AbandonList(Kind::kPod);
  EXPECT_EQ(replica_.Assemble().state.pods.size(), 1u);
  replica_.BeginList(Kind::kPod);
  Add(Kind::kPod, PodJson("c", "4", "10.0.0.3"));
  replica_.EndList(Kind::kPod);
  ASSERT_EQ(replica_.Assemble().state.pods.size(), 1u);
  EXPECT_EQ(Pod(0).name, "c");
}

TEST_F(ReplicaTest, WhatChangesNothingForUsIsNoChange) {
  Put(Kind::kPod, PodJson("a", "2", "10.0.0.1"));
  const auto version = replica_.Version();
  Put(Kind::kPod, PodJson("a", "3", "10.0.0.1", R"("annotations":{"kubectl.kubernetes.io/x":"y"})"));
  EXPECT_EQ(replica_.Version(), version);
  replica_.BeginList(Kind::kPod);
  Add(Kind::kPod, PodJson("a", "3", "10.0.0.1"));
  replica_.EndList(Kind::kPod);
  EXPECT_EQ(replica_.Version(), version);
  Put(Kind::kPod, PodJson("a", "4", "10.0.0.1", R"("annotations":{"vsocket.io/inject":"true","other":"x"})"));
  EXPECT_NE(replica_.Version(), version);
  const auto annotations = Pod(0).annotations;
  EXPECT_EQ(annotations, (std::map<std::string, std::string>{{"vsocket.io/inject", "true"}})) << "others' are not kept";
}

TEST_F(ReplicaTest, ADeletionIsOfThatObjectOnly) {
  Put(Kind::kPod, PodJson("a", "2", "10.0.0.1"));
  Remove(Kind::kPod, R"({"metadata":{"name":"a","namespace":"default","uid":"another","resourceVersion":"1"}})");
  EXPECT_EQ(replica_.Assemble().state.pods.size(), 1u);
  Remove(Kind::kPod, PodJson("a", "3", "10.0.0.1"));
  EXPECT_EQ(replica_.Assemble().state.pods.size(), 0u);
  Remove(Kind::kPod, PodJson("a", "3", "10.0.0.1"));  // twice does no harm
}

TEST_F(ReplicaTest, AnAddressThatIsReusedBelongsToTheNewPod) {
  Put(Kind::kPod, PodJson("old", "2", "10.0.0.1"));
  Put(Kind::kPod, PodJson("old", "3", "10.0.0.1", R"("deletionTimestamp":"2026-01-01T00:00:00Z")"));
  EXPECT_EQ(IpsOf("old"), std::vector<std::string>{"10.0.0.1"}) << "a terminating pod still counts";
  Put(Kind::kPod, PodJson("new", "4", "10.0.0.1"));
  EXPECT_EQ(IpsOf("old"), std::vector<std::string>());
  EXPECT_EQ(IpsOf("new"), std::vector<std::string>{"10.0.0.1"});
  EXPECT_TRUE(replica_.Assemble().problems.empty());
}

TEST_F(ReplicaTest, AnAddressOfAPodThatIsOverIsFree) {
  Put(Kind::kPod, PodJson("job", "2", "10.0.0.1", "", "Succeeded"));
  Put(Kind::kPod, PodJson("new", "3", "10.0.0.1"));
  const auto view = replica_.Assemble();
  EXPECT_TRUE(Pod(0).finished);
  EXPECT_EQ(IpsOf("new"), std::vector<std::string>{"10.0.0.1"});
  EXPECT_TRUE(view.problems.empty());
}

TEST_F(ReplicaTest, AnAddressOfTwoThatLiveIsAProblemAndCountsForBoth) {
  Put(Kind::kPod, PodJson("a", "2", "10.0.0.1"));
  Put(Kind::kPod, PodJson("b", "3", "10.0.0.1"));
  EXPECT_EQ(IpsOf("a"), IpsOf("b"));
  const auto problems = replica_.Assemble().problems;
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(problems[0].where, "Pod default/b");
}

TEST_F(ReplicaTest, DualStackAndHostNetwork) {
  Put(Kind::kPod, "{" + Metadata("a", "2") + R"(,"status":{"podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"},{"ip":"fd00::1"}]}})");
  EXPECT_EQ(IpsOf("a"), (std::vector<std::string>{"10.0.0.1", "fd00::1"}));
  for (const char* name : {"h1", "h2"}) {
    Put(Kind::kPod, "{" + Metadata(name, "2") + R"(,"spec":{"hostNetwork":true},"status":{"podIP":"192.0.2.1"}})");
  }
  const auto view = replica_.Assemble();
  EXPECT_TRUE(Pod(1).host_network);
  EXPECT_TRUE(view.problems.empty()) << "pods in the host's network share its address";
}

TEST_F(ReplicaTest, AnInvalidPolicyIsolatesWhatItSelects) {
  Put(Kind::kNetworkPolicy, PolicyJson("p", "2", R"("podSelector":{"matchLabels":{"app":"web"}},"ingress":[{}])"));
  EXPECT_EQ(Policy(0).ingress.size(), 1u);
  Put(Kind::kNetworkPolicy, PolicyJson("p", "3", R"("podSelector":{"matchLabels":{"app":"web"}},"ingress":[{"from":[{"service":"x"}]}])"));
  auto view = replica_.Assemble();
  ASSERT_EQ(view.state.policies.size(), 1u);
  EXPECT_TRUE(Policy(0).isolates_ingress && Policy(0).isolates_egress && Policy(0).ingress.empty());
  EXPECT_EQ(Policy(0).pod_selector.match_labels.at("app"), "web");
  ASSERT_EQ(view.problems.size(), 1u);
  EXPECT_EQ(view.problems[0].where, "NetworkPolicy default/p");
  EXPECT_NE(view.problems[0].what.find("unknown field"), std::string::npos) << view.problems[0].what;
  // Not even what it selects can be read: then it is the whole namespace.
  Put(Kind::kNetworkPolicy, PolicyJson("p", "4", R"("podSelector":{"matchExpressions":[{"key":"a","operator":"Near"}]})"));
  view = replica_.Assemble();
  EXPECT_EQ(Policy(0).pod_selector, model::LabelSelector{});
  Put(Kind::kNetworkPolicy, PolicyJson("p", "5", R"("podSelector":{},"ingress":[{}])"));
  EXPECT_TRUE(replica_.Assemble().problems.empty());
}

TEST_F(ReplicaTest, AnInvalidPodIsIsolatedByItself) {
  Put(Kind::kPod, "{" + Metadata("bad", "2", R"("labels":{"a b":"c"})") + R"(,"status":{"podIP":"10.0.0.1"}})");
  Put(Kind::kPod, PodJson("good", "2", "10.0.0.2"));
  const auto view = replica_.Assemble();
  ASSERT_EQ(view.state.policies.size(), 1u);
  const model::NetworkPolicy policy = Policy(0);
  EXPECT_TRUE(policy.isolates_ingress && policy.isolates_egress);
  EXPECT_EQ(policy.pod_selector.match_labels, Pod(0).labels) << "it selects the bad one";
  EXPECT_FALSE(policy.pod_selector.match_labels.empty());
  EXPECT_TRUE(Pod(1).labels.empty());
  EXPECT_EQ(IpsOf("bad"), std::vector<std::string>{"10.0.0.1"});
  EXPECT_EQ(view.problems.size(), 1u);
}

TEST_F(ReplicaTest, AnInvalidOrUnknownNamespaceIsolatesItsPods) {
  Put(Kind::kNamespace, NamespaceJson("default", "2", R"("a b":"c")"));
  auto view = replica_.Assemble();
  ASSERT_EQ(view.state.policies.size(), 1u);
  EXPECT_EQ(Policy(0).ns, "default");
  EXPECT_EQ(view.problems.size(), 1u);
  Put(Kind::kNamespace, NamespaceJson("default", "3", R"("a":"c")"));
  EXPECT_TRUE(replica_.Assemble().state.policies.empty());
  Put(Kind::kPod, R"({"metadata":{"name":"a","namespace":"later","resourceVersion":"3"},"status":{"podIP":"10.0.0.1"}})");
  view = replica_.Assemble();
  ASSERT_EQ(view.state.policies.size(), 1u);
  EXPECT_EQ(Policy(0).ns, "later");
  EXPECT_TRUE(Policy(0).isolates_ingress && Policy(0).isolates_egress);
  EXPECT_TRUE(view.problems.empty()) << "events of different kinds come in no order: nothing is wrong";
  Put(Kind::kNamespace, NamespaceJson("later", "3"));
  EXPECT_TRUE(replica_.Assemble().state.policies.empty());
}

TEST_F(ReplicaTest, ServicesSlicesAndTheNode) {
  Put(Kind::kService, "{" + Metadata("web", "2") +
                          R"(,"spec":{"clusterIP":"10.96.0.1","clusterIPs":["10.96.0.1","fd01::1"],"ports":[{"name":"http","port":80}]}})");
  Put(Kind::kService, "{" + Metadata("headless", "2") + R"(,"spec":{"clusterIP":"None","clusterIPs":["None"]}})");
  Put(Kind::kEndpointSlice, "{" + Metadata("web-x", "2", R"("labels":{"kubernetes.io/service-name":"web"})") +
                                R"(,"addressType":"IPv4","ports":[{"name":"http","port":8080,"protocol":"TCP"}],"endpoints":[
        {"addresses":["10.0.0.1"],"conditions":{"ready":false,"serving":true,"terminating":true},"nodeName":"n1"},
        {"addresses":["10.0.0.2"]}]})");
  Put(Kind::kEndpointSlice, "{" + Metadata("bad", "2") + R"(,"addressType":"IPv4","endpoints":[{"addresses":["10.0.0"]}]})");
  Put(Kind::kNode, R"({"metadata":{"name":"n.1","resourceVersion":"2"},"spec":{"podCIDRs":["10.0.0.0/24"]},
    "status":{"addresses":[{"type":"InternalIP","address":"192.0.2.1"},{"type":"Hostname","address":"n.1"}]}})");
  const auto view = replica_.Assemble();
  ASSERT_EQ(view.state.services.size(), 2u);
  EXPECT_TRUE(view.state.services[0].cluster_ips.empty());
  EXPECT_EQ(view.state.services[1].cluster_ips.size(), 2u);
  EXPECT_EQ(view.state.services[1].ports.at(0).number, 80);
  ASSERT_EQ(view.state.endpoint_slices.size(), 1u);
  const model::EndpointSlice& slice = view.state.endpoint_slices[0];
  EXPECT_EQ(slice.service, "web");
  EXPECT_EQ(slice.ports.at(0).number, 8080);
  EXPECT_TRUE(!slice.endpoints.at(0).ready && slice.endpoints[0].serving && slice.endpoints[0].terminating);
  EXPECT_TRUE(slice.endpoints.at(1).ready && slice.endpoints[1].serving && !slice.endpoints[1].terminating);
  ASSERT_TRUE(view.state.node.has_value());
  EXPECT_EQ(view.state.node->addresses.size(), 1u);
  EXPECT_EQ(view.state.node->pod_cidrs.size(), 1u);
  ASSERT_EQ(view.problems.size(), 1u);
  EXPECT_EQ(view.problems[0].where, "EndpointSlice default/bad");
}

TEST_F(ReplicaTest, OtherNodesAreKnownByTheirPods) {
  const auto on = [](const std::string& name, const std::string& host, const std::string& ip) {
    return "{" + Metadata(name, "2") + R"(,"spec":{"nodeName":")" + host + R"("},"status":{"hostIP":")" + ip + R"("}})";
  };
  Put(Kind::kPod, on("a", "n2", "192.0.2.2"));
  Put(Kind::kPod, on("b", "n1", "192.0.2.1"));
  Put(Kind::kPod, on("c", "n2", "192.0.2.2"));
  Put(Kind::kPod, on("d", "n3", "nowhere"));
  const auto nodes = replica_.Assemble().state.nodes;
  ASSERT_EQ(nodes.size(), 2u);
  EXPECT_EQ(nodes[0].name, "n1");
  EXPECT_EQ(nodes[1].name, "n2");
  ASSERT_EQ(nodes[1].addresses.size(), 1u);
  EXPECT_EQ(nodes[1].addresses[0].ToString(), "192.0.2.2");
}

TEST_F(ReplicaTest, ManyProblemsAreCut) {
  for (int i = 0; i < 100; ++i) Put(Kind::kNetworkPolicy, PolicyJson("p" + std::to_string(i), "2", R"("podSelector":7)"));
  EXPECT_EQ(replica_.Assemble().problems.size(), 51u);
  EXPECT_EQ(replica_.Assemble().state.policies.size(), 100u);
}

}  // namespace
}  // namespace vsocket::kube
