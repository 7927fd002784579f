// Pods and ports as people type them. Pure functions.
#pragma once

#include <optional>
#include <string>

namespace vsocket::cli {

struct PodPort {
  std::string pod;   // "ns/name"
  std::string port;  // a number from 1 to 65535, or a port's name; then "/tcp", "/udp" or "/sctp", in any case, or nothing
};

// "name" or "ns/name" -> "ns/name"; nothing for anything else. A bare name is in the namespace "default".
std::optional<std::string> ParsePod(const std::string& text);

// "name:port" or "ns/name:port", the port with or without a protocol: "8080", "dns/udp".
std::optional<PodPort> ParsePodPort(const std::string& text);

}  // namespace vsocket::cli
