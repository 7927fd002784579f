// VSOCKET_LOG: what the shim did and why, for people who look into a problem. Silent otherwise.
#pragma once

namespace vsocket::shim {

extern bool log_enabled;
void LoadLog();  // from the constructor
void LogText(const char* format, int number, const char* text);

// One %d or one %s.
inline void Log(const char* format, int number) {
  if (__builtin_expect(log_enabled, 0)) LogText(format, number, "");
}
inline void Log(const char* format, const char* text = "") {
  if (__builtin_expect(log_enabled, 0)) LogText(format, 0, text);
}

}  // namespace vsocket::shim
