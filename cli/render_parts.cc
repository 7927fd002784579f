#include "cli/render_parts.h"

namespace vsocket::cli {

std::string Print(const ordered_json& value, bool compact) {
  return value.dump(compact ? -1 : 2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

std::string Endpoint(const std::string& ip, std::uint32_t port) {
  const bool v6 = ip.find(':') != std::string::npos;
  return (v6 ? "[" + ip + "]" : ip) + ":" + std::to_string(port);
}

std::string Join(const google::protobuf::RepeatedPtrField<std::string>& items) {
  std::string out;
  for (const std::string& item : items) out += (out.empty() ? "" : ", ") + item;
  return out;
}

ordered_json ListOf(const google::protobuf::RepeatedPtrField<std::string>& items) {
  ordered_json out = ordered_json::array();
  for (const std::string& item : items) out.push_back(item);
  return out;
}

}  // namespace vsocket::cli
