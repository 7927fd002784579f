#include "node-agent/broker/channel_table.h"

#include <sys/random.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace vsocket::broker {
namespace {

using channel::Reason;

// One scrape or one channel cannot add more than this to the totals: the words that say so are in a pod's hands.
constexpr std::uint64_t kPlausibleBytes = 1ULL << 50;

std::uint64_t RandomNumber() {
  std::uint64_t number = 0;
  while (number == 0) {
    // Never short for 8 bytes once the pool is initialised; getrandom(2).
    if (::getrandom(&number, sizeof number, 0) != static_cast<ssize_t>(sizeof number)) number = 0;
  }
  return number;
}

Reason ReasonOf(const model::RegionError& error) {
  return error.kind == model::RegionError::Kind::kNoMemory ? Reason::kNoMemory : Reason::kBadRequest;
}

// What the region was last used for.
void Describe(RegionRecord* region, const Channel& channel) {
  const End& known = channel.end[channel.end[0].cookie == 0 ? 1 : 0];
  region->last_pod = {channel.end[0].pod, channel.end[1].pod};
  region->last_tuple = known.tuple;
  region->last_flow = channel.flow;
}

}  // namespace

ChannelTable::ChannelTable(Quota quota, std::uint64_t lease_ns, std::shared_ptr<model::RegionSource> regions, OnForsaken on_forsaken)
    : quota_(quota), lease_ns_(lease_ns), source_(std::move(regions)), on_forsaken_(std::move(on_forsaken)) {}
// The shims' rings live on: nothing is revoked here, the memory stays theirs.
ChannelTable::~ChannelTable() = default;

bool ChannelTable::MayCharge(const std::string& pod, std::uint32_t channels) const {
  const Usage usage = UsageOf(pod);
  return usage.channels + channels <= quota_.channels && usage.bytes + channels * kChannelBytes <= quota_.bytes;
}

void ChannelTable::Charge(const std::string& pod) {
  Usage& usage = usage_[pod];
  ++usage.channels;
  usage.bytes += kChannelBytes;
}

void ChannelTable::Uncharge(const std::string& pod) {
  const auto found = usage_.find(pod);
  if (found == usage_.end()) return;
  --found->second.channels;
  found->second.bytes -= kChannelBytes;
  if (found->second.channels == 0 && found->second.wake_fds == 0) usage_.erase(found);
}

Usage ChannelTable::UsageOf(const std::string& pod) const {
  const auto found = usage_.find(pod);
  return found == usage_.end() ? Usage{} : found->second;
}

RegionRecord* ChannelTable::AddRegion(std::unique_ptr<model::RegionMemory> memory) {
  regions_.emplace_front(std::move(memory));
  RegionRecord* region = &regions_.front();
  region->self = regions_.begin();
  region->next_epoch = static_cast<std::uint32_t>(RandomNumber());
  by_inode_[region->memory->Inode()] = region;
  return region;
}

Result<RegionRecord*, Reason> ChannelTable::RegionFor(OwnerPair owners, std::uint64_t now_ns) {
  const auto [begin, end] = by_owners_.equal_range(owners);
  for (auto it = begin; it != end; ++it) {
    if (it->second->used < channel::kSlots) {
      it->second->memory->RenewLease(now_ns + lease_ns_);  // it may have rested in the cache
      return it->second;
    }
  }
  auto memory = source_->Create(RandomNumber(), now_ns + lease_ns_);
  if (!memory) return Failure(ReasonOf(memory.Error()));
  RegionRecord* region = AddRegion(std::move(memory.Value()));
  region->owner = region->made_for = {owners.first, owners.second};
  by_owners_.emplace(owners, region);
  by_session_.emplace(owners.first, region);
  if (owners.second != owners.first) by_session_.emplace(owners.second, region);
  return region;
}

Channel* ChannelTable::AddChannel(RegionRecord* region, std::uint32_t slot, std::uint32_t epoch) {
  auto owned = std::make_unique<Channel>();
  Channel* channel = owned.get();
  channel->id = next_channel_++;
  channel->region = region;
  channel->slot = slot;
  channel->epoch = epoch;
  region->slots[slot] = channel->id;
  ++region->used;
  channels_.emplace(channel->id, std::move(owned));
  return channel;
}

Result<Channel*, Reason> ChannelTable::Open(const End& first, const End& second, std::uint64_t now_ns) {
  const bool fits = first.pod == second.pod ? MayCharge(first.pod, 2) : MayCharge(first.pod, 1) && MayCharge(second.pod, 1);
  if (!fits) return Failure(Reason::kQuota);
  const OwnerPair owners{first.session, second.session};
  auto region = RegionFor(owners, now_ns);
  if (!region) return Failure(region.Error());

  const auto free = std::find(region.Value()->slots.begin(), region.Value()->slots.end(), ChannelId{0});
  const auto slot = static_cast<std::uint32_t>(free - region.Value()->slots.begin());
  std::uint32_t epoch = ++region.Value()->next_epoch;
  if (epoch == 0) epoch = ++region.Value()->next_epoch;
  region.Value()->memory->PrepareSlot(slot, epoch);

  Channel* channel = AddChannel(region.Value(), slot, epoch);
  channel->end = {first, second};
  for (std::uint32_t side = 0; side < 2; ++side) {
    by_cookie_[channel->end[side].cookie] = {channel->id, side};
    Charge(channel->end[side].pod);
  }
  return channel;
}

Result<Channel*, Reason> ChannelTable::Adopt(const End& end, const channel::ChannelRef& ref, UniqueFd memfd, std::uint64_t now_ns) {
  const auto inode = source_->InodeOf(memfd.Get());
  if (!inode) return Failure(Reason::kBadRequest);
  RegionRecord* region = nullptr;
  const auto known = by_inode_.find(inode.Value());
  if (known != by_inode_.end()) {
    region = known->second;
    if (region->memory->Id() != ref.region_id) return Failure(Reason::kBadRequest);
  }
  Channel* channel = region != nullptr ? ById(region->slots[ref.slot]) : nullptr;
  if (channel != nullptr) {
    // The other end, or an earlier process of this end, was here first: it must be the same connection.
    End& mine = channel->end[ref.side];
    const End& other = channel->end[1 - ref.side];
    if (channel->epoch != ref.epoch || mine.released || (mine.cookie != 0 && mine.cookie != end.cookie) ||
        (mine.cookie == 0 && !other.Mirrors(end))) {
      return Failure(Reason::kBadRequest);
    }
    if (mine.cookie != 0) {
      if (mine.session == 0) TakeOver(channel, ref.side, end.session);
      return channel;
    }
  }
  if (!MayCharge(end.pod, 1)) return Failure(Reason::kQuota);
  if (region == nullptr) {
    auto memory = source_->Adopt(std::move(memfd), ref.region_id);
    if (!memory) return Failure(ReasonOf(memory.Error()));
    if (memory.Value()->Epoch(ref.slot) != ref.epoch) return Failure(Reason::kBadRequest);
    region = AddRegion(std::move(memory.Value()));
    region->adopted = true;
  } else if (channel == nullptr && (!region->adopted || region->memory->Epoch(ref.slot) != ref.epoch)) {
    return Failure(Reason::kBadRequest);  // the slot was given back already, or never held this
  }
  if (channel == nullptr) channel = AddChannel(region, ref.slot, ref.epoch);
  channel->end[ref.side] = end;
  by_cookie_[end.cookie] = {channel->id, ref.side};
  Charge(end.pod);
  TakeOver(channel, ref.side, end.session);
  region->memory->RenewLease(now_ns + lease_ns_);
  return channel;
}

void ChannelTable::TakeOver(Channel* channel, std::uint32_t side, SessionId session) {
  RegionRecord* region = channel->region;
  channel->end[side].session = session;
  if (region->owner[side] != 0) return;
  region->owner[side] = session;
  if (region->owner[1 - side] != session) by_session_.emplace(session, region);
}

Channel* ChannelTable::ByCookie(std::uint64_t cookie, std::uint32_t* side) {
  const auto found = by_cookie_.find(cookie);
  if (found == by_cookie_.end()) return nullptr;
  *side = found->second.second;
  return ById(found->second.first);
}

Channel* ChannelTable::ById(ChannelId id) {
  const auto found = channels_.find(id);
  return found == channels_.end() ? nullptr : found->second.get();
}

RegionRecord* ChannelTable::RegionOf(SessionId session, std::uint64_t region_id) {
  const auto [begin, end] = by_session_.equal_range(session);
  const auto found = std::find_if(begin, end, [&](const auto& entry) { return entry.second->memory->Id() == region_id; });
  return found == end ? nullptr : found->second;
}

bool ChannelTable::Release(Channel* channel, std::uint32_t side) {
  End& end = channel->end[side];
  if (!end.released) {
    end.released = true;
    const auto found = by_cookie_.find(end.cookie);
    if (found != by_cookie_.end() && found->second.first == channel->id) by_cookie_.erase(found);
    if (end.cookie != 0) Uncharge(end.pod);
  }
  if (!channel->end[1 - side].released) {
    // One end that never came back after a restart has nobody to release it: the one that did decides.
    if (channel->end[1 - side].cookie != 0) return false;
  }
  Drop(channel);
  return true;
}

bool ChannelTable::Abandon(Channel* channel, std::uint32_t side) {
  RegionRecord* region = channel->region;
  region->abandoned = true;
  ForgetOwners(region);
  return Release(channel, side);
}

void ChannelTable::Revoke(Channel* channel) {
  RegionRecord* region = channel->region;
  channel->revoked = true;
  region->memory->RevokeSlot(channel->slot, channel->epoch);
  region->retired = true;
  ForgetOwners(region);
}

void ChannelTable::Condemn(Channel* channel, const std::string& why) {
  RegionRecord* region = channel->region;
  region->revoked_why = why;
  Describe(region, *channel);
  ForsakeIfNothingIsAllowed(region);
}

void ChannelTable::RetireUnused(const std::function<std::optional<std::string>(const Tuple&, const model::Flow&)>& forbids) {
  for (auto it = regions_.begin(); it != regions_.end();) {
    RegionRecord* region = &*it++;  // dropped below
    if (region->used != 0 || region->adopted || region->last_pod[0] == region->last_pod[1]) continue;
    auto why = forbids(region->last_tuple, region->last_flow);
    if (!why) continue;
    region->retired = true;
    region->revoked_why = std::move(*why);
    DropRegionIfUnused(region);
  }
}

void ChannelTable::Forsake(RegionRecord* region) {
  if (std::exchange(region->forsaken, true)) return;
  for (const ChannelId id : region->slots) {
    if (id != 0) Count(ById(id));  // for the last time
  }
  if (!region->revoked_why.empty()) region->memory->RevokeAll();
  region->memory->Unmap();
  if (on_forsaken_) on_forsaken_(*region);
}

void ChannelTable::ForsakeIfNothingIsAllowed(RegionRecord* region) {
  if (region->revoked_why.empty() || region->forsaken) return;
  for (std::uint32_t slot = 0; slot < channel::kSlots; ++slot) {
    const ChannelId id = region->slots[slot];
    if (id != 0 && !ById(id)->revoked) return;
    // Of an adopted region a slot that looks free may be that of an allowed connection which has not come back yet.
    if (id == 0 && region->adopted && region->memory->Epoch(slot) != 0) return;
  }
  Forsake(region);
}

void ChannelTable::Count(Channel* channel) {
  const model::RingTraffic traffic = channel->region->memory->Traffic(channel->slot);
  for (std::size_t side = 0; side < 2; ++side) {
    if (traffic.sent[side] > channel->counted[side]) {
      ring_bytes_gone_ += std::min(traffic.sent[side] - channel->counted[side], kPlausibleBytes);
    }
    channel->counted[side] = traffic.sent[side];
  }
}

void ChannelTable::Drop(Channel* channel) {
  RegionRecord* region = channel->region;
  Count(channel);
  if (!region->adopted && !region->abandoned) region->memory->ClearSlot(channel->slot);
  region->slots[channel->slot] = 0;
  --region->used;
  if (region->revoked_why.empty()) Describe(region, *channel);
  channels_.erase(channel->id);
  ForsakeIfNothingIsAllowed(region);  // the last allowed one has gone
  DropRegionIfUnused(region);
}

void ChannelTable::DropWake(RegionRecord* region, std::uint32_t side, std::uint32_t index) {
  auto& slot = region->wake[side][index];
  if (!slot) return;
  slot = nullptr;
  const auto usage = usage_.find(region->wake_pod[side]);
  if (usage == usage_.end()) return;
  --usage->second.wake_fds;
  if (usage->second.channels == 0 && usage->second.wake_fds == 0) usage_.erase(usage);
}

bool ChannelTable::OfferWake(RegionRecord* region, std::uint32_t side, std::uint32_t index, const std::string& pod, std::uint32_t limit,
                             std::shared_ptr<const UniqueFd> wake_fd) {
  DropWake(region, side, index);
  if (!wake_fd) return true;
  if (UsageOf(pod).wake_fds >= limit) return false;
  ++usage_[pod].wake_fds;
  region->wake_pod[side] = pod;
  region->wake[side][index] = std::move(wake_fd);
  return true;
}

void ChannelTable::DropRegionIfUnused(RegionRecord* region) {
  const bool both_there = region->owner == region->made_for;
  const bool cached = both_there && !region->adopted && !region->abandoned && !region->retired;
  if (region->used != 0 || cached) return;
  // An adopted region may hold connections that are not known here, so nothing can be said of it.
  if (!region->adopted) Forsake(region);
  // Not revoked: a survivor may still be reading what a peer that died had sent before.
  for (std::uint32_t side = 0; side < 2; ++side) {
    for (std::uint32_t index = 0; index < channel::kWakeFdsPerSide; ++index) DropWake(region, side, index);
    const auto [begin, end] = by_session_.equal_range(region->owner[side]);
    const auto entry = std::find_if(begin, end, [&](const auto& candidate) { return candidate.second == region; });
    if (entry != end) by_session_.erase(entry);
  }
  ForgetOwners(region);
  by_inode_.erase(region->memory->Inode());
  regions_.erase(region->self);
}

void ChannelTable::ForgetOwners(RegionRecord* region) {
  const auto [begin, end] = by_owners_.equal_range({region->made_for[0], region->made_for[1]});
  const auto entry = std::find_if(begin, end, [&](const auto& candidate) { return candidate.second == region; });
  if (entry != end) by_owners_.erase(entry);
}

std::vector<ChannelId> ChannelTable::SessionGone(SessionId session) {
  std::vector<ChannelId> orphaned;
  std::vector<RegionRecord*> regions;
  const auto [begin, end] = by_session_.equal_range(session);
  for (auto it = begin; it != end; ++it) regions.push_back(it->second);
  by_session_.erase(session);
  for (RegionRecord* region : regions) {
    for (std::uint32_t side = 0; side < 2; ++side) {
      if (region->owner[side] != session) continue;
      region->owner[side] = 0;
      for (std::uint32_t index = 0; index < channel::kWakeFdsPerSide; ++index) DropWake(region, side, index);
    }
    ForgetOwners(region);
  }
  for (const auto& [id, channel] : channels_) {
    bool affected = false;
    for (End& candidate : channel->end) {
      if (candidate.session != session) continue;
      candidate.session = 0;
      affected = affected || !candidate.released;
    }
    if (affected) orphaned.push_back(id);
  }
  for (RegionRecord* region : regions) DropRegionIfUnused(region);
  return orphaned;
}

void ChannelTable::RenewLeases(std::uint64_t now_ns) {
  for (RegionRecord& region : regions_) {
    if (region.used != 0) region.memory->RenewLease(now_ns + lease_ns_);
  }
}

TableTotals ChannelTable::Totals() {
  for (const auto& [id, channel] : channels_) Count(channel.get());
  TableTotals totals;
  totals.ring_bytes = ring_bytes_gone_;
  totals.channels = static_cast<std::uint32_t>(channels_.size());
  totals.regions = static_cast<std::uint32_t>(regions_.size());
  totals.bytes_reserved = channels_.size() * kChannelBytes;
  return totals;
}

}  // namespace vsocket::broker
