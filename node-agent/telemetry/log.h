// Structured logs: a constant phrase and named facts a line, as text for people or as JSON lines for collectors, on standard error.
//
// JSON members: time (RFC 3339, UTC), level, msg, and the facts. Nothing a pod can choose reaches the log unescaped.
//
// Thread safety: every method, from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spdlog {
class logger;
}

namespace vsocket::telemetry {

enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarning, kError };
enum class LogFormat : std::uint8_t { kText, kJson };
using LogFields = std::vector<std::pair<std::string, std::string>>;

// "debug", "info", "warning", "error"; "text", "json".
std::optional<LogLevel> ParseLogLevel(std::string_view text);
std::optional<LogFormat> ParseLogFormat(std::string_view text);

class Log {
 public:
  Log(LogLevel least, LogFormat format);
  ~Log();
  void Write(LogLevel level, std::string_view what, const LogFields& fields = {});

 private:
  LogFormat format_;
  std::shared_ptr<spdlog::logger> logger_;
};

// One line's payload without its end; for tests. Control characters are escaped in both formats.
std::string FormatLine(LogFormat format, LogLevel level, std::string_view what, const LogFields& fields, std::string_view time);

}  // namespace vsocket::telemetry
