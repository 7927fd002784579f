// A YAML stream as plain values with line numbers, bounded whatever the input. The YAML library stays behind this header.
//
// JSON is read by the same parser (YAML 1.2 section 1.3: JSON is a subset).
// Bounds: 16 MiB of text, 64 levels, 1,000,000 nodes counted with every alias expanded, so that anchors that refer to anchors ("billion
// laughs") are refused before anything walks them. Aliased nodes are shared, not copied.
//
// Thread safety: nodes are immutable once returned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace vsocket::kube {

struct YamlLimits {
  std::size_t bytes = std::size_t{16} << 20;
  std::size_t depth = 64;
  std::size_t nodes = 1'000'000;
};

struct YamlNode;
using YamlNodePtr = std::shared_ptr<const YamlNode>;

struct YamlNode {
  enum class Kind : std::uint8_t { kNull, kScalar, kSequence, kMap };
  struct Entry {
    std::string key;
    int key_line = 0;
    YamlNodePtr value;
  };

  Kind kind = Kind::kNull;
  int line = 0;         // 1-based
  bool quoted = false;  // a quoted or block scalar: always a string
  std::string scalar;
  std::vector<YamlNodePtr> items;  // kSequence
  std::vector<Entry> entries;      // kMap, in file order, keys unique
  std::size_t weight = 1;          // nodes at and below this one, aliases expanded
  std::size_t height = 1;          // levels at and below this one, aliases expanded

  // Null when it is no map or has no such key.
  [[nodiscard]] const YamlNode* Find(std::string_view key) const;
};

struct YamlError {
  int line = 0;  // 1-based; 0: the file as a whole
  std::string what;
};

// The documents before the first error, and that error. Empty documents are left out.
struct YamlStream {
  std::vector<YamlNodePtr> documents;
  std::vector<YamlError> errors;  // at most one
};

YamlStream ParseYaml(std::string_view text, const YamlLimits& limits = {});

// What a plain (unquoted) scalar is by the core schema as the API server reads it (YAML 1.1 booleans included).
enum class ScalarType : std::uint8_t { kString, kBool, kInteger, kFloat };
ScalarType TypeOf(const YamlNode& scalar);

}  // namespace vsocket::kube
