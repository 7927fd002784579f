// One queue pair as a lane: requests are gathered and posted with one doorbell, a completion is asked for now and then, and immediate data
// is sent only while the far side is known to have receives for it.
//
// Sequences count the requests of a lane from 1. They are done in order, so one completion tells of all before it.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "node-agent/transport/fabric/fabric.h"
#include "node-agent/transport/mirror/counters.h"
#include "node-agent/transport/mirror/options.h"

namespace vsocket::transport {

// Of completions: whose it is, and what.
struct CompletionId {
  Lane lane = Lane::kSmall;
  bool receive = false;
  std::uint64_t number = 0;  // a sequence, or the receive buffer's

  [[nodiscard]] std::uint64_t Packed() const {
    return static_cast<std::uint64_t>(lane) << 60 | static_cast<std::uint64_t>(receive) << 59 | number;
  }
  static CompletionId Of(std::uint64_t packed) {
    return {static_cast<Lane>(packed >> 60), (packed >> 59 & 1) != 0, packed & ((1ULL << 59) - 1)};
  }
};

class LaneQueue {
 public:
  LaneQueue(Lane lane, std::unique_ptr<QueuePair> queue_pair, const MirrorOptions& options, LaneCounters* counters);

  [[nodiscard]] QueuePair& Pair() { return *queue_pair_; }
  [[nodiscard]] std::uint32_t InlineBytes() const { return inline_bytes_; }

  // --- sending ---
  [[nodiscard]] bool HasRoom(std::uint32_t requests) const { return added_ - done_ + requests <= sends_; }
  // How many of `bytes` may be added now. Not less than a quarter of the window, unless that is all there is: a completion that makes room
  // is then under way, for one is asked for at least every quarter.
  [[nodiscard]] std::uint32_t RoomFor(std::uint32_t bytes) const;
  // How many requests that use up a receive of the far side may be added now.
  [[nodiscard]] std::uint32_t ReceivesLeft() const { return far_receives_ - (used_ - far_reposted_); }
  // How many receives the far side keeps posted.
  void SetFarReceives(std::uint32_t receives) { far_receives_ = receives; }
  // Requires HasRoom, and ReceivesLeft for one that uses a receive. Its id and whether it is signalled are decided here.
  void Add(SendRequest request, std::uint16_t connection);
  // Adds a WRITE of `cell`, which is kept until it has been posted. Requires InlineBytes() >= sizeof cell.
  void AddCell(SendRequest request, const PositionCell& cell, std::uint16_t connection);
  [[nodiscard]] bool HasBatch() const { return !batch_.empty(); }
  Result<bool, FabricError> RingDoorbell();
  [[nodiscard]] std::uint64_t LastSequence() const { return added_; }
  [[nodiscard]] bool IsDone(std::uint64_t sequence) const { return done_ >= sequence; }
  [[nodiscard]] bool WillBeTold(std::uint64_t sequence) const { return signalled_ >= sequence; }
  void SignalNext() { signal_next_ = true; }
  [[nodiscard]] bool SomethingUnanswered() const { return used_ != far_reposted_; }
  // visit(connection, bytes) for each request that is known to be done by this completion. False: no such request was posted.
  template <typename Visitor>
  [[nodiscard]] bool OnSent(std::uint64_t sequence, Visitor visit) {
    if (sequence > posted_) return false;
    while (done_ < sequence) {
      const Sent& sent = sent_[++done_ % sent_.size()];
      bytes_in_flight_ -= sent.bytes;
      visit(sent.connection, sent.bytes);
    }
    return true;
  }
  // The far side's count of receives posted anew. False: impossible.
  [[nodiscard]] bool OnFarReposted(std::uint32_t count);

  // --- receiving ---
  // Gives `buffers` to the device: all of them at first, then those that completions named.
  void Received(std::uint64_t buffer) { to_repost_.push_back(buffer); }
  // Buffers of `buffer_bytes` each lie from `base` on; 0: for immediate data only.
  Result<bool, FabricError> Repost(std::uint64_t base, std::uint32_t key, std::uint32_t buffer_bytes);
  [[nodiscard]] bool ShouldRepost() const { return to_repost_.size() >= receives_ / 8; }
  [[nodiscard]] std::uint32_t Reposted() const { return reposted_; }
  void ToldReposted() { told_reposted_ = reposted_; }
  [[nodiscard]] bool OwesCredit() const { return reposted_ - told_reposted_ >= receives_ / 4; }
  [[nodiscard]] bool HasCreditToTell() const { return reposted_ != told_reposted_; }

 private:
  struct Sent {
    std::uint16_t connection = 0;
    std::uint32_t bytes = 0;
  };
  [[nodiscard]] bool ShouldSignal(const SendRequest& request);

  Lane lane_;
  std::unique_ptr<QueuePair> queue_pair_;
  LaneCounters* counters_;
  std::uint32_t sends_, receives_, far_receives_ = 0, window_bytes_, signal_every_, signal_bytes_, inline_bytes_;

  std::vector<SendRequest> batch_;
  std::vector<Sent> sent_;           // by sequence
  std::vector<PositionCell> cells_;  // by sequence: a batch may hold several of one connection
  std::uint64_t added_ = 0;          // sequences
  std::uint64_t posted_ = 0;         // ... that the device has
  std::uint64_t signalled_ = 0;      // the last that was signalled
  std::uint64_t done_ = 0;
  std::uint64_t bytes_in_flight_ = 0;
  std::uint32_t bytes_unsignalled_ = 0;
  bool signal_next_ = false;
  std::uint32_t used_ = 0;  // receives of the far side
  std::uint32_t far_reposted_ = 0;

  std::vector<std::uint64_t> to_repost_;
  std::vector<ReceiveRequest> receive_batch_;
  std::uint32_t reposted_ = 0;
  std::uint32_t told_reposted_ = 0;
  bool filled_ = false;
};

}  // namespace vsocket::transport
