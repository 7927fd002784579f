// Columns of text, aligned, for terminals.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace vsocket::cli {

// Thread safety: none, a plain value.
class Table {
 public:
  // `headings` fixes the number of columns. Columns in `right` (by index) are aligned to the right, for numbers.
  explicit Table(std::vector<std::string> headings, std::vector<std::size_t> right = {});
  // As many cells as headings. An empty cell is shown as "-".
  void Add(std::vector<std::string> cells);
  // A line per row, columns two spaces apart, no space at the end of a line.
  [[nodiscard]] std::string Render() const;

 private:
  std::vector<std::vector<std::string>> rows_;
  std::vector<std::size_t> right_;
};

// "999 B", "1.5 KiB", "23.4 GiB": three or four digits, powers of 1024.
std::string HumanBytes(std::uint64_t bytes);

// "12s", "3m12s", "5h03m", "2d04h".
std::string HumanSeconds(std::uint64_t seconds);

// What a program or a pod chose, fit for a terminal: control characters (escape sequences among them) become '?'.
std::string Printable(std::string text);

}  // namespace vsocket::cli
