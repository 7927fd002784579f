#include "node-agent/kube/object_reader.h"

#include <algorithm>
#include <utility>

#include "node-agent/kube/network_policy_reader.h"

namespace vsocket::kube {
namespace {

std::string At(const std::string& path, std::size_t index) {
  return path + "[" + std::to_string(index) + "]";
}

void ReadContainerPorts(const YamlNode& container, const std::string& path, FieldReader& reader, model::Pod& pod) {
  const YamlNode* ports = reader.Sequence(container.Find("ports"), path + ".ports");
  if (ports == nullptr) return;
  for (std::size_t i = 0; i < ports->items.size(); ++i) {
    const std::string at = At(path + ".ports", i);
    const YamlNode* node = reader.Map(ports->items[i].get(), at);
    if (node == nullptr) continue;
    model::ContainerPort port;
    const auto number = reader.Integer(node->Find("containerPort"), at + ".containerPort", 1, 65535);
    if (!number && node->Find("containerPort") == nullptr) reader.Error(node->line, at + ".containerPort", "is required");
    port.number = static_cast<std::uint16_t>(number.value_or(0));
    if (const auto name = reader.Text(node->Find("name"), at + ".name"); name && !name->empty()) {
      if (!IsPortName(*name)) reader.Error(node->line, at + ".name", "\"" + *name + "\" is not a port name: at most 15 of a-z, 0-9 and -");
      port.name = *name;
    }
    if (const auto text = reader.Text(node->Find("protocol"), at + ".protocol")) {
      const auto protocol = ParseProtocol(*text);
      if (!protocol) reader.Error(node->line, at + ".protocol", "\"" + *text + "\" is not TCP, UDP or SCTP");
      port.protocol = protocol.value_or(model::Protocol::kTcp);
    }
    pod.ports.push_back(std::move(port));
  }
}

void ReadContainers(const YamlNode* list, const std::string& path, bool only_sidecars, FieldReader& reader, model::Pod& pod) {
  const YamlNode* containers = reader.Sequence(list, path);
  if (containers == nullptr) return;
  for (std::size_t i = 0; i < containers->items.size(); ++i) {
    const std::string at = At(path, i);
    const YamlNode* container = reader.Map(containers->items[i].get(), at);
    if (container == nullptr) continue;
    // An init container that restarts always runs beside the others and listens like them; any other is over before they start.
    if (only_sidecars && reader.Text(container->Find("restartPolicy"), at + ".restartPolicy") != "Always") continue;
    ReadContainerPorts(*container, at, reader, pod);
  }
}

void ReadAddress(const YamlNode* node, const std::string& path, FieldReader& reader, model::Pod& pod) {
  const auto text = reader.Text(node, path);
  if (!text || text->empty()) return;
  const auto ip = model::IpAddress::Parse(*text);
  if (!ip) {
    reader.Error(node->line, path, "\"" + *text + "\" is not an IP address");
  } else if (std::find(pod.ips.begin(), pod.ips.end(), *ip) == pod.ips.end()) {
    pod.ips.push_back(*ip);
  }
}

}  // namespace

Metadata ReadMetadata(const YamlNode& object, Scope scope, FieldReader& reader) {
  Metadata metadata;
  const YamlNode* node = reader.Map(object.Find("metadata"), "metadata");
  if (node == nullptr) {
    reader.Error(object.line, "metadata.name", "is required");
    return metadata;
  }
  const auto name = reader.Text(node->Find("name"), "metadata.name");
  if (!name || !(scope == Scope::kNamespace ? IsDnsLabel(*name) : IsDnsSubdomain(*name))) {
    reader.Error(node->line, "metadata.name", name ? "\"" + *name + "\" is not a name: a-z, 0-9 and - (RFC 1123)" : "is required");
  }
  metadata.name = name.value_or("");
  if (scope == Scope::kNamespaced) {
    metadata.ns = "default";
    if (const auto ns = reader.Text(node->Find("namespace"), "metadata.namespace"); ns && !ns->empty()) {
      if (!IsDnsLabel(*ns))
        reader.Error(node->line, "metadata.namespace", "\"" + *ns + "\" is not a namespace name: a-z, 0-9 and - (RFC 1123)");
      metadata.ns = *ns;
    }
  }
  metadata.uid = reader.Text(node->Find("uid"), "metadata.uid").value_or("");
  metadata.labels = reader.TextMap(node->Find("labels"), "metadata.labels");
  for (const auto& [key, value] : metadata.labels) {
    const int line = node->Find("labels")->line;
    if (!IsLabelKey(key)) reader.Error(line, "metadata.labels", "\"" + key + "\" is not a label key");
    if (!IsLabelValue(value)) reader.Error(line, "metadata.labels." + key, "\"" + value + "\" is not a label value");
  }
  metadata.annotations = reader.TextMap(node->Find("annotations"), "metadata.annotations");
  return metadata;
}

model::Pod ReadPod(const YamlNode& object, FieldReader& reader) {
  Metadata metadata = ReadMetadata(object, Scope::kNamespaced, reader);
  model::Pod pod;
  pod.ns = std::move(metadata.ns);
  pod.name = std::move(metadata.name);
  pod.uid = std::move(metadata.uid);
  pod.labels = std::move(metadata.labels);
  pod.annotations = std::move(metadata.annotations);
  if (const YamlNode* spec = reader.Map(object.Find("spec"), "spec")) {
    pod.host_network = reader.Boolean(spec->Find("hostNetwork"), "spec.hostNetwork").value_or(false);
    pod.node = reader.Text(spec->Find("nodeName"), "spec.nodeName").value_or("");
    ReadContainers(spec->Find("containers"), "spec.containers", false, reader, pod);
    ReadContainers(spec->Find("initContainers"), "spec.initContainers", true, reader, pod);
  }
  if (const YamlNode* status = reader.Map(object.Find("status"), "status")) {
    const std::string phase = reader.Text(status->Find("phase"), "status.phase").value_or("");
    pod.finished = phase == "Succeeded" || phase == "Failed";
    ReadAddress(status->Find("podIP"), "status.podIP", reader, pod);
    if (const YamlNode* ips = reader.Sequence(status->Find("podIPs"), "status.podIPs")) {
      for (std::size_t i = 0; i < ips->items.size(); ++i) {
        const std::string at = At("status.podIPs", i);
        if (const YamlNode* entry = reader.Map(ips->items[i].get(), at)) ReadAddress(entry->Find("ip"), at + ".ip", reader, pod);
      }
    }
  }
  return pod;
}

model::Namespace ReadNamespace(const YamlNode& object, FieldReader& reader) {
  Metadata metadata = ReadMetadata(object, Scope::kNamespace, reader);
  return {std::move(metadata.name), std::move(metadata.labels), std::move(metadata.annotations)};
}

model::NetworkPolicy ReadNetworkPolicy(const YamlNode& object, FieldReader& reader, std::vector<std::string>& notes) {
  Metadata metadata = ReadMetadata(object, Scope::kNamespaced, reader);
  model::NetworkPolicy policy = ReadNetworkPolicySpec(object, reader, notes);
  policy.ns = std::move(metadata.ns);
  policy.name = std::move(metadata.name);
  return policy;
}

model::NetworkPolicy StandIn(const YamlNode& object, const model::NetworkPolicy& invalid) {
  model::NetworkPolicy policy = QuarantinePolicy(object);
  policy.ns = invalid.ns;
  policy.name = invalid.name;
  return policy;
}

}  // namespace vsocket::kube
