#include "node-agent/kube/service_reader.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/kube/network_policy_reader.h"
#include "node-agent/kube/object_reader.h"
#include "node-agent/model/address_range.h"

namespace vsocket::kube {
namespace {

constexpr const char* kServiceNameLabel = "kubernetes.io/service-name";
constexpr const char* kAgentAnnotation = "vsocket.io/agent";

std::string At(const std::string& path, std::size_t index) {
  return path + "[" + std::to_string(index) + "]";
}

// Calls `read` with each map of a list and its path; an item that is no map is reported.
template <typename Read>
void ForEachMap(const YamlNode* list, const std::string& path, FieldReader& reader, Read&& read) {
  const YamlNode* sequence = reader.Sequence(list, path);
  if (sequence == nullptr) return;
  for (std::size_t i = 0; i < sequence->items.size(); ++i) {
    if (const YamlNode* item = reader.Map(sequence->items[i].get(), At(path, i))) read(*item, At(path, i));
  }
}

void ReadAddress(const YamlNode* node, const std::string& path, FieldReader& reader, std::vector<model::IpAddress>& out) {
  const auto text = reader.Text(node, path);
  if (!text || text->empty()) return;
  const auto ip = model::IpAddress::Parse(*text);
  if (!ip) {
    reader.Error(node->line, path, "\"" + *text + "\" is not an IP address");
  } else if (std::find(out.begin(), out.end(), *ip) == out.end()) {
    out.push_back(*ip);
  }
}

void ReadAddresses(const YamlNode* list, const std::string& path, FieldReader& reader, std::vector<model::IpAddress>& out) {
  const YamlNode* sequence = reader.Sequence(list, path);
  if (sequence == nullptr) return;
  for (std::size_t i = 0; i < sequence->items.size(); ++i) ReadAddress(sequence->items[i].get(), At(path, i), reader, out);
}

// An address, IPv6 in brackets, and a port. No name: what is resolved can be made to resolve to somewhere else.
bool IsEndpoint(const std::string& text) {
  const auto colon = text.rfind(':');
  if (colon == std::string::npos) return false;
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    return false;
  }
  const std::string port = text.substr(colon + 1);
  unsigned number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  return model::IpAddress::Parse(host).has_value() && error == std::errc() && end == port.data() + port.size() && number >= 1 &&
         number <= 65535;
}

// name, protocol and port of a Service's or a slice's port; a slice may leave the number out: all ports.
model::ServicePort ReadPort(const YamlNode& node, const std::string& path, FieldReader& reader) {
  model::ServicePort port;
  port.name = reader.Text(node.Find("name"), path + ".name").value_or("");
  if (const auto text = reader.Text(node.Find("protocol"), path + ".protocol")) {
    const auto protocol = ParseProtocol(*text);
    if (!protocol) reader.Error(node.line, path + ".protocol", "\"" + *text + "\" is not TCP, UDP or SCTP");
    port.protocol = protocol.value_or(model::Protocol::kTcp);
  }
  if (const auto number = reader.Integer(node.Find("port"), path + ".port", 1, 65535)) port.number = static_cast<std::uint16_t>(*number);
  return port;
}

model::Endpoint ReadEndpoint(const YamlNode& node, const std::string& path, FieldReader& reader) {
  model::Endpoint endpoint;
  ReadAddresses(node.Find("addresses"), path + ".addresses", reader, endpoint.addresses);
  endpoint.node = reader.Text(node.Find("nodeName"), path + ".nodeName").value_or("");
  if (const YamlNode* conditions = reader.Map(node.Find("conditions"), path + ".conditions")) {
    // A condition that is left out: ready is true, serving is as ready, terminating is false.
    endpoint.ready = reader.Boolean(conditions->Find("ready"), path + ".conditions.ready").value_or(true);
    endpoint.serving = reader.Boolean(conditions->Find("serving"), path + ".conditions.serving").value_or(endpoint.ready);
    endpoint.terminating = reader.Boolean(conditions->Find("terminating"), path + ".conditions.terminating").value_or(false);
  }
  return endpoint;
}

}  // namespace

model::Service ReadService(const YamlNode& object, FieldReader& reader) {
  Metadata metadata = ReadMetadata(object, Scope::kNamespaced, reader);
  model::Service service;
  service.ns = std::move(metadata.ns);
  service.name = std::move(metadata.name);
  const YamlNode* spec = reader.Map(object.Find("spec"), "spec");
  if (spec == nullptr) return service;
  const auto read_ip = [&](const YamlNode* node, const std::string& path) {
    if (const auto text = reader.Text(node, path); text && *text != "None") ReadAddress(node, path, reader, service.cluster_ips);
  };
  read_ip(spec->Find("clusterIP"), "spec.clusterIP");
  if (const YamlNode* ips = reader.Sequence(spec->Find("clusterIPs"), "spec.clusterIPs")) {
    for (std::size_t i = 0; i < ips->items.size(); ++i) read_ip(ips->items[i].get(), At("spec.clusterIPs", i));
  }
  ForEachMap(spec->Find("ports"), "spec.ports", reader,
             [&](const YamlNode& node, const std::string& path) { service.ports.push_back(ReadPort(node, path, reader)); });
  return service;
}

model::EndpointSlice ReadEndpointSlice(const YamlNode& object, FieldReader& reader) {
  Metadata metadata = ReadMetadata(object, Scope::kNamespaced, reader);
  model::EndpointSlice slice;
  slice.ns = std::move(metadata.ns);
  slice.name = std::move(metadata.name);
  if (const auto label = metadata.labels.find(kServiceNameLabel); label != metadata.labels.end()) slice.service = label->second;
  if (reader.Text(object.Find("addressType"), "addressType") == "FQDN") return slice;
  ForEachMap(object.Find("endpoints"), "endpoints", reader,
             [&](const YamlNode& node, const std::string& path) { slice.endpoints.push_back(ReadEndpoint(node, path, reader)); });
  ForEachMap(object.Find("ports"), "ports", reader,
             [&](const YamlNode& node, const std::string& path) { slice.ports.push_back(ReadPort(node, path, reader)); });
  return slice;
}

model::Node ReadNode(const YamlNode& object, FieldReader& reader) {
  model::Node node;
  const Metadata metadata = ReadMetadata(object, Scope::kCluster, reader);
  node.name = metadata.name;
  if (const auto agent = metadata.annotations.find(kAgentAnnotation); agent != metadata.annotations.end()) {
    if (!IsEndpoint(agent->second)) {
      reader.Error(object.Find("metadata")->line, std::string("metadata.annotations.") + kAgentAnnotation,
                   "\"" + agent->second + "\" is not ADDRESS:PORT");
    }
    node.agent_endpoint = agent->second;
  }
  if (const YamlNode* spec = reader.Map(object.Find("spec"), "spec")) {
    if (const YamlNode* list = reader.Sequence(spec->Find("podCIDRs"), "spec.podCIDRs")) {
      for (std::size_t i = 0; i < list->items.size(); ++i) {
        const auto text = reader.Text(list->items[i].get(), At("spec.podCIDRs", i));
        const auto cidr = text ? model::ParseCidr(*text) : std::nullopt;
        if (cidr) {
          node.pod_cidrs.push_back(*cidr);
        } else {
          reader.Error(list->items[i]->line, At("spec.podCIDRs", i), "must be a CIDR");
        }
      }
    }
  }
  if (const YamlNode* status = reader.Map(object.Find("status"), "status")) {
    ForEachMap(status->Find("addresses"), "status.addresses", reader, [&](const YamlNode& entry, const std::string& path) {
      const auto type = reader.Text(entry.Find("type"), path + ".type");
      if (type == "InternalIP" || type == "ExternalIP") ReadAddress(entry.Find("address"), path + ".address", reader, node.addresses);
    });
  }
  return node;
}

}  // namespace vsocket::kube
