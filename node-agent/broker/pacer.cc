#include "node-agent/broker/pacer.h"

#include <algorithm>
#include <limits>

#include "channel/grant.h"
#include "channel/layout.h"

namespace vsocket::broker {
namespace {

constexpr std::int64_t kLeastQuantum = 64;
constexpr std::uint64_t kQuantumNs = 10'000'000;  // of a low limit: what may wait for so long is granted in one piece
constexpr std::uint64_t kSoonNs = 200'000;        // rounds for those who ask are not closer than this
constexpr int kYoung = 16;                        // rounds: who has just come back is not kept waiting for a whole quantum
constexpr int kMostPasses = 16;                   // of a division; what is left over is divided in the next round
// What a send that was under way when a live direction was first looked at may have put into TCP without having told of it.
constexpr std::uint64_t kUntold = 4 << 20;
constexpr std::int64_t kMostBytes = std::int64_t{1} << 50;

// Bytes of the rate in that time, however few.
std::int64_t BytesIn(std::uint64_t ns, std::uint64_t bits_per_second) {
  constexpr std::uint64_t kSecond = 1'000'000'000;
  return static_cast<std::int64_t>((bits_per_second / kSecond * ns + bits_per_second % kSecond * ns / kSecond) / 8);
}

}  // namespace

Pacer::Bucket* Pacer::BucketOf(const std::string& pod, Way way) {
  const auto found = buckets_.find({pod, way});
  return found == buckets_.end() ? nullptr : &found->second;
}

bool Pacer::IsLimited(const std::string& sender, const std::string& receiver) const {
  return buckets_.contains({sender, Way::kEgress}) || buckets_.contains({receiver, Way::kIngress});
}

void Pacer::Attach(Flow& flow) {
  flow.buckets = {BucketOf(flow.pods[0], Way::kEgress), BucketOf(flow.pods[1], Way::kIngress)};
  for (Bucket* bucket : flow.buckets) {
    if (bucket != nullptr) ++bucket->flows;
  }
}

void Pacer::Detach(Flow& flow) {
  for (Bucket*& bucket : flow.buckets) {
    if (bucket != nullptr) --bucket->flows;
    bucket = nullptr;
  }
}

void Pacer::SetLimit(const std::string& pod, Way way, std::optional<std::uint64_t> bits_per_second, std::uint64_t now_ns) {
  const auto found = buckets_.find({pod, way});
  if (found != buckets_.end() && bits_per_second) return found->second.tokens.SetRate(*bits_per_second, now_ns);
  if (found == buckets_.end() && !bits_per_second) return;
  for (auto& [id, flow] : flows_) Detach(*flow);
  if (bits_per_second) {
    buckets_.emplace(std::pair(pod, way), Bucket{TokenBucket(*bits_per_second, now_ns)});
  } else {
    buckets_.erase(found);
  }
  for (auto& [id, flow] : flows_) Attach(*flow);
}

void Pacer::Add(FlowId id, const std::string& sender, const std::string& receiver, std::unique_ptr<PacedRing> ring, bool live,
                std::uint64_t now_ns) {
  if (flows_.contains(id)) return;
  auto owned = std::make_unique<Flow>();
  Flow& flow = *owned;
  flow.id = id;
  flow.ring = std::move(ring);
  flow.pods = {sender, receiver};
  Attach(flow);
  if (live) {
    flow.grace_until_ns = now_ns + kGraceNs;
    const auto sent = flow.ring->Sent();
    if (sent) {
      flow.seen = flow.granted = flow.ceiling = sent->any_way;
      const std::uint64_t taken = flow.ring->TakenByTcp().value_or(0);
      flow.explained = taken - std::min(taken, kUntold);
    }
  }
  flow.ring->Watch(false);
  flow.ring->Grant(flow.granted, PaceOf(flow));
  flows_.emplace(id, std::move(owned));
}

void Pacer::Settle(FlowId id, std::uint64_t now_ns) {
  const auto found = flows_.find(id);
  if (found == flows_.end()) return;
  Flow& flow = *found->second;
  if (!Look(flow, now_ns)) return;
  Take(flow, -static_cast<std::int64_t>(flow.granted - flow.seen));
  flow.granted = flow.seen;  // should it be used after all, it is taken again (Look)
}

void Pacer::Remove(FlowId id) {
  const auto found = flows_.find(id);
  if (found == flows_.end()) return;
  Flow& flow = *found->second;
  Take(flow, -flow.accrued);
  Detach(flow);
  std::erase(active_, &flow);
  flows_.erase(found);
  if (active_.empty()) next_round_ns_ = 0;
}

void Pacer::Activate(Flow& flow) {
  if (flow.active) return;
  flow.active = true;
  flow.quiet = flow.age = 0;
  flow.ring->Watch(true);
  active_.push_back(&flow);
}

void Pacer::Ask(FlowId id, std::uint64_t now_ns) {
  const auto found = flows_.find(id);
  if (found == flows_.end() || found->second->active) return;
  Activate(*found->second);
  const std::uint64_t soon = std::max(now_ns, last_round_ns_ + kSoonNs);
  if (next_round_ns_ == 0 || soon < next_round_ns_) next_round_ns_ = soon;
}

void Pacer::Take(Flow& flow, std::int64_t bytes) {
  for (Bucket* bucket : flow.buckets) {
    if (bucket != nullptr) bucket->tokens.Take(bytes);
  }
}

namespace {

template <typename Buckets>
std::uint64_t LowestRate(const Buckets& buckets) {
  std::uint64_t lowest = std::numeric_limits<std::uint64_t>::max();
  for (const auto* bucket : buckets) {
    if (bucket != nullptr) lowest = std::min(lowest, bucket->tokens.BitsPerSecond());
  }
  return lowest == std::numeric_limits<std::uint64_t>::max() ? 0 : lowest;
}

}  // namespace

std::int64_t Pacer::QuantumOf(const Flow& flow) {
  return std::clamp(BytesIn(kQuantumNs, LowestRate(flow.buckets)), kLeastQuantum, kQuantum);
}

std::int64_t Pacer::WindowOf(const Flow& flow) const {
  return std::max(QuantumOf(flow), BytesIn(window_ns_, LowestRate(flow.buckets)));
}

std::int64_t Pacer::IdleCreditOf(const Flow& flow) {
  std::int64_t credit = QuantumOf(flow);
  for (const Bucket* bucket : flow.buckets) {
    if (bucket != nullptr) credit = std::min(credit, bucket->tokens.Burst() / 4 / std::max<std::int64_t>(bucket->flows, 1));
  }
  return std::max(credit, kLeastQuantum);
}

std::uint32_t Pacer::PaceOf(const Flow& flow) {
  std::uint64_t us = kRoundNs / 1000;
  for (const Bucket* bucket : flow.buckets) {
    if (bucket == nullptr) continue;
    const auto bits = static_cast<std::uint64_t>(bucket->contenders) * static_cast<std::uint64_t>(QuantumOf(flow)) * 8;
    us = std::max(us, bits * 1000 / std::max<std::uint64_t>(bucket->tokens.BitsPerSecond() / 1000, 1));
  }
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(us, channel::kMaxPaceUs));
}

bool Pacer::Look(Flow& flow, std::uint64_t now_ns) {
  ++flow.quiet;
  const auto sent = flow.ring->Sent();
  if (!sent) return true;
  // Whoever goes back has told of more than he had sent, to be granted it.
  if (sent->any_way < flow.seen) return false;
  const std::uint64_t published = sent->by_ring;
  if (published <= flow.seen) return true;
  if (published > flow.ceiling) {
    const auto taken = flow.ring->TakenByTcp();
    const std::uint64_t excess = published - flow.ceiling;
    const std::uint64_t by_tcp = taken.value_or(0) - std::min(taken.value_or(0), flow.explained);
    if (excess > by_tcp) {
      // Without a socket it is at its end, and the channel goes with it.
      if (taken && now_ns >= flow.grace_until_ns) return false;
      Take(flow, static_cast<std::int64_t>(std::min<std::uint64_t>(excess - by_tcp, channel::kRingMax)));
    }
    flow.explained += std::min(excess, by_tcp);
    flow.granted = flow.ceiling = published;
  } else if (published > flow.granted) {
    Take(flow, static_cast<std::int64_t>(published - flow.granted));  // what had been taken back
    flow.granted = published;
  }
  flow.seen = published;
  flow.quiet = 0;
  return true;
}

// Max-min: everybody's share grows alike, until he has what he wants or one of his buckets is empty.
void Pacer::Divide() {
  std::vector<Flow*> open;
  for (Flow* flow : active_) {
    if (flow->want > 0) open.push_back(flow);
  }
  for (const Flow* flow : open) {
    for (Bucket* bucket : flow->buckets) {
      if (bucket != nullptr) ++bucket->contenders;
    }
  }
  const auto give = [](Flow& flow, std::int64_t bytes) {
    Take(flow, bytes);
    flow.accrued += bytes;
    flow.want -= bytes;
  };
  for (int pass = 0; pass < kMostPasses && !open.empty(); ++pass) {
    for (const Flow* flow : open) {
      for (Bucket* bucket : flow->buckets) {
        if (bucket != nullptr) bucket->wanting = 0;
      }
    }
    for (const Flow* flow : open) {
      for (Bucket* bucket : flow->buckets) {
        if (bucket != nullptr) ++bucket->wanting;
      }
    }
    const auto share_of = [](const Flow& flow) {
      std::int64_t share = kMostBytes;
      for (const Bucket* bucket : flow.buckets) {
        if (bucket != nullptr) share = std::min(share, bucket->share);
      }
      return share;
    };
    std::int64_t level = kMostBytes;
    for (const Flow* flow : open) {
      for (Bucket* bucket : flow->buckets) {
        if (bucket == nullptr) continue;
        bucket->share = std::max<std::int64_t>(bucket->tokens.Tokens(), 0) / bucket->wanting;
        level = std::min(level, bucket->share);
      }
    }
    const bool anybody_content = std::any_of(open.begin(), open.end(), [&](const Flow* flow) { return flow->want <= level; });
    std::erase_if(open, [&](Flow* flow) {
      if (anybody_content ? flow->want > level : share_of(*flow) > level) return false;
      give(*flow, std::min(flow->want, level));
      return true;
    });
  }
}

void Pacer::GrantAccrued(Flow& flow) {
  flow.granted += static_cast<std::uint64_t>(flow.accrued);
  flow.ceiling = std::max(flow.ceiling, flow.granted);
  granted_bytes_ += static_cast<std::uint64_t>(flow.accrued);
  flow.accrued = 0;
  flow.ring->Grant(flow.granted, PaceOf(flow));
}

void Pacer::Rest(Flow& flow) {
  const auto unused = static_cast<std::int64_t>(flow.granted - flow.seen);
  const std::int64_t kept = std::min(unused, IdleCreditOf(flow));
  if (kept != unused || flow.accrued != 0) {
    Take(flow, -(unused - kept + flow.accrued));
    flow.accrued = 0;
    flow.granted = flow.seen + static_cast<std::uint64_t>(kept);
    flow.ring->Grant(flow.granted, PaceOf(flow));
  }
  flow.ring->Watch(false);
  const auto sent = flow.ring->Sent();
  if (sent && sent->by_ring > flow.seen) {  // W3
    flow.ring->Watch(true);
    flow.quiet = 0;
    return;
  }
  flow.active = false;
}

std::vector<FlowId> Pacer::Round(std::uint64_t now_ns) {
  std::vector<FlowId> over;
  ++rounds_;
  // On a busy machine: whoever is seldom looked at needs more at a time.
  const std::uint64_t due = std::max(next_round_ns_, last_round_ns_ + kRoundNs);
  const std::uint64_t late = now_ns > due ? now_ns - due : 0;
  window_ns_ = std::clamp(2 * (kRoundNs + late), std::max(2 * kRoundNs, window_ns_ - window_ns_ / 8), TokenBucket::kLateNs);
  last_round_ns_ = now_ns;
  for (Flow* flow : active_) {
    for (Bucket* bucket : flow->buckets) {
      if (bucket == nullptr) continue;
      bucket->tokens.Refill(now_ns, bucket->waiting);
      bucket->waiting = false;
      bucket->contenders = 0;
    }
  }
  for (Flow* flow : active_) {
    if (!Look(*flow, now_ns)) {
      over.push_back(flow->id);
      flow->want = 0;
      continue;
    }
    const std::int64_t room = kMostBytes - static_cast<std::int64_t>(std::min<std::uint64_t>(flow->granted, kMostBytes));
    flow->want = std::min(WindowOf(*flow) - static_cast<std::int64_t>(flow->granted - flow->seen) - flow->accrued, room);
  }
  Divide();
  for (Flow* flow : active_) {
    for (Bucket* bucket : flow->buckets) {
      if (bucket != nullptr && flow->want > 0 && bucket->tokens.Tokens() < kQuantum) bucket->waiting = true;
    }
    const std::int64_t worth = ++flow->age > kYoung ? QuantumOf(*flow) : kLeastQuantum;
    const bool enough = flow->accrued >= worth || flow->want <= 0;
    if (flow->accrued > 0 && enough) GrantAccrued(*flow);
  }
  for (Flow* flow : active_) {
    const bool has_credit = flow->granted > flow->seen || !flow->ring->Sent();
    if (flow->quiet >= kQuietRounds && has_credit) Rest(*flow);
  }
  std::erase_if(active_, [](const Flow* flow) { return !flow->active; });
  next_round_ns_ = active_.empty() ? 0 : now_ns + kRoundNs;
  return over;
}

std::vector<FlowId> Pacer::LookAtAll(std::uint64_t now_ns) {
  std::vector<FlowId> over;
  for (auto& [id, flow] : flows_) {
    if (flow->active) continue;
    const std::uint64_t before = flow->seen;
    if (!Look(*flow, now_ns)) {
      over.push_back(id);
    } else if (flow->seen != before) {
      Ask(id, now_ns);  // it has used some of its credit
    }
  }
  return over;
}

PacerStats Pacer::Stats() const {
  return {static_cast<std::uint32_t>(flows_.size()), static_cast<std::uint32_t>(active_.size()), granted_bytes_, rounds_};
}

}  // namespace vsocket::broker
