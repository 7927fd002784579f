// Bandwidth limits of pods on their channels: which direction has which, and what is done about a sender that ignores them.
#include <algorithm>
#include <utility>

#include "node-agent/broker/broker.h"

namespace vsocket::broker {

using channel::Reason;

namespace {

constexpr std::uint64_t kOverLimitNs = 60'000'000'000;  // how long two pods stay on TCP after one ignored its limit

// One direction of a channel's memory, and its sender's socket. Lives as long as the channel.
class ChannelRing final : public PacedRing {
 public:
  using Taken = std::function<std::optional<std::uint64_t>()>;
  ChannelRing(model::RegionMemory* memory, std::uint32_t slot, std::uint32_t side, Taken taken)
      : memory_(memory), slot_(slot), side_(side), taken_(std::move(taken)) {}

  std::optional<model::SentPosition> Sent() override { return memory_->Sent(slot_, side_); }
  void Grant(std::uint64_t position, std::uint32_t pace_us) override { memory_->SetGrant(slot_, side_, position, pace_us); }
  void Watch(bool watched) override { memory_->SetWatched(slot_, side_, watched ? channel::kWatched : channel::kUnwatched); }
  std::optional<std::uint64_t> TakenByTcp() override { return taken_(); }

 private:
  model::RegionMemory* memory_;
  std::uint32_t slot_, side_;
  Taken taken_;
};

std::pair<std::string, std::string> Ordered(const std::string& a, const std::string& b) {
  return a < b ? std::pair(a, b) : std::pair(b, a);
}

std::optional<std::uint64_t> RateOf(const std::optional<model::BandwidthLimit>& limit) {
  return limit ? std::optional(limit->bits_per_second) : std::nullopt;
}

}  // namespace

// Of what `side` sends: the sender's pod and the receiver's. An end that has not come back after a restart is found by its address.
std::array<std::string, 2> Broker::PodsOf(const Channel& channel, std::uint32_t side) {
  std::array<std::string, 2> pods;
  for (std::uint32_t i = 0; i < 2; ++i) {
    const End& end = channel.end[i == 0 ? side : 1 - side];
    pods[i] = end.pod;
    if (end.cookie != 0) continue;
    const PodRuntime* pod = PodByAddress(channel.end[i == 0 ? 1 - side : side].tuple.remote.address);
    pods[i] = pod != nullptr ? pod->pod.uid : "";
  }
  return pods;
}

void Broker::ApplyBandwidth(Channel* channel, bool live) {
  if (channel->revoked) return;
  model::RegionMemory* memory = channel->region->memory.get();
  for (std::uint32_t side = 0; side < 2; ++side) {
    const FlowId id{channel->id, side};
    const std::array<std::string, 2> pods = PodsOf(*channel, side);
    const auto invalid = [this](const std::string& uid) {
      const PodRuntime* pod = PodOf(uid);
      return pod != nullptr && !pod->bandwidth.problem.empty();
    };
    const bool inside = pods[0] == pods[1];  // what does not leave the pod is not limited, as it is not on its interface
    if (!inside && (invalid(pods[0]) || invalid(pods[1]))) {
      // Fail closed: to TCP, and not back.
      pacer_.Remove(id);
      memory->SetWatched(channel->slot, side, channel::kNoMore);
      memory->SetGrant(channel->slot, side, 0, channel::kMinPaceUs);
      continue;
    }
    if (inside || !pacer_.IsLimited(pods[0], pods[1])) {
      pacer_.Remove(id);
      memory->RemoveGrant(channel->slot, side);
      continue;
    }
    if (pacer_.Knows(id)) continue;
    auto taken = [this, channel, side]() -> std::optional<std::uint64_t> {
      const End& end = channel->end[side];
      PodRuntime* pod = PodOf(end.pod);
      if (pod == nullptr || end.cookie == 0) return std::nullopt;
      const auto socket = pod->sockets->Find(end.tuple, end.cookie);
      return socket ? std::optional(socket->bytes_acked + socket->unacked) : std::nullopt;
    };
    pacer_.Add(id, pods[0], pods[1], std::make_unique<ChannelRing>(memory, channel->slot, side, std::move(taken)), live, clock_());
  }
}

void Broker::SetBandwidth(const std::string& uid, const model::Bandwidth& bandwidth) {
  PodRuntime* pod = PodOf(uid);
  if (pod == nullptr || pod->bandwidth == bandwidth) return;
  pod->bandwidth = bandwidth;
  const std::uint64_t now = clock_();
  pacer_.SetLimit(uid, Pacer::Way::kEgress, RateOf(bandwidth.egress), now);
  pacer_.SetLimit(uid, Pacer::Way::kIngress, RateOf(bandwidth.ingress), now);
  const auto text_of = [](const std::optional<model::BandwidthLimit>& limit) { return limit ? limit->text : std::string("none"); };
  Say(bandwidth.problem.empty() ? Event::Level::kInfo : Event::Level::kWarning, "bandwidth limits",
      {{"pod", uid}, {"ingress", text_of(bandwidth.ingress)}, {"egress", text_of(bandwidth.egress)}, {"problem", bandwidth.problem}});
  for (const auto& [id, channel] : table_.All()) {
    const std::array<std::string, 2> pods = PodsOf(*channel, 0);
    if (pods[0] == uid || pods[1] == uid) ApplyBandwidth(channel.get(), true);
  }
}

std::optional<Reason> Broker::WhyNoRing(const std::string& pod, const std::string& other_pod) {
  for (const std::string& uid : {pod, other_pod}) {
    const PodRuntime* known = PodOf(uid);
    if (known != nullptr && !known->bandwidth.problem.empty()) return Reason::kBadBandwidth;
  }
  const auto penalty = over_limit_until_.find(Ordered(pod, other_pod));
  if (penalty == over_limit_until_.end()) return std::nullopt;
  if (clock_() < penalty->second) return Reason::kOverLimit;
  over_limit_until_.erase(penalty);
  return std::nullopt;
}

bool Broker::Handle(Session& session, const channel::AskGrant& ask, std::span<UniqueFd>) {
  std::uint32_t side = 0;
  const Channel* channel = table_.ByCookie(ask.cookie, &side);
  if (channel == nullptr || channel->end[side].pod != session.pod) return true;  // gone meanwhile
  pacer_.Ask({channel->id, side}, clock_());
  return true;
}

void Broker::SettleBandwidth(const Channel& channel) {
  for (std::uint32_t side = 0; side < 2; ++side) pacer_.Settle({channel.id, side}, clock_());
}

void Broker::ForgetBandwidth(ChannelId id) {
  for (std::uint32_t side = 0; side < 2; ++side) pacer_.Remove({id, side});
}

void Broker::CutOverLimit(const std::vector<FlowId>& over) {
  for (const FlowId& id : over) {
    Channel* channel = table_.ById(id.channel);
    if (channel == nullptr) continue;
    ++stats_.over_limit;
    const std::array<std::string, 2> pods = PodsOf(*channel, id.side);
    // Either end can have moved the grant: it is held against the pair of them.
    over_limit_until_[Ordered(pods[0], pods[1])] = clock_() + kOverLimitNs;
    Say(Event::Level::kWarning, "bandwidth limit ignored",
        {{"connection", channel->end[id.side].tuple.ToString()}, {"pod", pods[0]}, {"peer_pod", pods[1]}});
    Cut(channel, "a sender went past its bandwidth limit", false);
  }
}

std::string Broker::LimitedBy(const Channel& channel, std::uint32_t side) const {
  const auto limit_of = [this](const std::string& uid, bool egress) -> const model::BandwidthLimit* {
    const auto pod = pods_.find(uid);
    if (pod == pods_.end()) return nullptr;
    const auto& limit = egress ? pod->second.bandwidth.egress : pod->second.bandwidth.ingress;
    return limit ? &*limit : nullptr;
  };
  const std::string& receiver = channel.end[1 - side].pod;
  if (channel.end[side].pod == receiver) return "";
  const model::BandwidthLimit* egress = limit_of(channel.end[side].pod, true);
  const model::BandwidthLimit* ingress = limit_of(receiver, false);
  if (egress != nullptr && (ingress == nullptr || egress->bits_per_second <= ingress->bits_per_second)) {
    return "egress-bandwidth " + egress->text;
  }
  return ingress == nullptr ? "" : "ingress-bandwidth " + ingress->text + " of the other pod";
}

}  // namespace vsocket::broker
