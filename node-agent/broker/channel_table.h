// Regions, slots and channels: who holds which, who is charged for it, and when it may be used again.
//
// Invariants:
// 1. A slot holds at most one channel. It is free again only when both ends are released.
// 2. Sides belong to the region, not to the slot: a region is made for an *ordered* pair of processes, so that wake object i of side s
//    is one thing for all its slots.
// 3. A region lives while a slot is held, and beyond that, as a cache for the next connection, while both its processes are connected.
//    Before its memory is let go `revoked` is set, so that a process that still maps it can see that it is over.
// 4. A region with a revoked channel is retired: it gives no new slots. When no channel in it is allowed any more its memory is forsaken:
//    the agent unmaps it and says so, once (OnForsaken); the slots are held until they are released, as ever.
// 5. A region that was adopted after a restart gives no new slots, and what its slots hold is never cleared or revoked for tidiness:
//    slots of connections whose ends have not come back yet look free, and an end that sleeps may have unread bytes there. The same goes
//    for a region with an abandoned end: its process may still read what is there.
//
// Thread safety: none; the broker's thread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "channel/control.h"
#include "channel/layout.h"
#include "channel/reason.h"
#include "node-agent/broker/endpoint.h"
#include "node-agent/broker/options.h"
#include "node-agent/model/region_memory.h"
#include "node-agent/model/verdict.h"

namespace vsocket::broker {

using SessionId = std::uint64_t;  // a connected process; 0: none
using ChannelId = std::uint64_t;

// One end of a connection: proved by its socket.
struct End {
  SessionId session = 0;  // 0: its process has gone, or the end has not come back after a restart
  std::string pod;        // uid
  Tuple tuple;
  std::uint64_t netns_cookie = 0;
  std::uint64_t cookie = 0;  // SO_COOKIE; 0: not known yet (a one-sided channel after a restart)
  bool released = false;

  // Both are ends of one connection.
  [[nodiscard]] bool Mirrors(const End& other) const {
    return FlowKey::Of(tuple, netns_cookie) == FlowKey::Of(other.tuple.Mirror(), other.netns_cookie);
  }
};

struct RegionRecord {
  explicit RegionRecord(std::unique_ptr<model::RegionMemory> region) : memory(std::move(region)) {}

  std::unique_ptr<model::RegionMemory> memory;
  std::array<SessionId, 2> owner{};     // by side
  std::array<SessionId, 2> made_for{};  // the key in by_owners_; stays when an owner goes
  bool adopted = false;                 // came back after a restart: what its slots hold is not all known
  bool abandoned = false;               // an end was taken back that may still be in use
  bool retired = false;                 // a channel was revoked
  bool forsaken = false;
  std::string revoked_why;              // not empty: the policy revoked a channel
  std::array<std::int32_t, 2> pid{};    // of the owners, for logs; kept when they go
  std::array<std::string, 2> last_pod;  // of its last channel, and the next two
  Tuple last_tuple;
  model::Flow last_flow;
  std::array<ChannelId, channel::kSlots> slots{};
  std::uint32_t used = 0;
  std::uint32_t next_epoch = 0;
  // Wake objects by side and index, and the pod that each is charged to.
  std::array<std::array<std::shared_ptr<const UniqueFd>, channel::kWakeFdsPerSide>, 2> wake;
  std::array<std::string, 2> wake_pod;
  std::list<RegionRecord>::iterator self;
};

struct Channel {
  ChannelId id = 0;
  RegionRecord* region = nullptr;
  std::uint32_t slot = 0, epoch = 0;
  std::array<End, 2> end;
  model::Flow flow;  // as it was judged
  bool revoked = false;
  std::array<std::uint64_t, 2> missing_since{};  // by side: since when the kernel does not know its socket; 0: it does
  std::array<std::uint64_t, 2> counted{};        // ring bytes that are in the totals already, by sending side

  [[nodiscard]] bool TwoSided() const { return end[0].cookie != 0 && end[1].cookie != 0; }
  [[nodiscard]] channel::ChannelRef Ref(std::uint32_t side) const { return {region->memory->Id(), slot, epoch, side, 0}; }
};

struct Usage {
  std::uint32_t channels = 0;
  std::uint64_t bytes = 0;
  std::uint32_t wake_fds = 0;
};

struct TableTotals {
  std::uint64_t ring_bytes = 0;  // through rings, of channels gone and living
  std::uint32_t channels = 0, regions = 0;
  std::uint64_t bytes_reserved = 0;  // once a channel, not once a pod
};

class ChannelTable {
 public:
  // A region in which nothing is allowed any more: it is unmapped here, and is to be by everybody. With `revoked_why` the policy wants it
  // so; without, its connections ended. Called inside other methods: must not call back.
  using OnForsaken = std::function<void(const RegionRecord&)>;

  ChannelTable(Quota quota, std::uint64_t lease_ns, std::shared_ptr<model::RegionSource> regions, OnForsaken on_forsaken);
  ~ChannelTable();

  // A channel between two ends; `first` becomes side 0. Errors: kQuota, kNoMemory.
  Result<Channel*, channel::Reason> Open(const End& first, const End& second, std::uint64_t now_ns);
  // Takes back an end that a shim still holds. Errors: kBadRequest (it does not fit what is known), kQuota, kNoMemory.
  Result<Channel*, channel::Reason> Adopt(const End& end, const channel::ChannelRef& ref, UniqueFd memfd, std::uint64_t now_ns);

  // The channel that holds the socket, and its side; nullptr when none does.
  [[nodiscard]] Channel* ByCookie(std::uint64_t cookie, std::uint32_t* side);
  [[nodiscard]] Channel* ById(ChannelId id);
  // A region that `session` is a side of; nullptr when it is of none with that id.
  [[nodiscard]] RegionRecord* RegionOf(SessionId session, std::uint64_t region_id);

  // The end lets go. When it was the last one the channel is gone: true.
  bool Release(Channel* channel, std::uint32_t side);
  // The process has no control connection any more; its unreleased ends stay, with session 0. Gives their channels.
  std::vector<ChannelId> SessionGone(SessionId session);
  // The process that comes back with an end whose process had gone.
  void TakeOver(Channel* channel, std::uint32_t side, SessionId session);
  void Revoke(Channel* channel);  // the region is retired with it
  // It was revoked because the policy wants it, for this reason: the memory is forsaken when it held the last allowed channel.
  void Condemn(Channel* channel, const std::string& why);
  // The end's process lives, but the kernel has not known its socket for long: given back in every account, and the memory left alone.
  // True when the channel is gone with it, as for Release.
  bool Abandon(Channel* channel, std::uint32_t side);
  // Retires the regions without a channel, kept for the next one, whose last connection `forbids` (which says why).
  void RetireUnused(const std::function<std::optional<std::string>(const Tuple&, const model::Flow&)>& forbids);

  // Stores (or with nullptr drops) a wake object. False when `pod` has too many.
  bool OfferWake(RegionRecord* region, std::uint32_t side, std::uint32_t index, const std::string& pod, std::uint32_t limit,
                 std::shared_ptr<const UniqueFd> wake_fd);

  void RenewLeases(std::uint64_t now_ns);
  [[nodiscard]] const std::unordered_map<ChannelId, std::unique_ptr<Channel>>& All() const { return channels_; }
  [[nodiscard]] Usage UsageOf(const std::string& pod) const;
  TableTotals Totals();

 private:
  using OwnerPair = std::pair<SessionId, SessionId>;

  Result<RegionRecord*, channel::Reason> RegionFor(OwnerPair owners, std::uint64_t now_ns);
  RegionRecord* AddRegion(std::unique_ptr<model::RegionMemory> memory);
  Channel* AddChannel(RegionRecord* region, std::uint32_t slot, std::uint32_t epoch);
  [[nodiscard]] bool MayCharge(const std::string& pod, std::uint32_t channels) const;
  void Charge(const std::string& pod);
  void Uncharge(const std::string& pod);
  void Count(Channel* channel);
  void Drop(Channel* channel);
  void Forsake(RegionRecord* region);
  void ForsakeIfNothingIsAllowed(RegionRecord* region);
  void ForgetOwners(RegionRecord* region);
  void DropRegionIfUnused(RegionRecord* region);
  void DropWake(RegionRecord* region, std::uint32_t side, std::uint32_t index);

  Quota quota_;
  std::uint64_t lease_ns_;
  std::shared_ptr<model::RegionSource> source_;
  OnForsaken on_forsaken_;
  ChannelId next_channel_ = 1;
  std::list<RegionRecord> regions_;
  std::multimap<OwnerPair, RegionRecord*> by_owners_;  // made here, not adopted
  std::multimap<SessionId, RegionRecord*> by_session_;
  std::unordered_map<std::uint64_t, RegionRecord*> by_inode_;
  std::unordered_map<ChannelId, std::unique_ptr<Channel>> channels_;
  std::unordered_map<std::uint64_t, std::pair<ChannelId, std::uint32_t>> by_cookie_;
  std::unordered_map<std::string, Usage> usage_;
  std::uint64_t ring_bytes_gone_ = 0;
};

}  // namespace vsocket::broker
