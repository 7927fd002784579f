#include "cni-plugin/json_member.h"

#include <cstddef>
#include <nlohmann/json.hpp>

namespace vsocket::cni {
namespace {

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  [[nodiscard]] bool Done() const { return at_ >= text_.size(); }
  [[nodiscard]] char Peek() const { return Done() ? '\0' : text_[at_]; }

  void SkipSpace() {
    while (!Done() && (Peek() == ' ' || Peek() == '\t' || Peek() == '\n' || Peek() == '\r')) at_++;
  }

  bool Eat(char expected) {
    SkipSpace();
    if (Done() || Peek() != expected) return false;
    at_++;
    return true;
  }

  // A string with its quotes; empty at anything else.
  std::string_view TakeString() {
    SkipSpace();
    const std::size_t start = at_;
    if (!Eat('"')) return {};
    while (!Done() && Peek() != '"') at_ += Peek() == '\\' ? 2 : 1;
    if (Done()) return {};
    at_++;
    return text_.substr(start, at_ - start);
  }

  // Any value, trailing space excluded.
  std::string_view TakeValue() {
    SkipSpace();
    const std::size_t start = at_;
    if (Peek() == '"') return TakeString();
    if (Peek() != '{' && Peek() != '[') {
      while (!Done() && std::string_view(",}] \t\n\r").find(Peek()) == std::string_view::npos) at_++;
      return text_.substr(start, at_ - start);
    }
    std::size_t depth = 0;
    do {
      const char c = Peek();
      if (c == '"') {
        if (TakeString().empty()) return {};
        continue;
      }
      if (c == '{' || c == '[') depth++;
      if (c == '}' || c == ']') depth--;
      at_++;
    } while (depth > 0 && !Done());
    return text_.substr(start, at_ - start);
  }

 private:
  const std::string_view text_;
  std::size_t at_ = 0;
};

bool IsKey(std::string_view quoted, std::string_view key) {
  if (quoted.find('\\') == std::string_view::npos) return quoted.substr(1, quoted.size() - 2) == key;
  const auto decoded = nlohmann::json::parse(quoted, nullptr, false);
  return decoded.is_string() && decoded.get_ref<const std::string&>() == key;
}

}  // namespace

std::string_view FindMember(std::string_view text, std::string_view key) {
  Scanner scanner(text);
  std::string_view found;
  if (!scanner.Eat('{')) return {};
  do {
    const std::string_view name = scanner.TakeString();
    if (name.size() < 2 || !scanner.Eat(':')) break;
    const std::string_view value = scanner.TakeValue();
    if (IsKey(name, key)) found = value;
  } while (scanner.Eat(','));
  return found;
}

}  // namespace vsocket::cni
