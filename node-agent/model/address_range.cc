#include "node-agent/model/address_range.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace vsocket::model {
namespace {

unsigned Bits(const IpAddress& address) {
  return address.IsV4() ? 32 : 128;
}

IpAddress WithBytes(const IpAddress& like, const std::array<std::uint8_t, 16>& bytes) {
  if (like.IsV4()) return IpAddress::V4({bytes[0], bytes[1], bytes[2], bytes[3]});
  return IpAddress::V6(bytes);
}

// `address` with every bit after the first `prefix` set to `bit`.
IpAddress FillHostBits(const IpAddress& address, unsigned prefix, bool bit) {
  std::array<std::uint8_t, 16> bytes = address.Bytes();
  for (unsigned i = prefix; i < Bits(address); ++i) {
    const auto mask = static_cast<std::uint8_t>(0x80u >> (i % 8));
    bytes[i / 8] = static_cast<std::uint8_t>(bit ? bytes[i / 8] | mask : bytes[i / 8] & ~mask);
  }
  return WithBytes(address, bytes);
}

}  // namespace

std::optional<Cidr> ParseCidr(std::string_view text) {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const std::string_view address_text = text.substr(0, slash);
  const std::string_view prefix_text = text.substr(slash + 1);
  const auto address = IpAddress::Parse(address_text);
  if (!address) return std::nullopt;
  if (address->IsV4() && address_text.find(':') != std::string_view::npos) return std::nullopt;  // IPv4-mapped
  if (prefix_text.empty() || prefix_text.size() > 3 || (prefix_text.size() > 1 && prefix_text[0] == '0')) return std::nullopt;
  unsigned prefix = 0;
  const auto [end, error] = std::from_chars(prefix_text.data(), prefix_text.data() + prefix_text.size(), prefix);
  if (error != std::errc() || end != prefix_text.data() + prefix_text.size() || prefix > Bits(*address)) return std::nullopt;
  return Cidr{FillHostBits(*address, prefix, false), prefix};
}

std::string ToString(const Cidr& cidr) {
  return cidr.base.ToString() + "/" + std::to_string(cidr.prefix);
}

// An IPv6 range that spans ::ffff:0:0/96 keeps its IPv6 ends: only an end *inside* the mapped block could turn into IPv4, and ParseCidr
// lets no such CIDR in (a shorter prefix that holds the block starts and ends outside it).
AddressRange RangeOf(const Cidr& cidr) {
  return {FillHostBits(cidr.base, cidr.prefix, false), FillHostBits(cidr.base, cidr.prefix, true)};
}

bool Contains(const Cidr& cidr, const IpAddress& address) {
  return RangeOf(cidr).Contains(address);
}

bool Contains(const IpBlock& block, const IpAddress& address) {
  return Contains(block.cidr, address) &&
         std::none_of(block.except.begin(), block.except.end(), [&](const Cidr& hole) { return Contains(hole, address); });
}

bool Covers(const Cidr& outer, const Cidr& inner) {
  return inner.prefix >= outer.prefix && Contains(outer, inner.base);
}

// IPv6 steps over ::ffff:0:0/96: as values those addresses are IPv4, so the neighbour of the one before is the one after.
std::optional<IpAddress> Next(const IpAddress& address) {
  static const IpAddress kAfterMapped = *IpAddress::Parse("0:0:0:0:1::");
  std::array<std::uint8_t, 16> bytes = address.Bytes();
  for (unsigned i = Bits(address) / 8; i-- > 0;) {
    if (++bytes[i] == 0) continue;
    const IpAddress next = WithBytes(address, bytes);
    return next.IsV4() == address.IsV4() ? next : kAfterMapped;
  }
  return std::nullopt;
}

std::optional<IpAddress> Previous(const IpAddress& address) {
  static const IpAddress kBeforeMapped = *IpAddress::Parse("::fffe:ffff:ffff");
  std::array<std::uint8_t, 16> bytes = address.Bytes();
  for (unsigned i = Bits(address) / 8; i-- > 0;) {
    if (bytes[i]-- == 0) continue;
    const IpAddress previous = WithBytes(address, bytes);
    return previous.IsV4() == address.IsV4() ? previous : kBeforeMapped;
  }
  return std::nullopt;
}

std::vector<AddressRange> Merge(std::vector<AddressRange> ranges) {
  std::sort(ranges.begin(), ranges.end());
  std::vector<AddressRange> merged;
  for (const AddressRange& range : ranges) {
    if (!merged.empty() && merged.back().last.IsV4() == range.first.IsV4()) {
      const auto adjacent = Next(merged.back().last);
      if (!adjacent || range.first <= *adjacent) {
        merged.back().last = std::max(merged.back().last, range.last);
        continue;
      }
    }
    merged.push_back(range);
  }
  return merged;
}

std::vector<AddressRange> Subtract(const AddressRange& from, const std::vector<AddressRange>& holes) {
  std::vector<AddressRange> left;
  std::optional<IpAddress> start = from.first;
  for (const AddressRange& hole : Merge(holes)) {
    if (hole.first.IsV4() != from.first.IsV4() || !start || hole.last < *start) continue;
    if (hole.first > from.last) break;
    if (hole.first > *start) left.push_back({*start, *Previous(hole.first)});
    start = Next(hole.last);
  }
  if (start && *start <= from.last) left.push_back({*start, from.last});
  return left;
}

std::vector<AddressRange> RangesOf(const IpBlock& block) {
  std::vector<AddressRange> holes;
  for (const Cidr& hole : block.except) holes.push_back(RangeOf(hole));
  return Subtract(RangeOf(block.cidr), holes);
}

}  // namespace vsocket::model
