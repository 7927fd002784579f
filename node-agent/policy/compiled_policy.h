// One policy, compiled by itself: its selectors have become groups, its rules tables.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "node-agent/model/cluster.h"
#include "node-agent/policy/ids.h"
#include "node-agent/policy/membership.h"
#include "node-agent/policy/peer_table.h"

namespace vsocket::policy {

struct CompiledPolicy {
  std::string name;                   // "ns/name"
  std::array<bool, 2> isolates{};     // by Direction
  std::array<PeerTable, 2> peers;     // by Direction
  GroupId subjects = kNone;           // the pods it selects
  std::vector<GroupId> groups;        // every use of a group that it has acquired, `subjects` among them
  std::vector<std::string> problems;  // validity.h
  [[nodiscard]] const PeerTable& Peers(Direction direction) const { return peers[Index(direction)]; }
};

// Acquires its groups; the counterpart is ReleaseGroup for each of `groups`.
CompiledPolicy Compile(const model::NetworkPolicy& policy, Membership& membership);

}  // namespace vsocket::policy
