#include "node-agent/kube/resource.h"

#include <algorithm>
#include <utility>

#include "node-agent/kube/field_reader.h"
#include "node-agent/kube/object_reader.h"
#include "node-agent/kube/service_reader.h"
#include "node-agent/model/bandwidth.h"

namespace vsocket::kube {
namespace {

// On pods that cannot be read, in place of their labels, so that a policy can select just one of them. No API server takes such a label
// from anybody: its prefix is no DNS name.
constexpr const char* kUnreadablePod = "vsocket.io//unreadable";
constexpr std::size_t kShownErrors = 3;  // an object

std::string Sentence(const std::vector<YamlError>& errors) {
  std::string text;
  for (std::size_t i = 0; i < errors.size() && i < kShownErrors; ++i) text += (i == 0 ? "" : "; ") + errors[i].what;
  if (errors.size() > kShownErrors) text += "; and " + std::to_string(errors.size() - kShownErrors) + " more errors";
  return text;
}

std::string TextOf(const YamlNode* map, std::string_view field) {
  const YamlNode* node = map == nullptr ? nullptr : map->Find(field);
  return node != nullptr && node->kind == YamlNode::Kind::kScalar ? node->scalar : std::string();
}

// The agent acts on its own annotations and on the bandwidth ones; the others may be anything, and large.
void KeepOurs(std::map<std::string, std::string>& annotations) {
  std::erase_if(annotations, [](const auto& annotation) {
    return annotation.first.rfind("vsocket.io/", 0) != 0 && annotation.first != model::kIngressBandwidth &&
           annotation.first != model::kEgressBandwidth;
  });
}

model::NetworkPolicy IsolatingPolicy(const std::string& ns, const std::string& name) {
  model::NetworkPolicy policy;
  policy.ns = ns;
  policy.name = name;
  policy.isolates_ingress = policy.isolates_egress = true;
  return policy;
}

void StorePod(const Identity& identity, const YamlNode& object, std::vector<YamlError>& errors, StoredObject& stored) {
  FieldReader reader(errors);
  model::Pod pod = ReadPod(object, reader);
  KeepOurs(pod.annotations);
  if (!errors.empty()) {
    pod.ns = identity.ns;
    pod.name = identity.name;
    pod.uid = identity.uid;
    pod.labels = {{kUnreadablePod, identity.name}};
    pod.ports.clear();
    stored.quarantine = IsolatingPolicy(identity.ns, "(unreadable pod " + identity.name + ")");
    stored.quarantine->pod_selector.match_labels = pod.labels;
  }
  stored.host_ip = model::IpAddress::Parse(TextOf(object.Find("status"), "hostIP"));
  stored.object = std::move(pod);
}

void StoreNamespace(const Identity& identity, const YamlNode& object, std::vector<YamlError>& errors, StoredObject& stored) {
  FieldReader reader(errors);
  model::Namespace ns = ReadNamespace(object, reader);
  KeepOurs(ns.annotations);
  if (!errors.empty()) {
    ns = {identity.name, {}, {}};
    stored.quarantine = IsolateNamespace(identity.name);
  }
  stored.object = std::move(ns);
}

void StorePolicy(const Identity& identity, const YamlNode& object, std::vector<YamlError>& errors, StoredObject& stored) {
  FieldReader reader(errors);
  std::vector<std::string> notes;
  model::NetworkPolicy policy = ReadNetworkPolicy(object, reader, notes);
  if (!errors.empty()) {
    policy.ns = identity.ns;
    policy.name = identity.name;
    policy = StandIn(object, policy);
  }
  stored.object = std::move(policy);
}

template <typename Read>
void StoreIfValid(const YamlNode& object, std::vector<YamlError>& errors, StoredObject& stored, Read read) {
  FieldReader reader(errors);
  auto value = read(object, reader);
  if (errors.empty()) stored.object = std::move(value);
}

}  // namespace

const char* KindName(Kind kind) {
  switch (kind) {
    case Kind::kPod:
      return "Pod";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kNetworkPolicy:
      return "NetworkPolicy";
    case Kind::kService:
      return "Service";
    case Kind::kEndpointSlice:
      return "EndpointSlice";
    case Kind::kNode:
      return "Node";
  }
  return "";
}

const char* PluralName(Kind kind) {
  switch (kind) {
    case Kind::kPod:
      return "pods";
    case Kind::kNamespace:
      return "namespaces";
    case Kind::kNetworkPolicy:
      return "networkpolicies";
    case Kind::kService:
      return "services";
    case Kind::kEndpointSlice:
      return "endpointslices";
    case Kind::kNode:
      return "nodes";
  }
  return "";
}

std::string ListPath(Kind kind, const std::string& node_name) {
  // Selectors are URL-encoded: %3D is '=', %21 is '!', %2C is ',', %2F is '/'.
  switch (kind) {
    case Kind::kPod:
      return "/api/v1/pods?fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed";
    case Kind::kNetworkPolicy:
      return "/apis/networking.k8s.io/v1/networkpolicies?";
    case Kind::kEndpointSlice:
      return "/apis/discovery.k8s.io/v1/endpointslices?labelSelector="
             "kubernetes.io%2Fservice-name%2C%21service.kubernetes.io%2Fheadless";
    case Kind::kNode:
      return "/api/v1/nodes?fieldSelector=metadata.name%3D" + node_name;  // a DNS name: nothing in it needs encoding
    case Kind::kNamespace:
    case Kind::kService:
      break;
  }
  return std::string("/api/v1/") + PluralName(kind) + "?";
}

Result<Identity, std::string> IdentityOf(const YamlNode& object) {
  const YamlNode* metadata = object.Find("metadata");
  Identity identity{TextOf(metadata, "namespace"), TextOf(metadata, "name"), TextOf(metadata, "uid"), TextOf(metadata, "resourceVersion")};
  if (identity.name.empty()) return Failure<std::string>("an object without a name");
  if (identity.resource_version.empty()) return Failure<std::string>("an object without a resourceVersion");
  return identity;
}

StoredObjectPtr Store(Kind kind, const Identity& identity, const YamlNode& object) {
  auto stored = std::make_shared<StoredObject>();
  stored->uid = identity.uid;
  stored->resource_version = identity.resource_version;
  stored->terminating = !TextOf(object.Find("metadata"), "deletionTimestamp").empty();
  std::vector<YamlError> errors;
  switch (kind) {
    case Kind::kPod:
      StorePod(identity, object, errors, *stored);
      break;
    case Kind::kNamespace:
      StoreNamespace(identity, object, errors, *stored);
      break;
    case Kind::kNetworkPolicy:
      StorePolicy(identity, object, errors, *stored);
      break;
    case Kind::kService:
      StoreIfValid(object, errors, *stored, ReadService);
      break;
    case Kind::kEndpointSlice:
      StoreIfValid(object, errors, *stored, ReadEndpointSlice);
      break;
    case Kind::kNode:
      StoreIfValid(object, errors, *stored, ReadNode);
      break;
  }
  stored->problem = Sentence(errors);
  return stored;
}

model::NetworkPolicy IsolateNamespace(const std::string& ns) {
  return IsolatingPolicy(ns, "(unreadable namespace " + ns + ")");
}

const std::vector<std::string_view>& OmittedFieldsOf(Kind kind) {
  static const std::vector<std::string_view> kOfAll{"metadata.managedFields"};
  static const std::vector<std::string_view> kOfPods{"metadata.managedFields",
                                                     "spec.volumes",
                                                     "spec.affinity",
                                                     "spec.tolerations",
                                                     "spec.containers.env",
                                                     "spec.containers.volumeMounts",
                                                     "spec.containers.command",
                                                     "spec.containers.args",
                                                     "spec.initContainers.env",
                                                     "spec.initContainers.volumeMounts",
                                                     "status.conditions",
                                                     "status.containerStatuses",
                                                     "status.initContainerStatuses"};
  static const std::vector<std::string_view> kOfNodes{"metadata.managedFields", "status.images", "status.conditions", "status.volumesInUse",
                                                      "status.volumesAttached"};
  if (kind == Kind::kPod) return kOfPods;
  return kind == Kind::kNode ? kOfNodes : kOfAll;
}

}  // namespace vsocket::kube
