// The Kubernetes objects of one manifest file. Pure: text in, values and errors out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "node-agent/kube/yaml_tree.h"
#include "node-agent/model/cluster.h"

namespace vsocket::kube {

template <typename T>
struct Located {
  T object;
  int line = 0;
};

struct Manifest {
  // The objects without an error, also when other objects of the file have some.
  std::vector<Located<model::Pod>> pods;
  std::vector<Located<model::Namespace>> namespaces;
  std::vector<Located<model::NetworkPolicy>> policies;
  std::vector<Located<model::Node>> nodes;
  std::vector<Located<model::Service>> services;
  std::vector<Located<model::EndpointSlice>> endpoint_slices;
  // One for each NetworkPolicy with an error: what stands in for it while there is no good version (see QuarantinePolicy).
  std::vector<Located<model::NetworkPolicy>> quarantine;
  std::vector<YamlError> errors;
  // Some of the text could not be told to be no NetworkPolicy: it is no YAML from some line on, or an object has no kind. What that part
  // closes is unknown, so no stand-in can be made for it.
  bool unclear = false;
  // Not wrong, but worth a log line: an ignored kind.
  std::vector<YamlError> notes;
};

// Any number of documents, JSON included; `kind: List` (and PodList, NamespaceList, NetworkPolicyList, ServiceList, EndpointSliceList) is
// unpacked.
Manifest ReadManifest(std::string_view text, const YamlLimits& limits = {});

}  // namespace vsocket::kube
