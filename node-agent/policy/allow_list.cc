#include "node-agent/policy/allow_list.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "node-agent/model/address_range.h"

namespace vsocket::policy {
namespace {

using model::AddressRange;
using model::AllowEntry;

void Emit(const AddressRange& remote, const std::vector<PortRange>& ports, std::vector<AllowEntry>& out) {
  for (const PortRange& port : ports) out.push_back({remote, port.protocol, port.first, port.last});
}

void SortUnique(std::vector<AllowEntry>& entries) {
  std::sort(entries.begin(), entries.end());
  entries.erase(std::unique(entries.begin(), entries.end()), entries.end());
}

// Names are the destination's: for ingress the pod's own, for egress those of each pod behind the addresses (AddressEntries).
std::vector<PortRange> OwnPorts(const PortTable& table, const model::Pod& self, Direction direction) {
  std::vector<PortRange> ports = table.Numbers();
  if (direction == Direction::kIngress) table.AppendNamed(self, ports);
  return ports;
}

bool Holds(const std::vector<AddressRange>& ranges, const model::IpAddress& address) {
  return std::any_of(ranges.begin(), ranges.end(), [&](const AddressRange& range) { return range.Contains(address); });
}

bool NamesPortsOfRanges(const PeerTable& peers) {
  return peers.Anyone().HasNames() ||
         std::any_of(peers.Blocks().begin(), peers.Blocks().end(), [](const auto& block) { return block.ports.HasNames(); });
}

// Sorted, and none within another of its protocol.
void Simplify(std::vector<PortRange>& ports) {
  std::sort(ports.begin(), ports.end());
  if (!ports.empty() && !ports.front().protocol) ports.resize(1);  // everything: sorts first
  std::vector<PortRange> merged;
  for (const PortRange& port : ports) {
    if (!merged.empty() && merged.back().protocol == port.protocol && port.first <= merged.back().last + 1U) {
      merged.back().last = std::max(merged.back().last, port.last);
    } else {
      merged.push_back(port);
    }
  }
  ports = std::move(merged);
}

}  // namespace

std::vector<AllowEntry> FixedEntries(const Tables& tables, PodId pod, Direction direction) {
  static const std::vector<AddressRange> kEveryone = {RangeOf(*model::ParseCidr("0.0.0.0/0")), RangeOf(*model::ParseCidr("::/0"))};
  const model::Pod& self = tables.PodAt(pod);
  std::vector<AllowEntry> entries;
  for (const PolicyId id : tables.Isolating(pod, direction)) {
    const PeerTable& peers = tables.Policies().At(id).Peers(direction);
    const std::vector<PortRange> anyone = OwnPorts(peers.Anyone(), self, direction);
    for (const AddressRange& range : kEveryone) Emit(range, anyone, entries);
    for (const PeerTable::Block& block : peers.Blocks()) {
      const std::vector<PortRange> ports = OwnPorts(block.ports, self, direction);
      for (const AddressRange& range : block.ranges) Emit(range, ports, entries);
    }
  }
  SortUnique(entries);
  return entries;
}

AddressEntries::AddressEntries(const Tables& tables, PodId pod, Direction direction)
    : tables_(tables), self_(tables.PodAt(pod)), direction_(direction) {
  for (const PolicyId id : tables.Isolating(pod, direction)) {
    const PeerTable& peers = tables.Policies().At(id).Peers(direction);
    peers_.push_back(&peers);
    if (direction == Direction::kIngress) continue;
    if (peers.Anyone().HasNames()) named_ranges_.push_back({nullptr, &peers.Anyone()});
    for (const PeerTable::Block& block : peers.Blocks()) {
      if (block.ports.HasNames()) named_ranges_.push_back({&block.ranges, &block.ports});
    }
  }
}

// What groups that every one of the pods is in are let do.
AddressEntries::Ports AddressEntries::PortsOf(std::span<const PodId> behind) const {
  Ports ports;
  for (const PeerTable* peers : peers_) {
    for (const GroupId group : tables_.GroupsOf(behind.front())) {
      const PortTable* table = peers->PortsOf(group);
      if (table == nullptr) continue;
      const bool common = std::all_of(behind.begin() + 1, behind.end(), [&](PodId pod) {
        return std::binary_search(tables_.GroupsOf(pod).begin(), tables_.GroupsOf(pod).end(), group);
      });
      if (!common) continue;
      const auto own = OwnPorts(*table, self_, direction_);
      ports.numbers.insert(ports.numbers.end(), own.begin(), own.end());
      if (direction_ == Direction::kEgress && table->HasNames()) ports.names.push_back(table);
    }
  }
  Simplify(ports.numbers);
  return ports;
}

void AddressEntries::Append(const model::IpAddress& address, std::vector<AllowEntry>& out) {
  const auto behind = tables_.PodsAt(address);
  if (behind.empty()) return;
  if (behind.size() > 1) return Emit({address, address}, PortsOf(behind).numbers, out);  // whose names, nobody can tell
  const IdentityId identity = tables_.Pods().IdentityOf(behind.front());
  auto known = by_identity_.find(identity);
  if (known == by_identity_.end()) known = by_identity_.emplace(identity, PortsOf(behind)).first;
  const Ports& ports = known->second;
  if (ports.names.empty() && named_ranges_.empty()) return Emit({address, address}, ports.numbers, out);
  const model::Pod& remote = tables_.PodAt(behind.front());
  std::vector<PortRange> all = ports.numbers;
  for (const PortTable* table : ports.names) table->AppendNamed(remote, all);
  for (const NamedRange& range : named_ranges_) {
    if (range.ranges == nullptr || Holds(*range.ranges, address)) range.ports->AppendNamed(remote, all);
  }
  Simplify(all);
  Emit({address, address}, all, out);
}

std::vector<model::IpAddress> AddressesFor(const Tables& tables, PodId pod, Direction direction) {
  std::vector<model::IpAddress> addresses;
  std::vector<GroupId> groups;
  bool all = false;
  for (const PolicyId id : tables.Isolating(pod, direction)) {
    const PeerTable& peers = tables.Policies().At(id).Peers(direction);
    all = all || (direction == Direction::kEgress && NamesPortsOfRanges(peers));
    for (const auto& [group, ports] : peers.Groups()) groups.push_back(group);
  }
  if (all) {
    tables.Pods().ForEachAddress([&](const model::IpAddress& address) { addresses.push_back(address); });
  } else {
    std::vector<IdentityId> identities;
    for (const GroupId group : groups) {
      const auto& members = tables.Members().MembersOf(group);
      identities.insert(identities.end(), members.begin(), members.end());
    }
    std::sort(identities.begin(), identities.end());
    identities.erase(std::unique(identities.begin(), identities.end()), identities.end());
    for (const IdentityId identity : identities) {
      for (const PodId member : tables.Pods().WithIdentity(identity)) {
        const auto& ips = tables.PodAt(member).ips;
        addresses.insert(addresses.end(), ips.begin(), ips.end());
      }
    }
  }
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  return addresses;
}

model::AllowList FlattenFor(const Tables& tables, PodId pod) {
  model::AllowList list;
  if (pod == kNone || !tables.InPodNetwork(pod)) return list;
  for (const Direction direction : kDirections) {
    model::DirectionAllowList& side = direction == Direction::kIngress ? list.ingress : list.egress;
    side.isolated = !tables.Isolating(pod, direction).empty();
    const std::vector<AllowEntry> fixed = FixedEntries(tables, pod, direction);
    std::vector<AllowEntry> of_pods;
    AddressEntries entries(tables, pod, direction);
    for (const model::IpAddress& address : AddressesFor(tables, pod, direction)) entries.Append(address, of_pods);
    side.entries.reserve(fixed.size() + of_pods.size());
    std::set_union(fixed.begin(), fixed.end(), of_pods.begin(), of_pods.end(), std::back_inserter(side.entries));
  }
  return list;
}

}  // namespace vsocket::policy
