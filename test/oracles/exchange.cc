#include "test/oracles/exchange.h"

#include <stdexcept>
#include <utility>

#include "node-agent/kube/manifest.h"
#include "node-agent/model/address_range.h"
#include "node-agent/model/policy_words.h"

namespace vsocket::oracles {
namespace {

using nlohmann::json;

model::Protocol ProtocolFrom(const std::string& name) {
  for (const auto protocol : {model::Protocol::kTcp, model::Protocol::kUdp, model::Protocol::kSctp}) {
    if (name == model::ProtocolName(protocol)) return protocol;
  }
  throw std::runtime_error("no protocol: " + name);
}

model::IpAddress AddressFrom(const std::string& text) {
  const auto address = model::IpAddress::Parse(text);
  if (!address) throw std::runtime_error("no address: " + text);
  return *address;
}

json ToJson(const model::LabelSelector& selector) {
  static const char* const kOperators[] = {"In", "NotIn", "Exists", "DoesNotExist"};
  json out = json::object();
  if (!selector.match_labels.empty()) out["matchLabels"] = selector.match_labels;
  for (const auto& term : selector.match_expressions) {
    json expression = {{"key", term.key}, {"operator", kOperators[static_cast<int>(term.op)]}};
    if (!term.values.empty()) expression["values"] = term.values;
    out["matchExpressions"].push_back(expression);
  }
  return out;
}

json ToJson(const model::PolicyPeer& peer) {
  json out = json::object();
  if (peer.pod_selector) out["podSelector"] = ToJson(*peer.pod_selector);
  if (peer.namespace_selector) out["namespaceSelector"] = ToJson(*peer.namespace_selector);
  if (peer.ip_block) {
    out["ipBlock"]["cidr"] = ToString(peer.ip_block->cidr);
    for (const auto& hole : peer.ip_block->except) out["ipBlock"]["except"].push_back(ToString(hole));
  }
  return out;
}

json ToJson(const model::PolicyPort& port) {
  json out = {{"protocol", model::ProtocolName(port.protocol)}};
  if (!port.name.empty()) out["port"] = port.name;
  if (port.number) out["port"] = *port.number;
  if (port.end) out["endPort"] = *port.end;
  return out;
}

json ToJson(const std::vector<model::PolicyRule>& rules, const char* peers) {
  json out = json::array();
  for (const auto& rule : rules) {
    json item = json::object();
    for (const auto& peer : rule.peers) item[peers].push_back(ToJson(peer));
    for (const auto& port : rule.ports) item["ports"].push_back(ToJson(port));
    out.push_back(item);
  }
  return out;
}

// As the API server hands it out: policyTypes filled in, and nothing where there are no rules.
json ToJson(const model::NetworkPolicy& policy) {
  json spec = {{"podSelector", ToJson(policy.pod_selector)}, {"policyTypes", json::array()}};
  if (policy.isolates_ingress) spec["policyTypes"].push_back("Ingress");
  if (policy.isolates_egress) spec["policyTypes"].push_back("Egress");
  if (!policy.ingress.empty()) spec["ingress"] = ToJson(policy.ingress, "from");
  if (!policy.egress.empty()) spec["egress"] = ToJson(policy.egress, "to");
  return {{"apiVersion", "networking.k8s.io/v1"},
          {"kind", "NetworkPolicy"},
          {"metadata", {{"namespace", policy.ns}, {"name", policy.name}}},
          {"spec", spec}};
}

json ToJson(const model::Pod& pod) {
  json container = {{"name", "main"}, {"image", "none"}};
  for (const auto& port : pod.ports) {
    json item = {{"containerPort", port.number}, {"protocol", model::ProtocolName(port.protocol)}};
    if (!port.name.empty()) item["name"] = port.name;
    container["ports"].push_back(item);
  }
  json status = {{"phase", pod.finished ? "Succeeded" : "Running"}};
  for (const auto& ip : pod.ips) status["podIPs"].push_back({{"ip", ip.ToString()}});
  if (!pod.ips.empty()) status["podIP"] = pod.ips[0].ToString();
  json spec = {{"nodeName", "node"}, {"containers", json::array({container})}};
  if (pod.host_network) spec["hostNetwork"] = true;
  json metadata = {{"namespace", pod.ns}, {"name", pod.name}};
  if (!pod.labels.empty()) metadata["labels"] = pod.labels;
  return {{"apiVersion", "v1"}, {"kind", "Pod"}, {"metadata", metadata}, {"spec", spec}, {"status", status}};
}

json ToJson(const model::Namespace& ns) {
  auto labels = ns.labels;
  labels["kubernetes.io/metadata.name"] = ns.name;
  return {{"apiVersion", "v1"}, {"kind", "Namespace"}, {"metadata", {{"name", ns.name}, {"labels", labels}}}};
}

template <typename T>
void Take(const std::vector<kube::Located<T>>& objects, std::vector<model::Shared<T>>& out) {
  for (const auto& located : objects) out.push_back(located.object);
}

}  // namespace

Case CaseFrom(const json& in) {
  Case one;
  one.name = in.at("name");
  json list = {{"apiVersion", "v1"}, {"kind", "List"}, {"items", json::array()}};
  for (const char* kind : {"namespaces", "pods", "policies"}) {
    if (!in.contains(kind) || in.at(kind).is_null()) continue;
    for (const json& object : in.at(kind)) list["items"].push_back(object);
  }
  const kube::Manifest manifest = kube::ReadManifest(list.dump());
  if (!manifest.errors.empty()) throw std::runtime_error(one.name + ": " + manifest.errors[0].what);
  Take(manifest.namespaces, one.state.namespaces);
  Take(manifest.pods, one.state.pods);
  Take(manifest.policies, one.state.policies);
  if (in.contains("nodes")) {
    for (const json& node : in.at("nodes")) one.nodes.push_back(AddressFrom(node));
  }
  if (in.at("flows").is_null()) return one;
  for (const json& flow : in.at("flows")) {
    one.flows.push_back({AddressFrom(flow.at("source")), AddressFrom(flow.at("destination")), flow.at("port").get<std::uint16_t>(),
                         ProtocolFrom(flow.at("protocol"))});
  }
  return one;
}

json ToJson(const Case& one) {
  json out = {
      {"name", one.name}, {"namespaces", json::array()}, {"pods", json::array()}, {"policies", json::array()}, {"flows", json::array()}};
  for (const auto& ns : one.state.namespaces) out["namespaces"].push_back(ToJson(*ns));
  for (const auto& pod : one.state.pods) out["pods"].push_back(ToJson(*pod));
  for (const auto& policy : one.state.policies) out["policies"].push_back(ToJson(*policy));
  for (const auto& node : one.nodes) out["nodes"].push_back(node.ToString());
  for (const auto& flow : one.flows) {
    out["flows"].push_back({{"source", flow.source.ToString()},
                            {"destination", flow.destination.ToString()},
                            {"port", flow.destination_port},
                            {"protocol", model::ProtocolName(flow.protocol)}});
  }
  return out;
}

}  // namespace vsocket::oracles
