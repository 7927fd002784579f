// What the renderers share. Pure functions.
#pragma once

#include <google/protobuf/repeated_field.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace vsocket::cli {

using nlohmann::ordered_json;

// Texts may come from pods, so bytes that are not UTF-8 are replaced rather than an error. With a newline at the end.
std::string Print(const ordered_json& value, bool compact = false);
// "10.1.0.2:80", "[fd00::2]:80"
std::string Endpoint(const std::string& ip, std::uint32_t port);
std::string Join(const google::protobuf::RepeatedPtrField<std::string>& items);
ordered_json ListOf(const google::protobuf::RepeatedPtrField<std::string>& items);

}  // namespace vsocket::cli
