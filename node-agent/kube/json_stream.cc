#include "node-agent/kube/json_stream.h"

#include "node-agent/kube/field_reader.h"
#include "node-agent/kube/json_tree.h"

namespace vsocket::kube {
namespace {

bool IsSpace(char c) {
  return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

std::string TooLarge(std::size_t limit) {
  return "an object of more than " + std::to_string(limit) + " bytes";
}

constexpr std::size_t kFirstLevel = 1;
constexpr std::size_t kItemsLevel = 2;

}  // namespace

std::size_t JsonScanner::Next(char c) {
  if (in_text_) {
    if (escaped_) {
      escaped_ = false;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      in_text_ = false;
    }
    return depth_;
  }
  switch (c) {
    case '"':
      in_text_ = true;
      break;
    case '{':
    case '[':
      ++depth_;
      break;
    case '}':
    case ']':
      if (depth_ == 0) {
        broken_ = true;
      } else {
        --depth_;
      }
      break;
    default:
      break;
  }
  return depth_;
}

bool WatchDecoder::Feed(std::string_view bytes, const ObjectText& object) {
  if (!error_.empty()) return false;
  std::size_t begin = 0;  // of the object in `bytes`
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (scanner_.Depth() == 0) {
      if (IsSpace(bytes[i])) continue;
      if (bytes[i] != '{') {
        error_ = "something that is no object";
        return false;
      }
      begin = i;
    }
    if (scanner_.Next(bytes[i]) != 0) continue;
    const std::string_view rest = bytes.substr(begin, i + 1 - begin);
    if (text_.size() + rest.size() > limits_.object_bytes) {
      error_ = TooLarge(limits_.object_bytes);
      return false;
    }
    if (text_.empty()) {
      if (!object(rest)) return false;
    } else {
      text_.append(rest);
      const bool go_on = object(text_);
      text_.clear();
      if (!go_on) return false;
    }
  }
  if (scanner_.Depth() == 0) return true;
  if (text_.size() + bytes.size() - begin > limits_.object_bytes) {
    error_ = TooLarge(limits_.object_bytes);
    return false;
  }
  text_.append(bytes.substr(begin));
  return true;
}

bool ListDecoder::Refuse(std::string what) {
  error_ = std::move(what);
  return false;
}

bool ListDecoder::InEnvelope(char c) {
  if (envelope_.size() >= limits_.envelope_bytes)
    return Refuse("more than " + std::to_string(limits_.envelope_bytes) + " bytes outside of items");
  if (scanner_.Depth() == 0 && !envelope_.empty() && envelope_.back() == '}' && !IsSpace(c)) return Refuse("something after the list");
  const bool was_in_text = scanner_.InText();
  const std::size_t was_deep = scanner_.Depth();
  const std::size_t depth = scanner_.Next(c);
  if (scanner_.Broken()) return Refuse("brackets that do not match");
  if (was_deep == 0 && IsSpace(c)) return true;
  envelope_.push_back(c);
  if (was_deep == kFirstLevel && depth == kFirstLevel) {
    if (!was_in_text && scanner_.InText()) text_begin_ = envelope_.size();
    if (was_in_text && !scanner_.InText()) text_is_items_ = std::string_view(envelope_).substr(text_begin_) == "items\"";
    if (c == ',') text_is_items_ = false;
  }
  // A text on the first level that is followed by '[' with at most a colon between is the key of that list: anything else is no JSON.
  if (was_deep == kFirstLevel && depth == kItemsLevel && c == '[' && text_is_items_) {
    if (had_items_) return Refuse("items twice");
    had_items_ = true;
    at_ = At::kBetweenItems;
  }
  return true;
}

bool ListDecoder::BetweenItems(char c) {
  if (IsSpace(c) || c == ',') return true;
  if (c == ']') {
    scanner_.Next(c);
    envelope_.push_back(c);
    text_is_items_ = false;
    at_ = At::kEnvelope;
    return true;
  }
  if (c != '{') return Refuse("an item that is no object");
  scanner_.Next(c);
  at_ = At::kItem;
  return true;
}

bool ListDecoder::Feed(std::string_view bytes, const ObjectText& item) {
  if (!error_.empty()) return false;
  std::size_t begin = 0;  // of the item in `bytes`
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    switch (at_) {
      case At::kEnvelope:
        if (!InEnvelope(bytes[i])) return false;
        break;
      case At::kBetweenItems:
        if (!BetweenItems(bytes[i])) return false;
        begin = i;
        break;
      case At::kItem: {
        if (scanner_.Next(bytes[i]) != kItemsLevel) break;
        at_ = At::kBetweenItems;
        const std::string_view rest = bytes.substr(begin, i + 1 - begin);
        if (item_.size() + rest.size() > limits_.object_bytes) return Refuse(TooLarge(limits_.object_bytes));
        bool go_on = true;
        if (item_.empty()) {
          go_on = item(rest);
        } else {
          item_.append(rest);
          go_on = item(item_);
          item_.clear();
        }
        if (!go_on) return false;
        break;
      }
    }
  }
  if (at_ != At::kItem) return true;
  if (item_.size() + bytes.size() - begin > limits_.object_bytes) return Refuse(TooLarge(limits_.object_bytes));
  item_.append(bytes.substr(begin));
  return true;
}

Result<ListEnd, std::string> ListDecoder::Finish() {
  if (!error_.empty()) return Failure(error_);
  if (at_ != At::kEnvelope || scanner_.Depth() != 0 || envelope_.empty()) return Failure<std::string>("a list that ends too soon");
  auto tree = ParseJson(envelope_);
  if (!tree) return Failure(tree.Error());
  if (!had_items_ && (*tree)->Find("items") == nullptr) return Failure<std::string>("no list: it has no items");
  std::vector<YamlError> errors;
  FieldReader reader(errors);
  ListEnd end;
  if (const YamlNode* metadata = reader.Map((*tree)->Find("metadata"), "metadata")) {
    end.resource_version = reader.Text(metadata->Find("resourceVersion"), "metadata.resourceVersion").value_or("");
    end.continue_token = reader.Text(metadata->Find("continue"), "metadata.continue").value_or("");
  }
  if (!errors.empty()) return Failure(errors.front().what);
  if (end.resource_version.empty()) return Failure<std::string>("a list without a resourceVersion");
  return end;
}

}  // namespace vsocket::kube
