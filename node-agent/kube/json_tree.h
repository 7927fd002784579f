// One JSON text as the tree that the field readers work on. Stricter than YAML, which is what directories hold: a text is quoted, a number
// is not, and nothing is guessed. The JSON library stays behind this header.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "node-agent/kube/yaml_tree.h"

namespace vsocket::kube {

// Fields to leave out, as paths without the positions in lists: "spec.containers.env". What lies below them is checked to be JSON, and not
// kept.
using OmittedFields = std::vector<std::string_view>;

// A JSON object (RFC 8259), each key of a map once, within the limits of depth and nodes. All lines are 1.
Result<YamlNodePtr, std::string> ParseJson(std::string_view text, const OmittedFields& omitted = {}, const YamlLimits& limits = {});

}  // namespace vsocket::kube
