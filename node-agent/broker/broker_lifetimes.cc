// When an end lets go, when its process goes, and what is looked at once a second while channels live.
#include <algorithm>
#include <utility>

#include "node-agent/broker/broker.h"

namespace vsocket::broker {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
// A dying process closes its descriptors one after the other: the control socket may go some microseconds before the TCP socket.
constexpr std::uint64_t kFirstOrphanCheck = 50'000'000;

}  // namespace

bool Broker::Handle(Session& session, const channel::Release& release, std::span<UniqueFd>) {
  std::uint32_t side = 0;
  Channel* channel = table_.ByCookie(release.cookie, &side);
  if (channel == nullptr) return true;  // released already, by this end or for it
  const channel::ChannelRef known = channel->Ref(side);
  if (known.region_id != release.channel.region_id || known.slot != release.channel.slot || known.epoch != release.channel.epoch)
    return true;
  End& end = channel->end[side];
  if (end.pod != session.pod) return true;
  if (end.session != session.id) {
    // Another process of the pod: the last one of a fork to close the socket. Believed when the kernel agrees, which it does in a moment.
    end.session = 0;
    orphans_.insert(channel->id);
    Schedule(clock_() + kFirstOrphanCheck);
    return true;
  }
  const auto reason = static_cast<channel::Reason>(release.reason);
  if (reason != channel::Reason::kNone) Remember(session, release.cookie, reason);
  ReleaseEnd(channel, side);
  return true;
}

void Broker::ReleaseEnd(Channel* channel, std::uint32_t side) {
  const ChannelId id = channel->id;
  SettleBandwidth(*channel);
  if (!table_.Release(channel, side)) return;
  orphans_.erase(id);
  ForgetBandwidth(id);
}

void Broker::Disconnected(SessionId id) {
  Session* session = SessionOf(id);
  if (session == nullptr) return;
  if (PodRuntime* pod = PodOf(session->pod); pod != nullptr) pod->sessions.erase(id);
  pending_.RemoveSession(id);
  sessions_.erase(id);
  for (const ChannelId channel : table_.SessionGone(id)) {
    orphans_.insert(channel);
    CheckOrphan(channel);
  }
  if (!orphans_.empty()) Schedule(clock_() + kFirstOrphanCheck);
}

void Broker::CheckOrphan(ChannelId id) {
  for (std::uint32_t side = 0; side < 2; ++side) {
    Channel* channel = table_.ById(id);
    if (channel == nullptr) break;
    const End& end = channel->end[side];
    if (end.released || end.session != 0 || end.cookie == 0) continue;
    PodRuntime* pod = PodOf(end.pod);
    // Live means: the kernel has the socket, it is connected, and some process holds it (a forked child). inode 0: nobody does; the
    // kernel only sends what is left in its buffers.
    const auto socket = pod == nullptr ? std::nullopt : pod->sockets->Find(end.tuple, end.cookie);
    if (!socket || !IsLive(socket->state) || socket->inode == 0) ReleaseEnd(channel, side);
  }
  const Channel* channel = table_.ById(id);
  const bool orphaned = channel != nullptr && std::any_of(channel->end.begin(), channel->end.end(), [](const End& end) {
                          return !end.released && end.session == 0 && end.cookie != 0;
                        });
  if (!orphaned) orphans_.erase(id);
}

void Broker::SweepEnd(ChannelId id, std::uint32_t side, std::uint64_t now_ns) {
  Channel* channel = table_.ById(id);
  if (channel == nullptr) return;
  const End& end = channel->end[side];
  if (end.released || end.session == 0) return;  // orphans have a check of their own
  PodRuntime* pod = PodOf(end.pod);
  const auto socket = pod == nullptr ? std::nullopt : pod->sockets->Find(end.tuple, end.cookie);
  if (socket && socket->inode != 0) {
    channel->missing_since[side] = 0;
    return;
  }
  if (!socket) {
    // The kernel does not list a socket that is closed but held, and may fail to answer: only time tells.
    std::uint64_t& since = channel->missing_since[side];
    if (since == 0) since = now_ns;
    if (now_ns - since < options_.sweep.missing_ns) return;
  }
  ++stats_.swept;
  Say(Event::Level::kInfo, "channel end swept",
      {{"connection", end.tuple.ToString()}, {"pod", end.pod}, {"why", socket ? "no process holds its socket" : "its socket is gone"}});
  // Held by nobody: no process can read or write there. Not listed: it may.
  if (socket) return ReleaseEnd(channel, side);
  SettleBandwidth(*channel);
  if (!table_.Abandon(channel, side)) return;
  orphans_.erase(id);
  ForgetBandwidth(id);
}

void Broker::Sweep(std::uint64_t now_ns) {
  // Ids only grow, so the next ones in order are a round robin; the map is not ordered, and is walked once.
  const auto& all = table_.All();
  const std::size_t wanted = std::min<std::size_t>(options_.sweep.channels_a_second, all.size());
  std::vector<ChannelId> ids;
  ids.reserve(all.size());
  for (const auto& [id, channel] : all) ids.push_back(id);
  const auto before = [this](ChannelId a, ChannelId b) { return std::pair(a <= swept_to_, a) < std::pair(b <= swept_to_, b); };
  std::nth_element(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(wanted) - 1, ids.end(), before);
  ids.resize(wanted);
  swept_to_ = *std::max_element(ids.begin(), ids.end(), before);
  for (const ChannelId id : ids) {
    SweepEnd(id, 0, now_ns);
    SweepEnd(id, 1, now_ns);
  }
}

void Broker::Schedule(std::uint64_t at_ns) {
  if (next_tick_ns_ == 0 || at_ns < next_tick_ns_) next_tick_ns_ = at_ns;
}

std::uint64_t Broker::NextTick() const {
  const std::uint64_t round = pacer_.NextRound();
  return next_tick_ns_ == 0 || (round != 0 && round < next_tick_ns_) ? round : next_tick_ns_;
}

void Broker::Tick() {
  if (const std::uint64_t round = pacer_.NextRound(), now = clock_(); round != 0 && now >= round) CutOverLimit(pacer_.Round(now));
  if (next_tick_ns_ == 0 || clock_() < next_tick_ns_) return;
  next_tick_ns_ = 0;
  const std::vector<ChannelId> orphans(orphans_.begin(), orphans_.end());
  for (const ChannelId id : orphans) CheckOrphan(id);
  const std::uint64_t now = clock_();
  table_.RenewLeases(now);
  // Once a second, whatever else woke us.
  if (now >= next_sweep_ns_ && !table_.All().empty()) {
    Sweep(now);
    CutOverLimit(pacer_.LookAtAll(now));
    next_sweep_ns_ = now + kSecond;
  }
  if (!table_.All().empty()) Schedule(now + kSecond);
}

}  // namespace vsocket::broker
