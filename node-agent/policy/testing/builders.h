// Short spellings for test clusters.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/model/address_range.h"
#include "node-agent/model/cluster.h"
#include "node-agent/model/verdict.h"

namespace vsocket::policy::testing {

inline model::IpAddress Ip(const std::string& text) {
  return model::IpAddress::Parse(text).value();
}

inline model::Pod MakePod(const std::string& ns, const std::string& name, const std::string& ip, model::Labels labels = {},
                          std::vector<model::ContainerPort> ports = {}) {
  model::Pod pod;
  pod.ns = ns;
  pod.name = name;
  pod.ips = {Ip(ip)};
  pod.labels = std::move(labels);
  pod.ports = std::move(ports);
  return pod;
}

inline model::LabelSelector Select(model::Labels labels = {}) {
  return {std::move(labels), {}};
}
inline model::PolicyPeer Pods(model::Labels labels = {}) {
  return {Select(std::move(labels)), {}, {}};
}
inline model::PolicyPeer Namespaces(model::Labels labels = {}) {
  return {{}, Select(std::move(labels)), {}};
}
inline model::PolicyPeer PodsIn(model::Labels pods, model::Labels namespaces) {
  return {Select(std::move(pods)), Select(std::move(namespaces)), {}};
}
inline model::PolicyPeer Block(const std::string& cidr, const std::vector<std::string>& except = {}) {
  model::IpBlock block{model::ParseCidr(cidr).value(), {}};
  for (const auto& hole : except) block.except.push_back(model::ParseCidr(hole).value());
  return {{}, {}, block};
}

inline model::PolicyPort Port(std::uint16_t number, model::Protocol protocol = model::Protocol::kTcp) {
  return {protocol, "", number, {}};
}
inline model::PolicyPort Ports(std::uint16_t first, std::uint16_t last) {
  return {model::Protocol::kTcp, "", first, last};
}
inline model::PolicyPort Named(const std::string& name, model::Protocol protocol = model::Protocol::kTcp) {
  return {protocol, name, {}, {}};
}
inline model::PolicyPort Every(model::Protocol protocol) {
  return {protocol, "", {}, {}};
}

inline model::NetworkPolicy Ingress(const std::string& ns, const std::string& name, model::LabelSelector selector,
                                    std::vector<model::PolicyRule> rules) {
  model::NetworkPolicy policy;
  policy.ns = ns;
  policy.name = name;
  policy.pod_selector = std::move(selector);
  policy.ingress = std::move(rules);
  return policy;
}

inline model::NetworkPolicy Egress(const std::string& ns, const std::string& name, model::LabelSelector selector,
                                   std::vector<model::PolicyRule> rules) {
  model::NetworkPolicy policy;
  policy.ns = ns;
  policy.name = name;
  policy.pod_selector = std::move(selector);
  policy.isolates_ingress = false;
  policy.isolates_egress = true;
  policy.egress = std::move(rules);
  return policy;
}

inline model::Flow Tcp(const std::string& source, const std::string& destination, std::uint16_t port) {
  return {Ip(source), Ip(destination), port, model::Protocol::kTcp};
}

}  // namespace vsocket::policy::testing
