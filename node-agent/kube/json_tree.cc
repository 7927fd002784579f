#include "node-agent/kube/json_tree.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

namespace vsocket::kube {
namespace {

// Builds the tree from the parser's events; each event returns whether to go on.
class TreeBuilder : public nlohmann::json_sax<nlohmann::json> {
 public:
  TreeBuilder(const OmittedFields& omitted, const YamlLimits& limits) : omitted_(omitted), limits_(limits) {}

  YamlNodePtr TakeRoot() { return std::move(root_); }
  [[nodiscard]] const std::string& Error() const { return error_; }

  bool null() override { return Leaf(YamlNode::Kind::kNull, {}, false); }
  bool boolean(bool value) override { return Leaf(YamlNode::Kind::kScalar, value ? "true" : "false", false); }
  bool number_integer(number_integer_t value) override { return Leaf(YamlNode::Kind::kScalar, std::to_string(value), false); }
  bool number_unsigned(number_unsigned_t value) override { return Leaf(YamlNode::Kind::kScalar, std::to_string(value), false); }
  bool number_float(number_float_t, const string_t& text) override { return Leaf(YamlNode::Kind::kScalar, text, false); }
  bool string(string_t& value) override { return Leaf(YamlNode::Kind::kScalar, std::move(value), true); }
  bool binary(binary_t&) override { return Refuse("binary data"); }  // no text format has any
  bool start_object(std::size_t) override { return Open(YamlNode::Kind::kMap); }
  bool end_object() override { return Close(); }
  bool start_array(std::size_t) override { return Open(YamlNode::Kind::kSequence); }
  bool end_array() override { return Close(); }

  bool key(string_t& value) override {
    if (omitting_ > 0) return true;
    OpenCollection& map = open_.back();
    if (!map.keys.insert(value).second) return Refuse("the field \"" + value.substr(0, 100) + "\" is here twice");
    map.key = std::move(value);
    omit_next_ = Omitted(map);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return Refuse("no JSON from byte " + std::to_string(position) + " on");
  }

 private:
  struct OpenCollection {
    std::shared_ptr<YamlNode> node;
    std::string path;  // of the collection itself, "" at the top
    std::string key;
    std::set<std::string, std::less<>> keys;
  };

  bool Refuse(std::string what) {
    error_ = std::move(what);
    return false;
  }

  static std::string PathOfNext(const OpenCollection& parent) {
    if (parent.node->kind == YamlNode::Kind::kSequence) return parent.path;
    return parent.path.empty() ? parent.key : parent.path + "." + parent.key;
  }

  [[nodiscard]] bool Omitted(const OpenCollection& map) const {
    return !omitted_.empty() && std::find(omitted_.begin(), omitted_.end(), PathOfNext(map)) != omitted_.end();
  }

  bool Leaf(YamlNode::Kind kind, std::string text, bool quoted) {
    if (omitting_ > 0 || std::exchange(omit_next_, false)) return true;
    if (open_.empty()) return Refuse("not an object");
    if (++nodes_ > limits_.nodes) return Refuse("more than " + std::to_string(limits_.nodes) + " values");
    auto node = std::make_shared<YamlNode>();
    node->kind = kind;
    node->line = 1;
    node->scalar = std::move(text);
    node->quoted = quoted;
    Attach(std::move(node));
    return true;
  }

  bool Open(YamlNode::Kind kind) {
    if (omitting_ > 0 || std::exchange(omit_next_, false)) {
      ++omitting_;
      return open_.size() + omitting_ <= limits_.depth || RefuseDepth();
    }
    if (open_.size() >= limits_.depth) return RefuseDepth();
    if (open_.empty() && kind != YamlNode::Kind::kMap) return Refuse("not an object");
    if (++nodes_ > limits_.nodes) return Refuse("more than " + std::to_string(limits_.nodes) + " values");
    OpenCollection next;
    next.node = std::make_shared<YamlNode>();
    next.node->kind = kind;
    next.node->line = 1;
    if (!open_.empty()) next.path = PathOfNext(open_.back());
    open_.push_back(std::move(next));
    return true;
  }

  bool RefuseDepth() { return Refuse("nested more than " + std::to_string(limits_.depth) + " levels deep"); }

  bool Close() {
    if (omitting_ > 0) {
      --omitting_;
      return true;
    }
    std::shared_ptr<YamlNode> done = std::move(open_.back().node);
    open_.pop_back();
    Attach(std::move(done));
    return true;
  }

  void Attach(std::shared_ptr<YamlNode> node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    OpenCollection& parent = open_.back();
    if (parent.node->kind == YamlNode::Kind::kSequence) {
      parent.node->items.push_back(std::move(node));
    } else {
      parent.node->entries.push_back({std::move(parent.key), 1, std::move(node)});
    }
  }

  const OmittedFields& omitted_;
  const YamlLimits limits_;
  std::vector<OpenCollection> open_;
  std::size_t omitting_ = 0;  // open collections of a field that is left out
  bool omit_next_ = false;    // the value that comes is such a field's
  std::size_t nodes_ = 0;
  YamlNodePtr root_;
  std::string error_;
};

}  // namespace

Result<YamlNodePtr, std::string> ParseJson(std::string_view text, const OmittedFields& omitted, const YamlLimits& limits) {
  if (text.size() > limits.bytes) return Failure("larger than " + std::to_string(limits.bytes) + " bytes");
  TreeBuilder builder(omitted, limits);
  // The parser keeps its own stack, so depth costs no call stack.
  const bool whole = nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  YamlNodePtr root = builder.TakeRoot();
  if (!whole || root == nullptr) return Failure(builder.Error().empty() ? std::string("no JSON object") : builder.Error());
  return root;
}

}  // namespace vsocket::kube
