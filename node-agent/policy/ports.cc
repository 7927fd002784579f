#include "node-agent/policy/ports.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <tuple>

namespace vsocket::policy {
namespace {

constexpr model::Protocol kProtocols[] = {model::Protocol::kTcp, model::Protocol::kUdp, model::Protocol::kSctp};

}  // namespace

std::optional<std::uint16_t> NumberOf(const model::Pod& pod, const std::string& name, model::Protocol protocol) {
  std::optional<std::uint16_t> number;
  for (const model::ContainerPort& port : pod.ports) {
    if (port.protocol != protocol || port.name != name || name.empty()) continue;
    if (number && *number != port.number) return std::nullopt;
    number = port.number;
  }
  return number;
}

std::vector<std::string> AmbiguousPortNames(const model::Pod& pod) {
  std::set<std::string> names;
  for (const model::ContainerPort& port : pod.ports) {
    if (!port.name.empty() && !NumberOf(pod, port.name, port.protocol)) names.insert(port.name);
  }
  return {names.begin(), names.end()};
}

void PortTable::Add(const std::vector<model::PolicyPort>& ports, RuleRef ref) {
  if (ports.empty() && (!all_ || ref < *all_)) all_ = ref;
  for (const model::PolicyPort& port : ports) {
    if (!port.name.empty()) {
      names_.push_back({port.name, port.protocol, ref});
    } else if (port.number) {
      segments_.push_back({port.protocol, *port.number, port.end.value_or(*port.number), ref});
    } else {
      segments_.push_back({port.protocol, 0, 65535, ref});
    }
  }
}

void PortTable::Seal() {
  std::sort(names_.begin(), names_.end());
  names_.erase(
      std::unique(names_.begin(), names_.end(), [](const Name& a, const Name& b) { return a.name == b.name && a.protocol == b.protocol; }),
      names_.end());
  if (segments_.size() < 2) return;

  // Sweeps over the ports of each protocol; of the rules that list a port the first is kept.
  struct Edge {
    std::uint32_t at;
    bool begins;
    RuleRef ref;
  };
  std::vector<Segment> sealed;
  for (const model::Protocol protocol : kProtocols) {
    std::vector<Edge> edges;
    for (const Segment& segment : segments_) {
      if (segment.protocol != protocol) continue;
      edges.push_back({segment.first, true, segment.ref});
      edges.push_back({segment.last + 1U, false, segment.ref});
    }
    std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a.at < b.at; });
    std::multiset<RuleRef> open;
    const auto from = sealed.size();
    for (std::size_t i = 0; i < edges.size();) {
      const std::uint32_t at = edges[i].at;
      for (; i < edges.size() && edges[i].at == at; ++i) {
        if (edges[i].begins) {
          open.insert(edges[i].ref);
        } else {
          open.erase(open.find(edges[i].ref));
        }
      }
      if (open.empty()) continue;
      const auto first = static_cast<std::uint16_t>(at);
      const auto last = static_cast<std::uint16_t>(edges[i].at - 1);  // whatever is open ends at a later edge
      if (sealed.size() > from && sealed.back().ref == *open.begin() && sealed.back().last + 1U == first) {
        sealed.back().last = last;
      } else {
        sealed.push_back({protocol, first, last, *open.begin()});
      }
    }
  }
  segments_ = std::move(sealed);
  segments_.shrink_to_fit();
}

const PortTable::Name* PortTable::FindName(const std::string& name, model::Protocol protocol) const {
  const auto found = std::lower_bound(names_.begin(), names_.end(), std::tie(name, protocol),
                                      [](const Name& a, const auto& b) { return std::tie(a.name, a.protocol) < b; });
  return found != names_.end() && found->name == name && found->protocol == protocol ? &*found : nullptr;
}

std::optional<RuleRef> PortTable::Find(model::Protocol protocol, std::uint16_t number, const model::Pod* destination) const {
  std::optional<RuleRef> best = all_;
  const auto take = [&best](const RuleRef& ref) {
    if (!best || ref < *best) best = ref;
  };
  const auto after =
      std::upper_bound(segments_.begin(), segments_.end(), std::tie(protocol, number),
                       [](const auto& at, const Segment& segment) { return at < std::tie(segment.protocol, segment.first); });
  if (after != segments_.begin()) {
    const Segment& segment = *std::prev(after);
    if (segment.protocol == protocol && number <= segment.last) take(segment.ref);
  }
  if (names_.empty() || destination == nullptr) return best;
  for (const model::ContainerPort& port : destination->ports) {
    if (port.number != number || port.protocol != protocol || port.name.empty()) continue;
    const Name* name = FindName(port.name, protocol);
    if (name != nullptr && NumberOf(*destination, port.name, protocol)) take(name->ref);
  }
  return best;
}

std::vector<PortRange> PortTable::Numbers() const {
  if (all_) return {PortRange{}};
  std::vector<PortRange> ranges;
  for (const Segment& segment : segments_) {
    if (!ranges.empty() && ranges.back().protocol == segment.protocol && ranges.back().last + 1U == segment.first) {
      ranges.back().last = segment.last;
    } else {
      ranges.push_back({segment.protocol, segment.first, segment.last});
    }
  }
  return ranges;
}

void PortTable::AppendNamed(const model::Pod& destination, std::vector<PortRange>& out) const {
  if (names_.empty()) return;
  for (const model::ContainerPort& port : destination.ports) {
    if (port.name.empty() || FindName(port.name, port.protocol) == nullptr) continue;
    if (NumberOf(destination, port.name, port.protocol)) out.push_back({port.protocol, port.number, port.number});
  }
}

}  // namespace vsocket::policy
