#include "node-agent/telemetry/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>

namespace vsocket::telemetry {
namespace {

constexpr std::array<std::string_view, 4> kLevelNames = {"debug", "info", "warning", "error"};

std::string_view NameOf(LogLevel level) {
  return kLevelNames[static_cast<std::size_t>(level)];
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

// RFC 8259 section 7. Bytes above 0x7f pass: names are UTF-8, and what is not does no harm to a line.
void AppendQuoted(std::string_view text, std::string* out) {
  out->push_back('"');
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      std::array<char, 8> escaped{};
      std::snprintf(escaped.data(), escaped.size(), "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      out->append(escaped.data());
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

bool IsPlain(std::string_view text) {
  if (text.empty()) return false;
  for (const char c : text) {
    if (c <= ' ' || c == '"' || c == '\\' || c == '=' || c == 0x7f) return false;
  }
  return true;
}

std::string Now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now);
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(now - seconds);
  const auto time = static_cast<std::time_t>(seconds.count());
  std::tm utc{};
  ::gmtime_r(&time, &utc);
  std::array<char, 40> text{};
  const std::size_t length = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(text.data() + length, text.size() - length, ".%03dZ", static_cast<int>(millis.count()));
  return text.data();
}

}  // namespace

std::optional<LogLevel> ParseLogLevel(std::string_view text) {
  for (std::size_t i = 0; i < kLevelNames.size(); ++i) {
    if (kLevelNames[i] == text) return static_cast<LogLevel>(i);
  }
  return std::nullopt;
}

std::optional<LogFormat> ParseLogFormat(std::string_view text) {
  if (text == "text") return LogFormat::kText;
  if (text == "json") return LogFormat::kJson;
  return std::nullopt;
}

std::string FormatLine(LogFormat format, LogLevel level, std::string_view what, const LogFields& fields, std::string_view time) {
  std::string line;
  if (format == LogFormat::kJson) {
    line = "{\"time\":";
    AppendQuoted(time, &line);
    line += ",\"level\":";
    AppendQuoted(NameOf(level), &line);
    line += ",\"msg\":";
    AppendQuoted(what, &line);
    for (const auto& [name, value] : fields) {
      line.push_back(',');
      AppendQuoted(name, &line);
      line.push_back(':');
      AppendQuoted(value, &line);
    }
    line.push_back('}');
    return line;
  }
  line.append(time).append(" ").append(NameOf(level)).append(" ").append(what);
  for (const auto& [name, value] : fields) {
    line.append(" ").append(name).append("=");
    if (IsPlain(value)) {
      line.append(value);
    } else {
      AppendQuoted(value, &line);
    }
  }
  return line;
}

Log::Log(LogLevel least, LogFormat format)
    : format_(format), logger_(std::make_shared<spdlog::logger>("vsocket-agent", std::make_shared<spdlog::sinks::stderr_sink_mt>())) {
  logger_->set_pattern("%v");
  logger_->set_level(ToSpdlog(least));
  logger_->flush_on(spdlog::level::debug);
}

Log::~Log() = default;

void Log::Write(LogLevel level, std::string_view what, const LogFields& fields) {
  const auto at = ToSpdlog(level);
  if (!logger_->should_log(at)) return;
  logger_->log(at, spdlog::string_view_t(FormatLine(format_, level, what, fields, Now())));
}

}  // namespace vsocket::telemetry
