// Typed access to a YAML tree, with errors that say which field, in which line, and what it should have been.
//
// A field path is spelled as in kubectl's messages: "spec.ingress[0].from[1].ipBlock.cidr".
// Thread safety: none; one reader a document.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/kube/yaml_tree.h"

namespace vsocket::kube {

class FieldReader {
 public:
  explicit FieldReader(std::vector<YamlError>& errors) : errors_(errors) {}

  void Error(int line, const std::string& path, const std::string& what) { errors_.push_back({line, path + ": " + what}); }

  // Each returns nothing after reporting when the node has another type. A null `node` (absent) or a YAML null is "not there": nothing, no
  // error.
  std::optional<std::string> Text(const YamlNode* node, const std::string& path);
  std::optional<bool> Boolean(const YamlNode* node, const std::string& path);
  std::optional<std::int64_t> Integer(const YamlNode* node, const std::string& path, std::int64_t lowest, std::int64_t highest);
  std::map<std::string, std::string> TextMap(const YamlNode* node, const std::string& path);
  // Null when absent or of another type (reported).
  const YamlNode* Map(const YamlNode* node, const std::string& path);
  const YamlNode* Sequence(const YamlNode* node, const std::string& path);

  // Reports each field of `map` that is not in `known`.
  void OnlyFields(const YamlNode& map, const std::string& path, std::initializer_list<std::string_view> known);

  [[nodiscard]] std::size_t ErrorCount() const { return errors_.size(); }

 private:
  bool Absent(const YamlNode* node) const { return node == nullptr || node->kind == YamlNode::Kind::kNull; }
  std::vector<YamlError>& errors_;
};

// Syntax rules of the Kubernetes API (k8s.io/apimachinery/pkg/util/validation as documented under "Object Names and IDs" and "Labels and
// Selectors").
bool IsDnsLabel(std::string_view text);      // RFC 1123 label, at most 63
bool IsDnsSubdomain(std::string_view text);  // RFC 1123 subdomain, at most 253
bool IsLabelKey(std::string_view text);      // [prefix/]name
bool IsLabelValue(std::string_view text);    // may be empty, at most 63
bool IsPortName(std::string_view text);      // IANA service name, RFC 6335 section 5.1: at most 15, a letter somewhere, no "--"

}  // namespace vsocket::kube
