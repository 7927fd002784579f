#include "node-agent/enforce/element_sets.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace vsocket::enforce {
namespace {

using model::AddressRange;
using model::AllowEntry;
using model::IpAddress;

struct Ports {
  model::Protocol protocol;
  std::uint16_t first;
  std::uint16_t last;
  auto operator<=>(const Ports&) const = default;
};

std::vector<Ports> MergePorts(const std::multiset<Ports>& active) {
  std::vector<Ports> merged;
  for (const Ports& ports : active) {
    if (!merged.empty() && merged.back().protocol == ports.protocol && static_cast<unsigned>(ports.first) <= merged.back().last + 1u) {
      merged.back().last = std::max(merged.back().last, ports.last);
    } else {
      merged.push_back(ports);
    }
  }
  return merged;
}

// Adds the box, or makes the last one longer when it has the same ports and ends right before this one.
void Extend(std::vector<std::pair<AddressRange, std::vector<Ports>>>& boxes, const AddressRange& range, std::vector<Ports> ports) {
  if (!boxes.empty() && boxes.back().second == ports && model::Next(boxes.back().first.last) == range.first) {
    boxes.back().first.last = range.last;
  } else {
    boxes.emplace_back(range, std::move(ports));
  }
}

}  // namespace

ElementSets Disjoint(const std::vector<AllowEntry>& entries, bool ipv4) {
  ElementSets sets;
  for (const AllowEntry& entry : entries) {
    if (entry.remote.first.IsV4() == ipv4 && !entry.protocol) sets.any.push_back(entry.remote);
  }
  sets.any = model::Merge(std::move(sets.any));

  // A sweep over the addresses: at each the ports that begin, and those that ended right before.
  struct Edge {
    std::vector<Ports> begin, end;
  };
  std::map<IpAddress, Edge> edges;
  for (const AllowEntry& entry : entries) {
    if (entry.remote.first.IsV4() != ipv4 || !entry.protocol) continue;
    const Ports ports{*entry.protocol, entry.first_port, entry.last_port};
    for (const AddressRange& range : model::Subtract(entry.remote, sets.any)) {
      edges[range.first].begin.push_back(ports);
      if (const auto after = model::Next(range.last)) edges[*after].end.push_back(ports);
    }
  }
  std::vector<std::pair<AddressRange, std::vector<Ports>>> boxes;
  std::multiset<Ports> active;
  for (auto edge = edges.begin(); edge != edges.end(); ++edge) {
    for (const Ports& ports : edge->second.end) active.erase(active.find(ports));
    active.insert(edge->second.begin.begin(), edge->second.begin.end());
    if (active.empty()) continue;
    const auto next = std::next(edge);
    // Past the last edge something is active only when it reaches the end of the address space.
    const IpAddress last = next != edges.end() ? *model::Previous(next->first) : model::RangeOf({edge->first, 0}).last;
    Extend(boxes, {edge->first, last}, MergePorts(active));
  }
  for (const auto& [range, ports] : boxes) {
    for (const Ports& p : ports) sets.ports.push_back({range, p.protocol, p.first, p.last});
  }
  return sets;
}

}  // namespace vsocket::enforce
