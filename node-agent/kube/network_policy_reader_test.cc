#include "node-agent/kube/network_policy_reader.h"

#include <gtest/gtest.h>

#include <string>

#include "node-agent/kube/manifest.h"
#include "node-agent/model/address_range.h"

namespace vsocket::kube {
namespace {

// A policy with this spec, which begins in line 4.
Manifest WithSpec(const std::string& spec) {
  return ReadManifest("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\n" + spec);
}
model::NetworkPolicy Good(const std::string& spec) {
  const Manifest manifest = WithSpec(spec);
  EXPECT_TRUE(manifest.errors.empty()) << spec << "\n" << manifest.errors[0].line << ": " << manifest.errors[0].what;
  return manifest.policies.empty() ? model::NetworkPolicy{} : manifest.policies[0].object;
}

TEST(NetworkPolicyReaderTest, ReadsEveryField) {
  const auto policy = Good(R"(spec:
  podSelector:
    matchLabels: {app: db}
    matchExpressions:
    - {key: tier, operator: In, values: [a, b]}
    - {key: example.com/old, operator: DoesNotExist}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - podSelector: {}
      namespaceSelector: {matchLabels: {team: x}}
    - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
    ports:
    - {port: 5432}
    - {protocol: UDP, port: dns}
    - {protocol: SCTP}
    - {port: 100, endPort: 200}
  egress:
  - {}
)");
  EXPECT_EQ(policy.ns, "shop");
  EXPECT_EQ(policy.pod_selector.match_labels.at("app"), "db");
  ASSERT_EQ(policy.pod_selector.match_expressions.size(), 2u);
  EXPECT_EQ(policy.pod_selector.match_expressions[0].values, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(policy.isolates_ingress && policy.isolates_egress);
  ASSERT_EQ(policy.ingress.size(), 1u);
  ASSERT_EQ(policy.ingress[0].peers.size(), 2u);
  EXPECT_TRUE(policy.ingress[0].peers[0].pod_selector && policy.ingress[0].peers[0].namespace_selector);
  EXPECT_EQ(model::ToString(policy.ingress[0].peers[1].ip_block->except[0]), "10.1.0.0/16");
  using model::Protocol;
  EXPECT_EQ(
      policy.ingress[0].ports,
      (std::vector<model::PolicyPort>{
          {Protocol::kTcp, "", 5432, {}}, {Protocol::kUdp, "dns", {}, {}}, {Protocol::kSctp, "", {}, {}}, {Protocol::kTcp, "", 100, 200}}));
  EXPECT_EQ(policy.egress, std::vector<model::PolicyRule>(1));
}

// Case 10 of the twenty: the defaults of policyTypes.
TEST(NetworkPolicyReaderTest, Case10PolicyTypesDefaults) {
  auto policy = Good("spec: {podSelector: {}}\n");
  EXPECT_TRUE(policy.isolates_ingress && !policy.isolates_egress);
  policy = Good("spec: {podSelector: {}, egress: [{}]}\n");
  EXPECT_TRUE(policy.isolates_ingress && policy.isolates_egress);
  policy = Good("spec: {podSelector: {}, egress: []}\n");
  EXPECT_TRUE(policy.isolates_ingress && !policy.isolates_egress);
  policy = Good("spec: {podSelector: {}, policyTypes: [Egress]}\n");
  EXPECT_TRUE(!policy.isolates_ingress && policy.isolates_egress);
  const Manifest without_effect = WithSpec("spec: {podSelector: {}, policyTypes: [Egress], ingress: [{}]}\n");
  ASSERT_EQ(without_effect.notes.size(), 1u);
  EXPECT_EQ(without_effect.notes[0].what, "NetworkPolicy shop/p: its ingress rules have no effect: policyTypes has no Ingress");
}

TEST(NetworkPolicyReaderTest, ErrorsNameFieldLineAndReason) {
  // An item that is not there has the line of what follows it.
  const struct {
    const char* spec;
    int line;
    const char* error;
  } cases[] = {
      {"sepc: {podSelector: {}}\n", 4, "sepc: unknown field"},
      {"", 1, "spec: is required"},
      {"spec: {}\n", 4, "spec.podSelector: is required"},
      {"spec:\n  podSelector: {}\n  ingres:\n  - {}\n", 6,
       "spec.ingres: unknown field (known here: podSelector, policyTypes, ingress, egress)"},
      {"spec:\n  podSelector:\n    app: web\n", 6, "spec.podSelector.app: unknown field"},
      {"spec:\n  podSelector: {matchLabels: {a: 1}}\n", 5, "spec.podSelector.matchLabels.a: must be a text, is a number"},
      {"spec:\n  podSelector: {matchLabels: {a: 'b c'}}\n", 5, "is not a label value"},
      {"spec:\n  podSelector: {matchLabels: {a b: c}}\n", 5, "is not a label key"},
      {"spec:\n  podSelector: {matchExpressions: [{key: a, operator: in, values: [b]}]}\n", 5,
       "operator: must be In, NotIn, Exists or DoesNotExist"},
      {"spec:\n  podSelector: {matchExpressions: [{key: a, operator: In}]}\n", 5, "values: must not be empty for the operator In"},
      {"spec:\n  podSelector: {matchExpressions: [{key: a, operator: NotIn, values: []}]}\n", 5, "values: must not be empty"},
      {"spec:\n  podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}\n", 5,
       "values: must be empty for the operator Exists"},
      {"spec:\n  podSelector: {matchExpressions: [{operator: Exists}]}\n", 5, "key: must be a label key"},
      {"spec:\n  podSelector: {matchExpressions: [{key: a, operator: In, values: ['b c']}]}\n", 5, "is not a label value"},
      {"spec:\n  podSelector: {matchExpressions: [x]}\n", 5, "matchExpressions[0]: must be a map"},
      {"spec:\n  podSelector: {}\n  policyTypes: [ingress]\n", 6, "spec.policyTypes[0]: must be Ingress or Egress"},
      {"spec:\n  podSelector: {}\n  policyTypes: [Ingress, Egress, Ingress]\n", 6, "must not have more than two"},
      {"spec:\n  podSelector: {}\n  ingress: {}\n", 6, "spec.ingress: must be a list, is a map"},
      {"spec:\n  podSelector: {}\n  ingress:\n  -\n", 8, "spec.ingress[0]: must be a map"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - to: []\n", 7, "spec.ingress[0].to: unknown field (known here: ports, from)"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - from:\n    -\n", 9, "spec.ingress[0].from[0]: must be a map"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - from:\n    - {}\n", 8, "spec.ingress[0].from[0]: must have a podSelector"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - from:\n    - podSelector:\n", 8, "must have a podSelector"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - from:\n    - podSelectors: {}\n", 8, "podSelectors: unknown field"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - from:\n    - ipBlock: {cidr: 10.0.0.0/8}\n      podSelector: {}\n", 8,
       "ipBlock cannot stand beside"},
      {"spec:\n  podSelector: {}\n  egress:\n  - to: [{ipBlock: {cidr: 10.0.0.0/33}}]\n", 7, "ipBlock.cidr: \"10.0.0.0/33\" is not a CIDR"},
      {"spec:\n  podSelector: {}\n  egress:\n  - to: [{ipBlock: {}}]\n", 7, "ipBlock.cidr: is required"},
      {"spec:\n  podSelector: {}\n  egress:\n  - to: [{ipBlock: {cidr: 10.0.0.0/8, expect: [10.1.0.0/16]}}]\n", 7, "expect: unknown field"},
      {"spec:\n  podSelector: {}\n  egress:\n  - to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]\n", 7,
       "must be a strict part of 10.0.0.0/8"},
      {"spec:\n  podSelector: {}\n  egress:\n  - to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]\n", 7, "must be a strict part"},
      {"spec:\n  podSelector: {}\n  egress:\n  - to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.1]}}]\n", 7,
       "except[0]: must be a CIDR"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - ports: [{port: 0}]\n", 7, "port: must be a number from 1 to 65535"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - ports: [{port: 65536}]\n", 7, "port: must be a number from 1 to 65535"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - ports: [{port: 8.5}]\n", 7, "port: must be a number"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - ports: [{port: \"80\"}]\n", 7, "\"80\" is not a port name"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - ports: [{port: HTTP}]\n", 7, "\"HTTP\" is not a port name"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - ports: [{port: a--b}]\n", 7, "is not a port name"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - ports: [{port: abcdefghijklmnop}]\n", 7, "is not a port name"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - ports: [{protocol: tcp}]\n", 7, "protocol: \"tcp\" is not TCP, UDP or SCTP"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - ports: [{endPort: 90}]\n", 7, "endPort: needs a numeric port"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - ports: [{port: http, endPort: 90}]\n", 7, "endPort: needs a numeric port"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - ports: [{port: 91, endPort: 90}]\n", 7, "endPort: must not be less than port 91"},
      {"spec:\n  podSelector: {}\n  ingress:\n  - ports: [{port: 1, endport: 90}]\n", 7, "endport: unknown field"},
  };
  for (const auto& c : cases) {
    const Manifest manifest = WithSpec(c.spec);
    bool found = false;
    std::string all;
    for (const YamlError& error : manifest.errors) {
      found = found || (error.line == c.line && error.what.find(c.error) != std::string::npos);
      all += std::to_string(error.line) + ": " + error.what + "\n";
    }
    EXPECT_TRUE(found) << c.spec << "wants " << c.line << ": " << c.error << "\nsays\n" << all;
    EXPECT_TRUE(manifest.policies.empty()) << c.spec;
    EXPECT_EQ(manifest.quarantine.size(), 1u) << c.spec;
  }
}

TEST(NetworkPolicyReaderTest, AnotherApiVersionIsAnError) {
  const Manifest manifest =
      ReadManifest("apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: {}}\n");
  EXPECT_EQ(manifest.errors.size(), 1u);
  EXPECT_EQ(manifest.quarantine.size(), 1u);
}

TEST(NetworkPolicyReaderTest, QuarantineSelectsWhatTheBrokenPolicySelects) {
  const Manifest narrow = WithSpec("spec: {podSelector: {matchLabels: {app: db}}, ingress: [{form: []}]}\n");
  ASSERT_EQ(narrow.quarantine.size(), 1u);
  const model::NetworkPolicy& policy = narrow.quarantine[0].object;
  EXPECT_EQ(policy.pod_selector.match_labels.at("app"), "db");
  EXPECT_TRUE(policy.isolates_ingress && policy.isolates_egress && policy.ingress.empty() && policy.egress.empty());
  EXPECT_EQ(policy.ns, "shop");
  EXPECT_EQ(policy.name, "p");
  const Manifest wide = WithSpec("spec: {podSelector: {matchLabel: {app: db}}}\n");
  EXPECT_EQ(wide.quarantine[0].object.pod_selector, model::LabelSelector{});
}

}  // namespace
}  // namespace vsocket::kube
