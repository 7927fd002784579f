#include "cli/table.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdio>
#include <utility>

namespace vsocket::cli {
namespace {

// Columns on the screen: UTF-8 continuation bytes take none.
std::size_t Width(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

template <typename... Args>
std::string Format(const char* format, Args... args) {
  std::array<char, 64> buffer{};
  std::snprintf(buffer.data(), buffer.size(), format, args...);
  return buffer.data();
}

}  // namespace

Table::Table(std::vector<std::string> headings, std::vector<std::size_t> right) : right_(std::move(right)) {
  rows_.push_back(std::move(headings));
}

void Table::Add(std::vector<std::string> cells) {
  assert(cells.size() == rows_[0].size());
  for (std::string& cell : cells) {
    if (cell.empty()) cell.push_back('-');
  }
  rows_.push_back(std::move(cells));
}

std::string Table::Render() const {
  std::vector<std::size_t> widths(rows_[0].size());
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); i++) widths[i] = std::max(widths[i], Width(row[i]));
  }
  std::string out;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); i++) {
      const std::string padding(widths[i] - Width(row[i]), ' ');
      const bool to_right = std::find(right_.begin(), right_.end(), i) != right_.end();
      if (i > 0) line.append("  ");
      if (to_right) line.append(padding);
      line.append(row[i]);
      if (!to_right) line.append(padding);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string HumanBytes(std::uint64_t bytes) {
  if (bytes < 1024) return std::to_string(bytes) + " B";
  constexpr std::array kUnits{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // 1023.95 would be printed as 1024.0.
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    unit++;
  }
  return Format("%.1f %s", value, kUnits[unit]);
}

std::string HumanSeconds(std::uint64_t seconds) {
  const unsigned long long days = seconds / 86400, hours = seconds / 3600 % 24, minutes = seconds / 60 % 60, rest = seconds % 60;
  if (days > 0) return Format("%llud%02lluh", days, hours);
  if (hours > 0) return Format("%lluh%02llum", hours, minutes);
  if (minutes > 0) return Format("%llum%02llus", minutes, rest);
  return Format("%llus", rest);
}

std::string Printable(std::string text) {
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) c = '?';
  }
  return text;
}

}  // namespace vsocket::cli
