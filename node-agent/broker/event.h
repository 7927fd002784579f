// What the broker tells the world: something happened, with named facts. The composition root turns events into log lines.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace vsocket::broker {

struct Event {
  enum class Level : std::uint8_t { kDebug, kInfo, kWarning, kError };
  using Fields = std::vector<std::pair<std::string, std::string>>;

  Level level = Level::kInfo;
  std::string what;  // a constant phrase, so that lines can be counted: "channel granted"
  Fields fields;
};

// Called from the broker's thread and from callers of the node's API: must be safe from any thread.
using EventSink = std::function<void(const Event&)>;

}  // namespace vsocket::broker
