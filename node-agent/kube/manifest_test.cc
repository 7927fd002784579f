#include "node-agent/kube/manifest.h"

#include <gtest/gtest.h>

#include <string>

#include "node-agent/model/address_range.h"

namespace vsocket::kube {
namespace {

std::string Errors(const Manifest& manifest) {
  std::string all;
  for (const YamlError& error : manifest.errors) all += std::to_string(error.line) + ": " + error.what + "\n";
  return all;
}

TEST(ManifestTest, ReadsAPod) {
  const Manifest manifest = ReadManifest(R"(apiVersion: v1
kind: Pod
metadata:
  name: web-1
  namespace: shop
  uid: 7c6d
  labels: {app: web, tier: ""}
  annotations: {vsocket.io/inject: "true"}
  creationTimestamp: null
spec:
  nodeName: n1
  hostNetwork: true
  someFutureField: [1]
  initContainers:
  - name: once
    ports: [{containerPort: 1}]
  - name: sidecar
    restartPolicy: Always
    ports: [{containerPort: 15000, name: proxy}]
  containers:
  - name: web
    ports:
    - containerPort: 8080
      name: http
    - containerPort: 53
      protocol: UDP
status:
  phase: Running
  podIP: 10.0.0.5
  podIPs: [{ip: 10.0.0.5}, {ip: "fd00::5"}]
)");
  ASSERT_EQ(Errors(manifest), "");
  ASSERT_EQ(manifest.pods.size(), 1u);
  const model::Pod& pod = manifest.pods[0].object;
  EXPECT_EQ(pod.ns, "shop");
  EXPECT_EQ(pod.name, "web-1");
  EXPECT_EQ(pod.uid, "7c6d");
  EXPECT_EQ(pod.labels, (model::Labels{{"app", "web"}, {"tier", ""}}));
  EXPECT_EQ(pod.annotations.at("vsocket.io/inject"), "true");
  EXPECT_EQ(pod.node, "n1");
  EXPECT_TRUE(pod.host_network);
  EXPECT_FALSE(pod.finished);
  EXPECT_EQ(pod.ips, (std::vector{*model::IpAddress::Parse("10.0.0.5"), *model::IpAddress::Parse("fd00::5")}));
  EXPECT_EQ(pod.ports,
            (std::vector<model::ContainerPort>{
                {"http", 8080, model::Protocol::kTcp}, {"", 53, model::Protocol::kUdp}, {"proxy", 15000, model::Protocol::kTcp}}));
}

TEST(ManifestTest, PhasesAndDefaultNamespace) {
  for (const auto& [phase, finished] :
       {std::pair{"Pending", false}, {"Running", false}, {"Succeeded", true}, {"Failed", true}, {"Unknown", false}}) {
    const Manifest manifest = ReadManifest(std::string("{apiVersion: v1, kind: Pod, metadata: {name: x}, status: {phase: ") + phase + "}}");
    ASSERT_EQ(manifest.pods.size(), 1u) << Errors(manifest);
    EXPECT_EQ(manifest.pods[0].object.finished, finished) << phase;
    EXPECT_EQ(manifest.pods[0].object.ns, "default");
  }
}

TEST(ManifestTest, ReadsListsNamespacesAndIgnoresOthersWithANote) {
  const Manifest manifest = ReadManifest(R"(apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}
- {apiVersion: v1, kind: Service, metadata: {name: s}}
- {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s}}
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}
---
{"apiVersion": "v1", "kind": "PodList", "items": [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}]}
---
{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: c}, spec: {selector: all()}}
)");
  ASSERT_EQ(Errors(manifest), "");
  EXPECT_EQ(manifest.namespaces.size(), 1u);
  EXPECT_EQ(manifest.pods.size(), 1u);
  EXPECT_TRUE(manifest.policies.empty());
  ASSERT_EQ(manifest.notes.size(), 2u);
  EXPECT_EQ(manifest.notes[0].what, "ignored: an object of kind Deployment");
  EXPECT_EQ(manifest.notes[0].line, 7);
}

TEST(ManifestTest, ReadsNodesAndWhereTheirAgentsAre) {
  const Manifest manifest = ReadManifest(R"({apiVersion: v1, kind: Node, metadata: {name: node-a}, status: {addresses: [
  {type: Hostname, address: node-a}, {type: InternalIP, address: 10.77.0.1}, {type: InternalIP, address: "fd00::1"}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: node-b, annotations: {vsocket.io/agent: "[fd00::2]:9999"}}}
---
{apiVersion: v1, kind: Node, metadata: {name: node-c, annotations: {vsocket.io/agent: "10.77.0.3:9999"}}}
)");
  ASSERT_EQ(Errors(manifest), "");
  ASSERT_EQ(manifest.nodes.size(), 3u);
  EXPECT_EQ(manifest.nodes[0].object.name, "node-a");
  EXPECT_EQ(manifest.nodes[0].object.addresses, (std::vector{*model::IpAddress::Parse("10.77.0.1"), *model::IpAddress::Parse("fd00::1")}));
  EXPECT_EQ(manifest.nodes[0].object.agent_endpoint, "");
  EXPECT_EQ(manifest.nodes[1].object.agent_endpoint, "[fd00::2]:9999");
  EXPECT_EQ(manifest.nodes[2].object.agent_endpoint, "10.77.0.3:9999");
  for (const char* endpoint : {"10.77.0.3", "10.77.0.3:", "10.77.0.3:0", "10.77.0.3:65536", "10.77.0.3:1x", "node-c:9999", "fd00::2:9999",
                               "[10.77.0.3:9999", ":9999", "unix:/run/x"}) {
    const Manifest wrong = ReadManifest(std::string("{apiVersion: v1, kind: Node, metadata: {name: c, annotations: {vsocket.io/agent: \"") +
                                        endpoint + "\"}}}");
    EXPECT_TRUE(wrong.nodes.empty()) << endpoint;
    EXPECT_NE(Errors(wrong).find("is not ADDRESS:PORT"), std::string::npos) << endpoint << Errors(wrong);
  }
}

TEST(ManifestTest, ReadsServicesAndEndpointSlices) {
  const Manifest manifest = ReadManifest(R"(
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSliceList
items:
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
  addressType: IPv4
  endpoints: [{addresses: [10.1.0.1]}]
  ports: [{name: http, port: 8080}]
---
{apiVersion: v1, kind: Service, metadata: {name: bad}, spec: {clusterIP: nowhere}}
---
{apiVersion: v1, kind: EndpointSlice, metadata: {name: bad}}
)");
  ASSERT_EQ(manifest.services.size(), 1u);
  EXPECT_EQ(manifest.services[0].object.cluster_ips.at(0).ToString(), "10.96.0.1");
  ASSERT_EQ(manifest.endpoint_slices.size(), 1u);
  EXPECT_EQ(manifest.endpoint_slices[0].object.service, "web");
  EXPECT_EQ(manifest.endpoint_slices[0].object.ports.at(0).number, 8080);
  EXPECT_EQ(manifest.errors.size(), 2u) << Errors(manifest);
}

TEST(ManifestTest, ObjectsThatAreWrong) {
  const struct {
    const char* text;
    const char* error;
  } cases[] = {
      {"- 1\n", "1: must be a Kubernetes object"},
      {"apiVersion: v1\n", "1: kind: is required"},
      {"kind: Pod\nmetadata: {name: x}\n", "1: apiVersion: must be v1"},
      {"apiVersion: v1\nkind: Pod\n", "1: metadata.name: is required"},
      {"apiVersion: v1\nkind: Pod\nmetadata: {name: Bad_Name}\n", "3: metadata.name: \"Bad_Name\" is not a name"},
      {"apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: A}\n", "3: metadata.namespace"},
      {"apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n  labels:\n    a: 1\n",
       "6: metadata.labels.a: must be a text, is a number (put it in quotes)"},
      {"apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n  labels: {a: b c}\n", "5: metadata.labels.a: \"b c\" is not a label value"},
      {"apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n  labels: {-a: b}\n", "5: metadata.labels: \"-a\" is not a label key"},
      {"apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {hostNetwork: maybe}\n", "4: spec.hostNetwork: must be true or false"},
      {"apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{ports: [{containerPort: 0}]}]}\n",
       "4: spec.containers[0].ports[0].containerPort: must be a number from 1 to 65535"},
      {"apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{ports: [{name: x}]}]}\n", "containerPort: is required"},
      {"apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nstatus: {podIP: 10.0.0.500}\n",
       "4: status.podIP: \"10.0.0.500\" is not an IP address"},
      {"apiVersion: v1\nkind: List\n", "1: items: is required in a List"},
      {"apiVersion: v1\nkind: Pod\nmetadata: [", "3: "},
  };
  for (const auto& c : cases) {
    const Manifest manifest = ReadManifest(c.text);
    EXPECT_NE(Errors(manifest).find(c.error), std::string::npos) << c.text << "says:\n" << Errors(manifest);
    EXPECT_TRUE(manifest.pods.empty()) << c.text;
  }
}

TEST(ManifestTest, AGoodObjectBesideABadOneIsStillRead) {
  const Manifest manifest =
      ReadManifest("{apiVersion: v1, kind: Pod, metadata: {name: good}}\n---\n{apiVersion: v1, kind: Pod, metadata: {name: BAD}}\n");
  EXPECT_EQ(manifest.pods.size(), 1u);
  EXPECT_EQ(manifest.errors.size(), 1u);
  EXPECT_EQ(manifest.errors[0].line, 3);
}

}  // namespace
}  // namespace vsocket::kube
