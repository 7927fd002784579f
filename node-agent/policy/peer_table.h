// One direction of one policy as look-ups: by the groups that the other end is in, and by its address. However many rules a policy has, a
// verdict costs as many look-ups as the other end has groups and the policy has lengths of prefixes.
//
// Thread safety: a sealed table may be read from any thread.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "node-agent/model/address_range.h"
#include "node-agent/model/cluster.h"
#include "node-agent/policy/ids.h"
#include "node-agent/policy/ports.h"

namespace vsocket::policy {

struct IpAddressHash {
  std::size_t operator()(const model::IpAddress& address) const {
    const auto& bytes = address.Bytes();
    return std::hash<std::string_view>()({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
};

class PeerTable {
 public:
  struct Block {
    model::IpBlock block;
    std::vector<model::AddressRange> ranges;  // sealed: sorted, disjoint
    PortTable ports;
  };

  // Of valid peers and ports only (validity.h).
  void AddAnyone(const std::vector<model::PolicyPort>& ports, std::uint32_t rule);
  void AddGroup(GroupId group, const std::vector<model::PolicyPort>& ports, RuleRef ref);
  void AddBlock(const model::IpBlock& block, const std::vector<model::PolicyPort>& ports, RuleRef ref);
  void Seal();  // once, after the last of them

  // The other end and what is asked of the destination.
  struct Question {
    const model::IpAddress* address = nullptr;     // null: not known, no ipBlock matches
    const std::vector<GroupId>* groups = nullptr;  // of the other end's identity, sorted; null: it is no pod
    const model::Pod* destination = nullptr;       // null: no pod
    model::Protocol protocol = model::Protocol::kTcp;
    std::uint16_t port = 0;
  };
  // The first rule, and in it the first peer, that allows it.
  [[nodiscard]] std::optional<RuleRef> Find(const Question& question) const;

  [[nodiscard]] const PortTable& Anyone() const { return anyone_; }
  [[nodiscard]] const std::vector<std::pair<GroupId, PortTable>>& Groups() const { return groups_; }  // sorted
  [[nodiscard]] const std::vector<Block>& Blocks() const { return blocks_; }
  [[nodiscard]] const PortTable* PortsOf(GroupId group) const;  // null: no rule is about the group

 private:
  struct Prefix {
    bool ipv4;
    unsigned length;
    std::unordered_map<model::IpAddress, std::vector<std::uint32_t>, IpAddressHash> blocks;  // by their first address
  };
  void FindBlocks(const Question& question, std::optional<RuleRef>& best) const;

  PortTable anyone_;
  std::vector<std::pair<GroupId, PortTable>> groups_;
  std::vector<Block> blocks_;
  std::vector<Prefix> prefixes_;
  // While it is filled: where what is already there is.
  std::unordered_map<GroupId, std::size_t> group_at_;
  std::unordered_map<std::string, std::size_t> block_at_;
};

}  // namespace vsocket::policy
