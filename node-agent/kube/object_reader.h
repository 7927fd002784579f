// Pods, Namespaces and NetworkPolicies from a tree, whether it was YAML in a file or JSON from an API server: both are judged alike.
//
// Each reader returns what it could read; the object is valid only when no error was reported to `reader`.
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "node-agent/kube/field_reader.h"
#include "node-agent/model/cluster.h"

namespace vsocket::kube {

enum class Scope : std::uint8_t { kNamespaced, kNamespace, kCluster };  // kNamespace: a Namespace itself, whose name is a DNS label

struct Metadata {
  std::string name, uid;
  std::string ns;  // "default" when it is left out; empty for what is in no namespace
  model::Labels labels;
  std::map<std::string, std::string> annotations;
};
Metadata ReadMetadata(const YamlNode& object, Scope scope, FieldReader& reader);

model::Pod ReadPod(const YamlNode& object, FieldReader& reader);
model::Namespace ReadNamespace(const YamlNode& object, FieldReader& reader);
// `notes`: not wrong, but worth a log line.
model::NetworkPolicy ReadNetworkPolicy(const YamlNode& object, FieldReader& reader, std::vector<std::string>& notes);
// What is in force instead of a NetworkPolicy with errors, of which `invalid` is what could be read (QuarantinePolicy under its name).
model::NetworkPolicy StandIn(const YamlNode& object, const model::NetworkPolicy& invalid);

}  // namespace vsocket::kube
