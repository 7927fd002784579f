#include "cli/arguments.h"

#include <algorithm>
#include <string_view>

namespace vsocket::cli {
namespace {

// Kubernetes names, and the namespace "_cni" of pods outside of it.
bool IsName(std::string_view text) {
  return !text.empty() && text != "." && text != ".." && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  });
}

// IANA service names are at most 15 characters and do not begin or end with a hyphen (RFC 6335, section 5.1);
// numbers are 1 to 65535.
bool IsPort(std::string_view text) {
  if (text.empty() || text.size() > 15 || !IsName(text) || text.front() == '-' || text.back() == '-') return false;
  if (!std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; })) return true;
  if (text.size() > 5) return false;
  const int number = std::stoi(std::string(text));
  return number >= 1 && number <= 65535;
}

bool IsProtocol(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return text == "tcp" || text == "udp" || text == "sctp";
}

}  // namespace

std::optional<std::string> ParsePod(const std::string& text) {
  const std::size_t slash = text.find('/');
  if (slash == std::string::npos) return IsName(text) ? std::optional("default/" + text) : std::nullopt;
  const std::string_view whole = text;
  if (!IsName(whole.substr(0, slash)) || !IsName(whole.substr(slash + 1))) return std::nullopt;
  return text;
}

std::optional<PodPort> ParsePodPort(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) return std::nullopt;
  const auto pod = ParsePod(text.substr(0, colon));
  const std::string port = text.substr(colon + 1);
  const std::size_t slash = port.find('/');
  if (slash != std::string::npos && !IsProtocol(port.substr(slash + 1))) return std::nullopt;
  if (!pod || !IsPort(port.substr(0, slash))) return std::nullopt;
  return PodPort{*pod, port};
}

}  // namespace vsocket::cli
