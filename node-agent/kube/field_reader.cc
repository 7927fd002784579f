#include "node-agent/kube/field_reader.h"

#include <algorithm>
#include <charconv>

namespace vsocket::kube {
namespace {

bool IsLowerOrDigit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}
bool IsAlphanumeric(char c) {
  return IsLowerOrDigit(c) || (c >= 'A' && c <= 'Z');
}

// A label name or value: alphanumeric at both ends, '-', '_' and '.' between.
bool IsQualifiedName(std::string_view text) {
  return !text.empty() && text.size() <= 63 && IsAlphanumeric(text.front()) && IsAlphanumeric(text.back()) &&
         std::all_of(text.begin(), text.end(), [](char c) { return IsAlphanumeric(c) || c == '-' || c == '_' || c == '.'; });
}

const char* KindName(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kSequence:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a map";
    case YamlNode::Kind::kScalar:
      break;
  }
  switch (TypeOf(node)) {
    case ScalarType::kBool:
      return "a boolean";
    case ScalarType::kInteger:
    case ScalarType::kFloat:
      return "a number";
    case ScalarType::kString:
      break;
  }
  return "a text";
}

}  // namespace

std::optional<std::string> FieldReader::Text(const YamlNode* node, const std::string& path) {
  if (Absent(node)) return std::nullopt;
  if (node->kind != YamlNode::Kind::kScalar || TypeOf(*node) != ScalarType::kString) {
    const char* hint = node->kind == YamlNode::Kind::kScalar ? " (put it in quotes)" : "";
    Error(node->line, path, std::string("must be a text, is ") + KindName(*node) + hint);
    return std::nullopt;
  }
  return node->scalar;
}

std::optional<bool> FieldReader::Boolean(const YamlNode* node, const std::string& path) {
  if (Absent(node)) return std::nullopt;
  if (node->kind != YamlNode::Kind::kScalar || TypeOf(*node) != ScalarType::kBool) {
    Error(node->line, path, std::string("must be true or false, is ") + KindName(*node));
    return std::nullopt;
  }
  const char first = node->scalar[0];
  const bool is_on = node->scalar.size() == 2 && (first == 'o' || first == 'O') && (node->scalar[1] == 'n' || node->scalar[1] == 'N');
  return first == 't' || first == 'T' || first == 'y' || first == 'Y' || is_on;
}

std::optional<std::int64_t> FieldReader::Integer(const YamlNode* node, const std::string& path, std::int64_t lowest, std::int64_t highest) {
  if (Absent(node)) return std::nullopt;
  std::int64_t value = 0;
  bool decimal = node->kind == YamlNode::Kind::kScalar && TypeOf(*node) == ScalarType::kInteger;
  if (decimal) {
    const std::string& text = node->scalar;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    // "010" is eight to YAML 1.1 and ten to YAML 1.2: nobody should have to know which.
    decimal = error == std::errc() && end == text.data() + text.size() && (text.size() == 1 || text[0] != '0');
  }
  if (!decimal || value < lowest || value > highest) {
    Error(node->line, path, "must be a number from " + std::to_string(lowest) + " to " + std::to_string(highest));
    return std::nullopt;
  }
  return value;
}

std::map<std::string, std::string> FieldReader::TextMap(const YamlNode* node, const std::string& path) {
  std::map<std::string, std::string> out;
  const YamlNode* map = Map(node, path);
  if (map == nullptr) return out;
  for (const YamlNode::Entry& entry : map->entries) {
    const std::string at = path + "." + entry.key;
    if (const auto text = Text(entry.value.get(), at)) {
      out.emplace(entry.key, *text);
    } else if (Absent(entry.value.get())) {
      out.emplace(entry.key, "");  // as the API server reads a null in a map of strings
    }
  }
  return out;
}

const YamlNode* FieldReader::Map(const YamlNode* node, const std::string& path) {
  if (Absent(node)) return nullptr;
  if (node->kind == YamlNode::Kind::kMap) return node;
  Error(node->line, path, std::string("must be a map, is ") + KindName(*node));
  return nullptr;
}

const YamlNode* FieldReader::Sequence(const YamlNode* node, const std::string& path) {
  if (Absent(node)) return nullptr;
  if (node->kind == YamlNode::Kind::kSequence) return node;
  Error(node->line, path, std::string("must be a list, is ") + KindName(*node));
  return nullptr;
}

void FieldReader::OnlyFields(const YamlNode& map, const std::string& path, std::initializer_list<std::string_view> known) {
  for (const YamlNode::Entry& entry : map.entries) {
    if (std::find(known.begin(), known.end(), entry.key) != known.end()) continue;
    std::string choices;
    for (const std::string_view name : known) choices += (choices.empty() ? "" : ", ") + std::string(name);
    Error(entry.key_line, path.empty() ? entry.key : path + "." + entry.key, "unknown field (known here: " + choices + ")");
  }
}

bool IsDnsLabel(std::string_view text) {
  return !text.empty() && text.size() <= 63 && IsLowerOrDigit(text.front()) && IsLowerOrDigit(text.back()) &&
         std::all_of(text.begin(), text.end(), [](char c) { return IsLowerOrDigit(c) || c == '-'; });
}

bool IsDnsSubdomain(std::string_view text) {
  if (text.empty() || text.size() > 253) return false;
  while (true) {
    const auto dot = text.find('.');
    // Labels of a subdomain have no limit of their own beyond the whole's; only their letters are checked.
    const std::string_view label = text.substr(0, dot);
    if (label.empty() || !IsLowerOrDigit(label.front()) || !IsLowerOrDigit(label.back()) ||
        !std::all_of(label.begin(), label.end(), [](char c) { return IsLowerOrDigit(c) || c == '-'; })) {
      return false;
    }
    if (dot == std::string_view::npos) return true;
    text.remove_prefix(dot + 1);
  }
}

bool IsLabelKey(std::string_view text) {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos) return IsQualifiedName(text);
  return IsDnsSubdomain(text.substr(0, slash)) && IsQualifiedName(text.substr(slash + 1));
}

bool IsLabelValue(std::string_view text) {
  return text.empty() || IsQualifiedName(text);
}

bool IsPortName(std::string_view text) {
  return !text.empty() && text.size() <= 15 && text.find("--") == std::string_view::npos && text.front() != '-' && text.back() != '-' &&
         std::all_of(text.begin(), text.end(), [](char c) { return IsLowerOrDigit(c) || c == '-'; }) &&
         std::any_of(text.begin(), text.end(), [](char c) { return c >= 'a' && c <= 'z'; });
}

}  // namespace vsocket::kube
