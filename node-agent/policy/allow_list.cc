#include "node-agent/policy/allow_list.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "node-agent/model/address_range.h"

namespace vsocket::policy {
namespace {

using model::AddressRange;
using model::AllowEntry;

struct PortRange {
  std::optional<model::Protocol> protocol;
  std::uint16_t first = 0;
  std::uint16_t last = 65535;
};

// The ranges that a rule's ports mean at `destination` (null: not a pod, names resolve to nothing).
std::vector<PortRange> Resolve(const model::PolicyRule& rule, const model::Pod* destination) {
  if (rule.ports.empty()) return {PortRange{}};
  std::vector<PortRange> ranges;
  for (const model::PolicyPort& port : rule.ports) {
    if (!port.name.empty()) {
      if (destination == nullptr) continue;
      for (const model::ContainerPort& offered : destination->ports) {
        if (offered.name == port.name && offered.protocol == port.protocol)
          ranges.push_back({port.protocol, offered.number, offered.number});
      }
    } else if (port.number) {
      ranges.push_back({port.protocol, *port.number, port.end.value_or(*port.number)});
    } else {
      ranges.push_back({port.protocol, 0, 65535});
    }
  }
  return ranges;
}

class Flattener {
 public:
  Flattener(const CompiledPolicies& compiled, std::size_t pod, Direction direction)
      : compiled_(compiled), self_(compiled.PodAt(pod)), direction_(direction) {}

  void Add(const CompiledRule& rule) {
    if (rule.peers.empty()) {
      static const std::vector<AddressRange> kEveryone = {RangeOf(*model::ParseCidr("0.0.0.0/0")), RangeOf(*model::ParseCidr("::/0"))};
      AddRanges(rule, kEveryone);
    }
    for (const CompiledPeer& peer : rule.peers) {
      if (peer.block != nullptr) {
        AddRanges(rule, model::RangesOf(*peer.block));
      } else {
        AddGroup(rule, peer.group);
      }
    }
  }

  std::vector<AllowEntry> Take() {
    std::sort(entries_.begin(), entries_.end());
    entries_.erase(std::unique(entries_.begin(), entries_.end()), entries_.end());
    return std::move(entries_);
  }

 private:
  void Emit(const AddressRange& remote, const std::vector<PortRange>& ports) {
    for (const PortRange& port : ports) entries_.push_back({remote, port.protocol, port.first, port.last});
  }

  bool HasNamedPort(const CompiledRule& rule) const {
    return std::any_of(rule.source->ports.begin(), rule.source->ports.end(),
                       [](const model::PolicyPort& port) { return !port.name.empty(); });
  }

  // Pods and others alike. For egress a name has as many meanings as there are pods in the range.
  void AddRanges(const CompiledRule& rule, const std::vector<AddressRange>& ranges) {
    const auto ports = Resolve(*rule.source, direction_ == Direction::kIngress ? &self_ : nullptr);
    for (const AddressRange& range : ranges) Emit(range, ports);
    if (direction_ == Direction::kIngress || !HasNamedPort(rule)) return;
    ForEachPodAddress([&](std::size_t pod, const model::IpAddress& ip) {
      const bool inside = std::any_of(ranges.begin(), ranges.end(), [&](const AddressRange& range) { return range.Contains(ip); });
      if (inside && compiled_.PodsAt(ip).size() == 1) Emit({ip, ip}, Resolve(*rule.source, &compiled_.PodAt(pod)));
    });
  }

  void AddGroup(const CompiledRule& rule, std::size_t group) {
    const bool per_pod_ports = direction_ == Direction::kEgress && HasNamedPort(rule);
    const auto ports = Resolve(*rule.source, direction_ == Direction::kIngress ? &self_ : nullptr);
    ForEachPodAddress([&](std::size_t pod, const model::IpAddress& ip) {
      const auto& claimants = compiled_.PodsAt(ip);
      if (!std::all_of(claimants.begin(), claimants.end(), [&](std::size_t claimant) { return compiled_.InGroup(claimant, group); }))
        return;
      if (per_pod_ports && claimants.size() == 1) {
        Emit({ip, ip}, Resolve(*rule.source, &compiled_.PodAt(pod)));
      } else {
        Emit({ip, ip}, ports);
      }
    });
  }

  template <typename F>
  void ForEachPodAddress(F&& visit) {
    for (std::size_t pod = 0; pod < compiled_.State().pods.size(); ++pod) {
      if (!compiled_.InPodNetwork(pod)) continue;
      for (const model::IpAddress& ip : compiled_.PodAt(pod).ips) visit(pod, ip);
    }
  }

  const CompiledPolicies& compiled_;
  const model::Pod& self_;
  const Direction direction_;
  std::vector<AllowEntry> entries_;
};

model::DirectionAllowList Flatten(const CompiledPolicies& compiled, std::size_t pod, Direction direction) {
  model::DirectionAllowList list;
  const auto& policies = compiled.Isolating(pod, direction);
  list.isolated = !policies.empty();
  Flattener flattener(compiled, pod, direction);
  for (const CompiledPolicy* policy : policies) {
    for (const CompiledRule& rule : policy->Rules(direction)) flattener.Add(rule);
  }
  list.entries = flattener.Take();
  return list;
}

}  // namespace

model::AllowList FlattenFor(const CompiledPolicies& compiled, std::size_t pod) {
  model::AllowList list;
  if (pod == CompiledPolicies::kNoPod || !compiled.InPodNetwork(pod)) return list;
  list.ingress = Flatten(compiled, pod, Direction::kIngress);
  list.egress = Flatten(compiled, pod, Direction::kEgress);
  return list;
}

}  // namespace vsocket::policy
