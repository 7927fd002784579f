// Address arithmetic: what a CIDR covers, and sets of addresses as sorted disjoint ranges. nftables sets and the policy evaluator both
// need "this CIDR without those", and ranges are the one form in which a subtraction stays exact.
//
// Thread safety: pure functions over values.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/model/cluster.h"
#include "node-agent/model/ip_address.h"

namespace vsocket::model {

// Inclusive; first and last are of one family and first <= last.
struct AddressRange {
  IpAddress first;
  IpAddress last;
  auto operator<=>(const AddressRange&) const = default;
  [[nodiscard]] bool Contains(const IpAddress& address) const {
    return address.IsV4() == first.IsV4() && first <= address && address <= last;
  }
};

// RFC 4632 "address/prefix". Host bits are cleared, as the API server tolerates them. An IPv4-mapped IPv6 CIDR is refused: it means one
// thing to a router and another to a socket.
std::optional<Cidr> ParseCidr(std::string_view text);
std::string ToString(const Cidr& cidr);

AddressRange RangeOf(const Cidr& cidr);
bool Contains(const Cidr& cidr, const IpAddress& address);
// The block's cidr without its excepts.
bool Contains(const IpBlock& block, const IpAddress& address);
// True when every address of `inner` is in `outer`.
bool Covers(const Cidr& outer, const Cidr& inner);

// The address after or before this one in its family; nothing at the end of the address space.
std::optional<IpAddress> Next(const IpAddress& address);
std::optional<IpAddress> Previous(const IpAddress& address);

// Sorted, disjoint, not adjacent: the canonical form of a set of addresses.
std::vector<AddressRange> Merge(std::vector<AddressRange> ranges);
std::vector<AddressRange> Subtract(const AddressRange& from, const std::vector<AddressRange>& holes);
std::vector<AddressRange> RangesOf(const IpBlock& block);

}  // namespace vsocket::model
