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

// Names are the destination's: for ingress the pod's own, for egress those of each pod behind the addresses (EntriesFor).
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

// The groups that every one of the pods is in, and that the table has rules about.
template <typename F>
void ForEachCommonGroup(const Tables& tables, const PeerTable& peers, std::span<const PodId> pods, F&& visit) {
  for (const GroupId group : tables.GroupsOf(pods.front())) {
    const PortTable* ports = peers.PortsOf(group);
    if (ports == nullptr) continue;
    const bool common = std::all_of(pods.begin() + 1, pods.end(), [&](PodId pod) {
      return std::binary_search(tables.GroupsOf(pod).begin(), tables.GroupsOf(pod).end(), group);
    });
    if (common) visit(*ports);
  }
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

std::vector<AllowEntry> EntriesFor(const Tables& tables, PodId pod, Direction direction, const model::IpAddress& address) {
  std::vector<AllowEntry> entries;
  const auto behind = tables.PodsAt(address);
  if (behind.empty()) return entries;
  const bool names_of_remote = direction == Direction::kEgress && behind.size() == 1;
  std::vector<PortRange> ports;
  for (const PolicyId id : tables.Isolating(pod, direction)) {
    const PeerTable& peers = tables.Policies().At(id).Peers(direction);
    ForEachCommonGroup(tables, peers, behind, [&](const PortTable& table) {
      const auto own = OwnPorts(table, tables.PodAt(pod), direction);
      ports.insert(ports.end(), own.begin(), own.end());
      if (names_of_remote) table.AppendNamed(tables.PodAt(behind.front()), ports);
    });
    if (!names_of_remote) continue;
    peers.Anyone().AppendNamed(tables.PodAt(behind.front()), ports);
    for (const PeerTable::Block& block : peers.Blocks()) {
      if (block.ports.HasNames() && Holds(block.ranges, address)) block.ports.AppendNamed(tables.PodAt(behind.front()), ports);
    }
  }
  Emit({address, address}, ports, entries);
  SortUnique(entries);
  return entries;
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
    side.entries = FixedEntries(tables, pod, direction);
    for (const model::IpAddress& address : AddressesFor(tables, pod, direction)) {
      const auto entries = EntriesFor(tables, pod, direction, address);
      side.entries.insert(side.entries.end(), entries.begin(), entries.end());
    }
    SortUnique(side.entries);
  }
  return list;
}

}  // namespace vsocket::policy
