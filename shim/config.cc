#include "shim/config.h"

#include <cstdlib>
#include <cstring>

namespace vsocket::shim {
namespace {

Config config;

// Digits only; anything else leaves `fallback`. A wrong environment never stops a program.
std::uint64_t Number(const char* text, std::uint64_t fallback) {
  if (text == nullptr || *text == '\0') return fallback;
  std::uint64_t value = 0;
  for (; *text != '\0'; ++text) {
    if (*text < '0' || *text > '9' || value > (1ULL << 50)) return fallback;
    value = value * 10 + static_cast<std::uint64_t>(*text - '0');
  }
  return value;
}

template <std::size_t N>
void Text(char (&into)[N], const char* text) {
  if (text == nullptr || std::strlen(text) >= N) return;
  std::memcpy(into, text, std::strlen(text) + 1);
}

}  // namespace

const Config& GetConfig() {
  return config;
}

void LoadConfig() {
  const char* upgrade = std::getenv("VSOCKET_UPGRADE");
  config.upgrade = upgrade == nullptr || std::strcmp(upgrade, "off") != 0;
  Text(config.agent_path, std::getenv("VSOCKET_AGENT"));
  config.upgrade_after_bytes = Number(std::getenv("VSOCKET_UPGRADE_AFTER"), config.upgrade_after_bytes);
  config.upgrade_after_turns = static_cast<std::uint32_t>(Number(std::getenv("VSOCKET_UPGRADE_AFTER_TURNS"), config.upgrade_after_turns));
  config.flap_ns = Number(std::getenv("VSOCKET_FLAP_MS"), 0) * 1000000;
  config.spin_us = static_cast<std::uint32_t>(Number(std::getenv("VSOCKET_SPIN_US"), config.spin_us));
  Text(config.stats_path, std::getenv("VSOCKET_STATS"));
}

}  // namespace vsocket::shim
