// libFuzzer: anything as environment and stdin. Beyond not crashing: what is passed on is the same JSON value as what came in, every
// error is valid JSON, and whatever was accepted is safe to be a file name and a message.
//
// Input: the command's letter, then CNI_ARGS up to a newline, then the configuration.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "cni-plugin/invocation.h"

namespace {

const char* CommandOf(char letter) {
  switch (letter) {
    case 'A':
      return "ADD";
    case 'D':
      return "DEL";
    case 'C':
      return "CHECK";
    case 'S':
      return "STATUS";
    case 'G':
      return "GC";
    default:
      return "VERSION";
  }
}

void Require(bool holds) {
  if (!holds) std::abort();
}

bool IsFileName(const std::string& text) {
  return !text.empty() && text.size() < 255 && text.find('/') == std::string::npos && text.find('\0') == std::string::npos &&
         text[0] != '.';
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  if (input.empty()) return 0;
  const char letter = input.front();
  input.remove_prefix(1);
  const std::size_t newline = input.find('\n');
  if (newline == std::string_view::npos) return 0;
  const std::string args(input.substr(0, newline));
  const std::string_view config = input.substr(newline + 1);

  auto call = vsocket::cni::ParseInvocation({CommandOf(letter), "container", "/run/netns/x", "eth0", args}, config);
  if (!call) {
    Require(nlohmann::json::accept(vsocket::cni::RenderError("1.1.0", call.Error())));
    return 0;
  }
  if (letter == 'A' || letter == 'C') {
    Require(IsFileName(call->pod_uid) && !call->pod_name.empty() && !call->pod_ns.empty());
    Require(nlohmann::json::parse(call->previous_result) == nlohmann::json::parse(config)["prevResult"]);
  }
  return 0;
}
