// The ports of NetworkPolicy rules, and what a named port means at a pod.
//
// Thread safety: values; a sealed table may be read from any thread.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/model/cluster.h"

namespace vsocket::policy {

// Which part of a policy decides. Counted from 1 within the policy's list of the direction; peer 0: the rule is open to everyone.
struct RuleRef {
  std::uint32_t rule = 0;
  std::uint32_t peer = 0;
  auto operator<=>(const RuleRef&) const = default;
};

struct PortRange {
  std::optional<model::Protocol> protocol;  // nothing: every protocol and port
  std::uint16_t first = 0;
  std::uint16_t last = 65535;  // inclusive
  auto operator<=>(const PortRange&) const = default;
};

// The number of the port that the pod's containers call so. Nothing when none does, or when the name has several numbers of one protocol
// (two containers may use one name: the API server does not mind): then nobody can tell which one a rule means, so it means neither.
std::optional<std::uint16_t> NumberOf(const model::Pod& pod, const std::string& name, model::Protocol protocol);
// The names that mean several numbers; sorted.
std::vector<std::string> AmbiguousPortNames(const model::Pod& pod);

// What the rules of one policy that share a peer say about ports: for each port the first rule that lists it.
class PortTable {
 public:
  // A rule's port list, each of them valid (validity.h). Empty: every port of every protocol.
  void Add(const std::vector<model::PolicyPort>& ports, RuleRef ref);
  // Once, after the last Add.
  void Seal();

  // The first rule that lists this port. `destination`: the pod that is connected to, where a named port gets its number; null when it is
  // no pod: a name then matches nothing.
  [[nodiscard]] std::optional<RuleRef> Find(model::Protocol protocol, std::uint16_t number, const model::Pod* destination) const;

  // What is listed by number: sorted, disjoint, not adjacent. One range without a protocol when everything is.
  [[nodiscard]] std::vector<PortRange> Numbers() const;
  // What is listed by name, as it is at this pod.
  void AppendNamed(const model::Pod& destination, std::vector<PortRange>& out) const;
  [[nodiscard]] bool HasNames() const { return !names_.empty(); }

 private:
  struct Segment {
    model::Protocol protocol;
    std::uint16_t first, last;
    RuleRef ref;
  };
  struct Name {
    std::string name;
    model::Protocol protocol;
    RuleRef ref;
    auto operator<=>(const Name&) const = default;
  };
  [[nodiscard]] const Name* FindName(const std::string& name, model::Protocol protocol) const;

  std::optional<RuleRef> all_;     // lists every port of every protocol
  std::vector<Segment> segments_;  // sealed: sorted, disjoint
  std::vector<Name> names_;        // sealed: sorted; the first rule of each name and protocol
};

}  // namespace vsocket::policy
