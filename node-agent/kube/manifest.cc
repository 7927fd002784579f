#include "node-agent/kube/manifest.h"

#include <algorithm>
#include <utility>

#include "node-agent/kube/field_reader.h"
#include "node-agent/kube/object_reader.h"
#include "node-agent/kube/service_reader.h"

namespace vsocket::kube {
namespace {

constexpr const char* kPolicyApi = "networking.k8s.io/v1";

class ManifestReader {
 public:
  explicit ManifestReader(Manifest& out) : out_(out) {}

  void ReadObject(const YamlNode& object) {
    if (object.kind != YamlNode::Kind::kMap) {
      out_.errors.push_back({object.line, "must be a Kubernetes object: a map with apiVersion, kind and metadata"});
      out_.unclear = true;
      return;
    }
    FieldReader reader(out_.errors);
    const std::size_t errors_before = out_.errors.size();
    const auto kind = reader.Text(object.Find("kind"), "kind");
    if (!kind) {
      if (out_.errors.size() == errors_before) out_.errors.push_back({object.line, "kind: is required"});
      out_.unclear = true;
      return;
    }
    const std::string api = reader.Text(object.Find("apiVersion"), "apiVersion").value_or("");
    if (*kind == "List" || *kind == "PodList" || *kind == "NamespaceList" || *kind == "NetworkPolicyList" || *kind == "ServiceList" ||
        *kind == "EndpointSliceList") {
      ReadList(object, *kind, reader);
    } else if (*kind == "NetworkPolicy") {
      ReadPolicy(object, api, reader, errors_before);
    } else if (*kind == "Pod" && RequireApi(object, api, "v1", reader)) {
      model::Pod pod = ReadPod(object, reader);
      if (out_.errors.size() == errors_before) out_.pods.push_back({std::move(pod), object.line});
    } else if (*kind == "Namespace" && RequireApi(object, api, "v1", reader)) {
      model::Namespace ns = ReadNamespace(object, reader);
      if (out_.errors.size() == errors_before) out_.namespaces.push_back({std::move(ns), object.line});
    } else if (*kind == "Node" && RequireApi(object, api, "v1", reader)) {
      model::Node node = ReadNode(object, reader);
      if (out_.errors.size() == errors_before) out_.nodes.push_back({std::move(node), object.line});
    } else if (*kind == "Service" && RequireApi(object, api, "v1", reader)) {
      model::Service service = ReadService(object, reader);
      if (out_.errors.size() == errors_before) out_.services.push_back({std::move(service), object.line});
    } else if (*kind == "EndpointSlice" && RequireApi(object, api, "discovery.k8s.io/v1", reader)) {
      model::EndpointSlice slice = ReadEndpointSlice(object, reader);
      if (out_.errors.size() == errors_before) out_.endpoint_slices.push_back({std::move(slice), object.line});
    } else if (*kind != "Pod" && *kind != "Namespace" && *kind != "Node" && *kind != "Service" && *kind != "EndpointSlice") {
      out_.notes.push_back({object.line, "ignored: an object of kind " + *kind});
    }
  }

 private:
  static bool RequireApi(const YamlNode& object, const std::string& api, const char* expected, FieldReader& reader) {
    if (api == expected) return true;
    reader.Error(object.line, "apiVersion", "must be " + std::string(expected) + ", is \"" + api + "\"");
    return false;
  }

  // Members of a typed list may leave out their own kind; nobody writes such files, so they are held to full objects.
  void ReadList(const YamlNode& object, const std::string& kind, FieldReader& reader) {
    if (const YamlNode* items = reader.Sequence(object.Find("items"), "items")) {
      for (const YamlNodePtr& item : items->items) ReadObject(*item);
      return;
    }
    if (object.Find("items") == nullptr) reader.Error(object.line, "items", "is required in a " + kind);
    out_.unclear = true;
  }

  void ReadPolicy(const YamlNode& object, const std::string& api, FieldReader& reader, std::size_t errors_before) {
    // Calico has a kind of the same name, which means something else.
    if (api.find("projectcalico.org/") != std::string::npos) {
      out_.notes.push_back({object.line, "ignored: a NetworkPolicy of " + api});
      return;
    }
    RequireApi(object, api, kPolicyApi, reader);
    std::vector<std::string> notes;
    model::NetworkPolicy policy = ReadNetworkPolicy(object, reader, notes);
    for (const std::string& note : notes)
      out_.notes.push_back({object.line, "NetworkPolicy " + policy.ns + "/" + policy.name + ": " + note});
    const bool valid = out_.errors.size() == errors_before;
    if (!valid) policy = StandIn(object, policy);
    (valid ? out_.policies : out_.quarantine).push_back({std::move(policy), object.line});
  }

  Manifest& out_;
};

}  // namespace

Manifest ReadManifest(std::string_view text, const YamlLimits& limits) {
  Manifest manifest;
  YamlStream stream = ParseYaml(text, limits);
  ManifestReader reader(manifest);
  for (const YamlNodePtr& document : stream.documents) reader.ReadObject(*document);
  manifest.unclear = manifest.unclear || !stream.errors.empty();
  manifest.errors.insert(manifest.errors.end(), std::make_move_iterator(stream.errors.begin()),
                         std::make_move_iterator(stream.errors.end()));
  return manifest;
}

}  // namespace vsocket::kube
