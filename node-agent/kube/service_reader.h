// Services, EndpointSlices and Nodes from a tree (https://kubernetes.io/docs/reference/kubernetes-api/): what the agent needs of them.
//
// As in object_reader.h: valid only when no error was reported to `reader`. Thread safety: pure functions.
#pragma once

#include "node-agent/kube/field_reader.h"
#include "node-agent/model/cluster.h"

namespace vsocket::kube {

// v1 Service. A headless one and one of type ExternalName have no cluster IPs.
model::Service ReadService(const YamlNode& object, FieldReader& reader);
// discovery.k8s.io/v1 EndpointSlice. One of address type FQDN has no endpoints here.
model::EndpointSlice ReadEndpointSlice(const YamlNode& object, FieldReader& reader);
// v1 Node.
model::Node ReadNode(const YamlNode& object, FieldReader& reader);

}  // namespace vsocket::kube
