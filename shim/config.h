// What the environment asks of the shim. Read once when the library is loaded; docs/configuration.md describes each.
#pragma once

#include <cstdint>

namespace vsocket::shim {

struct Config {
  bool upgrade = true;                               // VSOCKET_UPGRADE: off | on
  char agent_path[108] = "/run/vsocket/agent.sock";  // VSOCKET_AGENT
  std::uint64_t upgrade_after_bytes = 65536;         // VSOCKET_UPGRADE_AFTER: bytes either way before a connection asks; 0: the first byte
  std::uint32_t upgrade_after_turns = 16;            // VSOCKET_UPGRADE_AFTER_TURNS: or so many changes from sending to receiving
  std::uint64_t flap_ns = 0;                         // VSOCKET_FLAP_MS, for tests: leave a ring after so long, and come back
  std::uint32_t spin_us = 100;                       // VSOCKET_SPIN_US: the most a wait spins before it sleeps; 0: never
  char stats_path[256] = "";                         // VSOCKET_STATS: a line of JSON is appended when the process exits
};

const Config& GetConfig();

// From the constructor only.
void LoadConfig();

}  // namespace vsocket::shim
