#include "node-agent/policy/peer_table.h"

#include <algorithm>
#include <iterator>

namespace vsocket::policy {
namespace {

std::string KeyOf(const model::IpBlock& block) {
  std::string key = ToString(block.cidr);
  for (const model::Cidr& hole : block.except) key += "-" + ToString(hole);
  return key;
}

bool Holds(const std::vector<model::AddressRange>& ranges, const model::IpAddress& address) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), address,
                                      [](const model::IpAddress& at, const model::AddressRange& range) { return at < range.first; });
  return after != ranges.begin() && std::prev(after)->Contains(address);
}

void Take(std::optional<RuleRef>& best, const std::optional<RuleRef>& found) {
  if (found && (!best || *found < *best)) best = found;
}

}  // namespace

void PeerTable::AddAnyone(const std::vector<model::PolicyPort>& ports, std::uint32_t rule) {
  anyone_.Add(ports, {rule, 0});
}

void PeerTable::AddGroup(GroupId group, const std::vector<model::PolicyPort>& ports, RuleRef ref) {
  const auto [entry, added] = group_at_.try_emplace(group, groups_.size());
  if (added) groups_.emplace_back(group, PortTable());
  groups_[entry->second].second.Add(ports, ref);
}

void PeerTable::AddBlock(const model::IpBlock& block, const std::vector<model::PolicyPort>& ports, RuleRef ref) {
  const auto [entry, added] = block_at_.try_emplace(KeyOf(block), blocks_.size());
  if (added) blocks_.push_back({block, RangesOf(block), {}});
  blocks_[entry->second].ports.Add(ports, ref);
}

void PeerTable::Seal() {
  anyone_.Seal();
  for (auto& [group, ports] : groups_) ports.Seal();
  std::sort(groups_.begin(), groups_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::map<std::pair<bool, unsigned>, std::size_t> at;
  for (std::uint32_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i].ports.Seal();
    const model::Cidr& cidr = blocks_[i].block.cidr;
    const auto [entry, added] = at.try_emplace({cidr.base.IsV4(), cidr.prefix}, prefixes_.size());
    if (added) prefixes_.push_back({cidr.base.IsV4(), cidr.prefix, {}});
    prefixes_[entry->second].blocks[RangeOf(cidr).first].push_back(i);
  }
  group_at_ = {};
  block_at_ = {};
}

const PortTable* PeerTable::PortsOf(GroupId group) const {
  const auto found =
      std::lower_bound(groups_.begin(), groups_.end(), group, [](const auto& entry, GroupId wanted) { return entry.first < wanted; });
  return found != groups_.end() && found->first == group ? &found->second : nullptr;
}

void PeerTable::FindBlocks(const Question& question, std::optional<RuleRef>& best) const {
  for (const Prefix& prefix : prefixes_) {
    if (prefix.ipv4 != question.address->IsV4()) continue;
    const auto found = prefix.blocks.find(model::RangeOf({*question.address, prefix.length}).first);
    if (found == prefix.blocks.end()) continue;
    for (const std::uint32_t index : found->second) {
      const Block& block = blocks_[index];
      if (!Holds(block.ranges, *question.address)) continue;
      Take(best, block.ports.Find(question.protocol, question.port, question.destination));
    }
  }
}

std::optional<RuleRef> PeerTable::Find(const Question& question) const {
  std::optional<RuleRef> best = anyone_.Find(question.protocol, question.port, question.destination);
  if (question.address != nullptr) FindBlocks(question, best);
  if (question.groups == nullptr) return best;
  const auto ask = [&](const PortTable& ports) { Take(best, ports.Find(question.protocol, question.port, question.destination)); };
  // The shorter list is walked, the longer one searched.
  if (question.groups->size() < groups_.size()) {
    for (const GroupId group : *question.groups) {
      if (const PortTable* ports = PortsOf(group)) ask(*ports);
    }
  } else {
    for (const auto& [group, ports] : groups_) {
      if (std::binary_search(question.groups->begin(), question.groups->end(), group)) ask(ports);
    }
  }
  return best;
}

}  // namespace vsocket::policy
