// Holds senders on rings to the bandwidth limits of their pods: decides how far each may publish (channel/grant.h).
//
// A pod has a token bucket for what its connections send and one for what they receive. A direction between two pods takes from the
// sender's and from the receiver's, as far as there are limits. While a direction is in use it is looked at in *rounds*, kRoundNs apart:
// what it has used of its window is granted anew, and what the buckets hold is divided fairly (max-min) among those that want some. A
// direction that has been quiet for some rounds keeps a small credit and is left alone; no round happens when all are. It is looked at
// again when its sender asks.
//
// Nothing that a ring says is believed beyond what it can hurt: a sender that has published what was never granted, nor can have come by
// TCP as the kernel counts it, is reported.
//
// Thread safety: none; the broker's thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/broker/token_bucket.h"
#include "node-agent/model/region_memory.h"

namespace vsocket::broker {

// One direction of a channel.
struct FlowId {
  std::uint64_t channel = 0;
  std::uint32_t side = 0;  // that sends
  auto operator<=>(const FlowId&) const = default;
};

// The ring of a direction, as the pacer sees it.
class PacedRing {
 public:
  virtual ~PacedRing() = default;
  // How far the sender says that it has sent; nullopt: it has never been on the ring. Any numbers, at any time.
  virtual std::optional<model::SentPosition> Sent() = 0;
  virtual void Grant(std::uint64_t position, std::uint32_t pace_us) = 0;
  virtual void Watch(bool watched) = 0;  // and fences (grant.h, W2)
  // Payload and frames that the sender's kernel has ever taken for its connection; nullopt: the socket is gone. Asked seldom.
  virtual std::optional<std::uint64_t> TakenByTcp() = 0;
};

struct PacerStats {
  std::uint32_t limited = 0, active = 0;  // directions
  std::uint64_t granted_bytes = 0, rounds = 0;
};

class Pacer {
 public:
  static constexpr std::uint64_t kRoundNs = 5'000'000;
  static constexpr int kQuietRounds = 8;
  static constexpr std::int64_t kQuantum = 4096;            // bytes that are worth waking a sender for, unless the limit is very low
  static constexpr std::uint64_t kGraceNs = 1'000'000'000;  // for what is on its way when a limit comes over a live direction

  enum class Way : std::uint8_t { kEgress, kIngress };

  // The pod's limit in bits per second (1 to 10^15), or none. Takes effect on its directions, which AddOrChange has named, at once.
  void SetLimit(const std::string& pod, Way way, std::optional<std::uint64_t> bits_per_second, std::uint64_t now_ns);
  [[nodiscard]] bool IsLimited(const std::string& sender, const std::string& receiver) const;

  // A direction that has a limit. `live`: its sender may have been on the ring before without one. Known already: nothing happens.
  void Add(FlowId id, const std::string& sender, const std::string& receiver, std::unique_ptr<PacedRing> ring, bool live,
           std::uint64_t now_ns);
  [[nodiscard]] bool Knows(FlowId id) const { return flows_.contains(id); }
  // An end lets go: what was granted and is not used is given back to the limits.
  void Settle(FlowId id, std::uint64_t now_ns);
  void Remove(FlowId id);  // its ring is not touched: it may be gone
  // The sender asks; when it is not watched, it is looked at in a round very soon.
  void Ask(FlowId id, std::uint64_t now_ns);

  // When the next round is due; 0: none is.
  [[nodiscard]] std::uint64_t NextRound() const { return next_round_ns_; }
  // A round, and a look at all of them, quiet ones too. Both give those that have gone past their limit; they are to be removed.
  std::vector<FlowId> Round(std::uint64_t now_ns);
  std::vector<FlowId> LookAtAll(std::uint64_t now_ns);

  [[nodiscard]] PacerStats Stats() const;

 private:
  struct Bucket {
    TokenBucket tokens;
    std::uint32_t flows = 0;
    bool waiting = false;  // the last round left somebody without
    // Of the division that is under way.
    std::int64_t contenders = 0;  // at the beginning
    std::int64_t wanting = 0;     // still
    std::int64_t share = 0;
  };
  struct Flow {
    FlowId id;
    std::unique_ptr<PacedRing> ring;
    std::array<Bucket*, 2> buckets{};  // of the sender, of the receiver; nullptr: no limit
    std::array<std::string, 2> pods;
    std::uint64_t granted = 0;    // what the word says
    std::uint64_t ceiling = 0;    // the most that it has ever said: what an honest sender may have used
    std::uint64_t seen = 0;       // published, as far as it was plausible
    std::uint64_t explained = 0;  // bytes by TCP that have accounted for a position already
    std::int64_t accrued = 0;     // taken from the buckets for it, and not granted yet
    std::int64_t want = 0;
    std::uint64_t grace_until_ns = 0;
    int quiet = 0;  // rounds without news
    int age = 0;    // rounds since it became active
    bool active = false;
  };

  [[nodiscard]] Bucket* BucketOf(const std::string& pod, Way way);
  void Attach(Flow& flow);
  void Detach(Flow& flow);
  void Activate(Flow& flow);
  bool Look(Flow& flow, std::uint64_t now_ns);  // false: it has gone past its limit
  void Divide();
  void GrantAccrued(Flow& flow);
  void Rest(Flow& flow);
  static void Take(Flow& flow, std::int64_t bytes);
  [[nodiscard]] static std::int64_t QuantumOf(const Flow& flow);
  [[nodiscard]] std::int64_t WindowOf(const Flow& flow) const;
  [[nodiscard]] static std::int64_t IdleCreditOf(const Flow& flow);
  [[nodiscard]] static std::uint32_t PaceOf(const Flow& flow);

  std::map<std::pair<std::string, Way>, Bucket> buckets_;
  std::map<FlowId, std::unique_ptr<Flow>> flows_;
  std::vector<Flow*> active_;
  std::uint64_t next_round_ns_ = 0, last_round_ns_ = 0;
  std::uint64_t window_ns_ = 2 * kRoundNs;  // longer while rounds come late
  std::uint64_t granted_bytes_ = 0, rounds_ = 0;
};

}  // namespace vsocket::broker
