// One pod's side of all its policies as addresses: the stage between groups and nftables.
//
// Where two pods claim one address, a selector lets it in only when it matches both, which is never wider than a verdict.
//
// Thread safety: pure functions of their arguments.
#pragma once

#include <span>
#include <unordered_map>
#include <vector>

#include "node-agent/model/allow_list.h"
#include "node-agent/policy/tables.h"

namespace vsocket::policy {

// The entries that do not depend on what other pods there are; sorted, unique. The pod is InPodNetwork.
std::vector<model::AllowEntry> FixedEntries(const Tables& tables, PodId pod, Direction direction);

// The entries that are there because of the pods behind an address. What an identity may do is worked out once, however many pods have it:
// so one of these is for many addresses of one state of the tables.
class AddressEntries {
 public:
  AddressEntries(const Tables& tables, PodId pod, Direction direction);
  // Sorted, unique; after what is in `out`.
  void Append(const model::IpAddress& address, std::vector<model::AllowEntry>& out);

 private:
  struct Ports {
    std::vector<PortRange> numbers;
    std::vector<const PortTable*> names;  // of the other end
  };
  struct NamedRange {
    const std::vector<model::AddressRange>* ranges;  // null: everyone
    const PortTable* ports;
  };
  [[nodiscard]] Ports PortsOf(std::span<const PodId> behind) const;

  const Tables& tables_;
  const model::Pod& self_;
  const Direction direction_;
  std::vector<const PeerTable*> peers_;
  std::vector<NamedRange> named_ranges_;  // for egress only
  std::unordered_map<IdentityId, Ports> by_identity_;
};

// The addresses for which AddressEntries may give something; sorted.
std::vector<model::IpAddress> AddressesFor(const Tables& tables, PodId pod, Direction direction);

// `pod` may be kNone, finished or in the host's network: not isolated then. Node addresses and the name are left to the caller.
model::AllowList FlattenFor(const Tables& tables, PodId pod);

}  // namespace vsocket::policy
