#include "node-agent/model/quantity.h"

#include <algorithm>
#include <array>
#include <limits>

namespace vsocket::model {
namespace {

constexpr int kMostDigits = 19;      // significant ones that are kept: 10^19 < 2^64
constexpr int kMostExponent = 9999;  // beyond it nothing changes any more
constexpr std::uint64_t kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

struct Scale {
  int decimal = 0;  // power of ten
  int binary = 0;   // power of two
};

constexpr bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}

std::optional<Scale> ExponentOf(std::string_view text) {
  bool negative = false;
  if (!text.empty() && (text.front() == '+' || text.front() == '-')) {
    negative = text.front() == '-';
    text.remove_prefix(1);
  }
  if (text.empty()) return std::nullopt;
  int exponent = 0;
  for (const char c : text) {
    if (!IsDigit(c)) return std::nullopt;
    exponent = std::min(exponent * 10 + (c - '0'), kMostExponent);
  }
  return Scale{negative ? -exponent : exponent, 0};
}

std::optional<Scale> ScaleOf(std::string_view suffix) {
  struct Known {
    std::string_view suffix;
    Scale scale;
  };
  static constexpr std::array<Known, 16> kKnown{{{"", {}},
                                                 {"n", {-9, 0}},
                                                 {"u", {-6, 0}},
                                                 {"m", {-3, 0}},
                                                 {"k", {3, 0}},
                                                 {"M", {6, 0}},
                                                 {"G", {9, 0}},
                                                 {"T", {12, 0}},
                                                 {"P", {15, 0}},
                                                 {"E", {18, 0}},
                                                 {"Ki", {0, 10}},
                                                 {"Mi", {0, 20}},
                                                 {"Gi", {0, 30}},
                                                 {"Ti", {0, 40}},
                                                 {"Pi", {0, 50}},
                                                 {"Ei", {0, 60}}}};
  for (const Known& known : kKnown) {
    if (known.suffix == suffix) return known.scale;
  }
  if (suffix.front() == 'e' || suffix.front() == 'E') return ExponentOf(suffix.substr(1));
  return std::nullopt;
}

// The digits in front, point included, as mantissa * 10^exponent; `inexact` when digits that are not 0 were dropped.
struct Digits {
  std::uint64_t mantissa = 0;
  int exponent = 0;
  bool inexact = false;
};

std::optional<Digits> TakeDigits(std::string_view* text) {
  Digits digits;
  int kept = 0;
  bool any = false;
  bool point = false;
  while (!text->empty() && (IsDigit(text->front()) || (text->front() == '.' && !point))) {
    const char c = text->front();
    text->remove_prefix(1);
    if (c == '.') {
      point = true;
      continue;
    }
    any = true;
    if (kept < kMostDigits) {
      digits.mantissa = digits.mantissa * 10 + static_cast<std::uint64_t>(c - '0');
      if (digits.mantissa != 0) ++kept;
      if (point) digits.exponent = std::max(digits.exponent - 1, -kMostExponent);
    } else {
      digits.inexact = digits.inexact || c != '0';
      if (!point) digits.exponent = std::min(digits.exponent + 1, kMostExponent);
    }
  }
  return any ? std::optional(digits) : std::nullopt;
}

// mantissa * 10^exponent * 2^binary, rounded up, at most kMost.
std::uint64_t RoundedUp(Digits digits, Scale scale) {
  std::uint64_t value = digits.mantissa;
  int binary = scale.binary;
  int exponent = digits.exponent + scale.decimal;
  // Decimal places first while they divide, so that nothing is lost; then up as far as it fits.
  while (exponent < 0 && value % 10 == 0 && value != 0) {
    value /= 10;
    ++exponent;
  }
  if (value == 0) return digits.inexact ? 1 : 0;
  // Doubled step by step, and divided by ten when it has become too big for that.
  bool inexact = digits.inexact;
  while (binary > 0) {
    if (value > kMost / 2) {
      if (exponent >= 0) return kMost;
      inexact = inexact || value % 10 != 0;
      value /= 10;
      ++exponent;
      continue;
    }
    value *= 2;
    --binary;
  }
  for (; exponent < 0 && value != 0; ++exponent) {
    inexact = inexact || value % 10 != 0;
    value /= 10;
  }
  for (; exponent > 0; --exponent) {
    if (value > kMost / 10) return kMost;
    value *= 10;
  }
  return std::min(inexact ? value + 1 : value, kMost);
}

}  // namespace

std::optional<std::int64_t> ParseQuantity(std::string_view text) {
  bool negative = false;
  if (!text.empty() && (text.front() == '+' || text.front() == '-')) {
    negative = text.front() == '-';
    text.remove_prefix(1);
  }
  const auto digits = TakeDigits(&text);
  if (!digits) return std::nullopt;
  const auto scale = ScaleOf(text);
  if (!scale) return std::nullopt;
  const auto value = static_cast<std::int64_t>(RoundedUp(*digits, *scale));
  return negative ? -value : value;
}

}  // namespace vsocket::model
