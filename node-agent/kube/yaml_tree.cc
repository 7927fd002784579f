#include "node-agent/kube/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <array>
#include <exception>
#include <istream>
#include <map>
#include <set>
#include <streambuf>
#include <utility>

namespace vsocket::kube {
namespace {

constexpr char kNoKey[] = "a key must be a text; is there a comma too many, or is the rest missing?";

// Leaves the parser from within an event; never leaves ParseYaml.
struct Refused : std::exception {
  explicit Refused(YamlError e) : error(std::move(e)) {}
  YamlError error;
};

// Builds trees from the parser's events. One container on `open_` for each collection that has begun and not ended.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const YamlLimits& limits) : limits_(limits) {}

  std::vector<YamlNodePtr> TakeDocuments() { return std::move(documents_); }

  void OnDocumentStart(const YAML::Mark&) override {
    anchors_.clear();
    open_.clear();
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { Leaf(mark, YamlNode::Kind::kNull, anchor, {}, false); }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& value) override {
    // yaml-cpp gives "?" for a plain scalar, "!" for a quoted or block one, and the tag itself when there is one.
    const bool is_string = tag == "!" || tag == "tag:yaml.org,2002:str";
    if (!is_string && tag != "?" && tag.rfind("tag:yaml.org,2002:", 0) != 0) Refuse(mark, "unknown tag " + tag);
    Leaf(mark, YamlNode::Kind::kScalar, anchor, value, is_string);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) Refuse(mark, "an alias inside its own anchor");
    Count(mark, found->second->weight);
    if (open_.size() + found->second->height > limits_.depth) RefuseDepth(mark);
    Attach(mark, found->second);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    Open(mark, YamlNode::Kind::kSequence, anchor);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    Open(mark, YamlNode::Kind::kMap, anchor);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct OpenCollection {
    std::shared_ptr<YamlNode> node;
    YAML::anchor_t anchor;
    YAML::Mark mark;
    std::size_t count_before;
    bool have_key = false;
    std::string key;
    int key_line = 0;
    std::set<std::string> keys;
  };

  static int Line(const YAML::Mark& mark) { return mark.line + 1; }
  [[noreturn]] static void Refuse(const YAML::Mark& mark, std::string what) { throw Refused({Line(mark), std::move(what)}); }

  [[noreturn]] void RefuseDepth(const YAML::Mark& mark) const {
    Refuse(mark, "nested more than " + std::to_string(limits_.depth) + " levels deep");
  }

  void Count(const YAML::Mark& mark, std::size_t more) {
    nodes_ += more;
    if (nodes_ > limits_.nodes)
      Refuse(mark, "more than " + std::to_string(limits_.nodes) + " values (aliases counted where they are used)");
  }

  void Leaf(const YAML::Mark& mark, YamlNode::Kind kind, YAML::anchor_t anchor, const std::string& value, bool quoted) {
    Count(mark, 1);
    auto node = std::make_shared<YamlNode>();
    node->kind = kind;
    node->line = Line(mark);
    node->scalar = value;
    node->quoted = quoted;
    if (anchor != YAML::NullAnchor) anchors_[anchor] = node;
    Attach(mark, std::move(node));
  }

  void Open(const YAML::Mark& mark, YamlNode::Kind kind, YAML::anchor_t anchor) {
    if (open_.size() >= limits_.depth) RefuseDepth(mark);
    if (!open_.empty() && open_.back().node->kind == YamlNode::Kind::kMap && !open_.back().have_key) Refuse(mark, kNoKey);
    Count(mark, 1);
    OpenCollection& collection = open_.emplace_back();
    collection.node = std::make_shared<YamlNode>();
    collection.node->kind = kind;
    collection.node->line = Line(mark);
    collection.anchor = anchor;
    collection.mark = mark;
    collection.count_before = nodes_ - 1;
  }

  void Close() {
    OpenCollection done = std::move(open_.back());
    open_.pop_back();
    done.node->weight = nodes_ - done.count_before;
    if (done.anchor != YAML::NullAnchor) anchors_[done.anchor] = done.node;
    Attach(done.mark, std::move(done.node));
  }

  void Attach(const YAML::Mark& mark, YamlNodePtr node) {
    if (open_.empty()) {
      if (node->kind != YamlNode::Kind::kNull) documents_.push_back(std::move(node));
      return;
    }
    OpenCollection& parent = open_.back();
    parent.node->height = std::max(parent.node->height, node->height + 1);
    if (parent.node->kind == YamlNode::Kind::kSequence) {
      parent.node->items.push_back(std::move(node));
    } else if (parent.have_key) {
      parent.node->entries.push_back({std::move(parent.key), parent.key_line, std::move(node)});
      parent.have_key = false;
    } else {
      if (node->kind != YamlNode::Kind::kScalar) Refuse(mark, kNoKey);
      if (node->scalar == "<<" && !node->quoted) Refuse(mark, "merge keys (<<) are not supported: write the fields out");
      if (!parent.keys.insert(node->scalar).second) Refuse(mark, "the field \"" + node->scalar + "\" is here twice");
      parent.key = node->scalar;
      parent.key_line = Line(mark);
      parent.have_key = true;
    }
  }

  const YamlLimits limits_;
  std::vector<YamlNodePtr> documents_;
  std::vector<OpenCollection> open_;
  std::map<YAML::anchor_t, YamlNodePtr> anchors_;
  std::size_t nodes_ = 0;  // over the whole stream
};

// Reads from the caller's memory; std::istringstream would copy all of it.
class ViewBuffer : public std::streambuf {
 public:
  explicit ViewBuffer(std::string_view text) {
    char* begin = const_cast<char*>(text.data());  // a get area is never written to
    setg(begin, begin, begin + text.size());
  }
};

bool OneOf(const std::string& text, std::initializer_list<const char*> spellings) {
  return std::any_of(spellings.begin(), spellings.end(), [&](const char* spelling) { return text == spelling; });
}

}  // namespace

const YamlNode* YamlNode::Find(std::string_view key) const {
  if (kind != Kind::kMap) return nullptr;
  for (const Entry& entry : entries) {
    if (entry.key == key) return entry.value.get();
  }
  return nullptr;
}

YamlStream ParseYaml(std::string_view text, const YamlLimits& limits) {
  YamlStream stream;
  if (text.size() > limits.bytes) {
    stream.errors.push_back({0, "larger than " + std::to_string(limits.bytes) + " bytes"});
    return stream;
  }
  if (const auto nul = text.find('\0'); nul != std::string_view::npos) {
    stream.errors.push_back(
        {1 + static_cast<int>(std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(nul), '\n')), "a NUL byte in the text"});
    return stream;
  }
  TreeBuilder builder(limits);
  try {
    ViewBuffer buffer(text);
    std::istream input(&buffer);
    YAML::Parser parser(input);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Refused& refused) {
    stream.errors.push_back(refused.error);
  } catch (const YAML::Exception& error) {
    stream.errors.push_back({error.mark.is_null() ? 0 : error.mark.line + 1, error.msg});
  } catch (const std::exception& error) {  // std::bad_alloc and what the library's own containers throw
    stream.errors.push_back({0, std::string("cannot be read: ") + error.what()});
  }
  stream.documents = builder.TakeDocuments();
  return stream;
}

ScalarType TypeOf(const YamlNode& scalar) {
  const std::string& text = scalar.scalar;
  if (scalar.quoted || text.empty()) return ScalarType::kString;
  if (OneOf(text, {"true", "True", "TRUE", "false", "False", "FALSE", "yes", "Yes", "YES", "no", "No",
                   "NO",   "on",   "On",   "ON",    "off",   "Off",   "OFF", "y",   "Y",   "n",  "N"})) {
    return ScalarType::kBool;
  }
  if (OneOf(text, {".inf", ".Inf", ".INF", "-.inf", "-.Inf", "-.INF", "+.inf", ".nan", ".NaN", ".NAN"})) return ScalarType::kFloat;
  const std::size_t start = text[0] == '-' || text[0] == '+' ? 1 : 0;
  const std::string_view rest = std::string_view(text).substr(start);
  if (rest.empty()) return ScalarType::kString;
  if (rest.size() > 2 && rest[0] == '0' && (rest[1] == 'x' || rest[1] == 'o' || rest[1] == 'b')) {
    const char* digits = rest[1] == 'x' ? "0123456789abcdefABCDEF_" : (rest[1] == 'o' ? "01234567_" : "01_");
    if (rest.find_first_not_of(digits, 2) == std::string_view::npos) return ScalarType::kInteger;
  }
  if (rest[0] >= '0' && rest[0] <= '9' && rest.find_first_not_of("0123456789_") == std::string_view::npos) return ScalarType::kInteger;
  // digits [. digits] [e [+-] digits], with a digit somewhere before the exponent
  std::size_t i = 0, digits = 0;
  for (; i < rest.size() && ((rest[i] >= '0' && rest[i] <= '9') || (rest[i] == '_' && i > 0)); ++i) ++digits;
  if (i < rest.size() && rest[i] == '.') {
    for (++i; i < rest.size() && rest[i] >= '0' && rest[i] <= '9'; ++i) ++digits;
  }
  if (digits > 0 && i < rest.size() && (rest[i] == 'e' || rest[i] == 'E')) {
    std::size_t j = i + 1;
    if (j < rest.size() && (rest[j] == '+' || rest[j] == '-')) ++j;
    const std::size_t exponent = j;
    while (j < rest.size() && rest[j] >= '0' && rest[j] <= '9') ++j;
    if (j > exponent) i = j;
  }
  return digits > 0 && i == rest.size() ? ScalarType::kFloat : ScalarType::kString;
}

}  // namespace vsocket::kube
