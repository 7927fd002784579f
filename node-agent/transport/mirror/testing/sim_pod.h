// The two halves of one end of a connection between nodes, without sockets: the switch protocol of channel/remote.h as a shim follows it,
// over a slot that an agent mirrors and a simulated TCP connection. It checks every byte it receives.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "channel/remote.h"
#include "channel/ring.h"
#include "channel/testing/tcp_queue.h"
#include "channel/wake.h"

namespace vsocket::transport::testing {

struct PodView {
  channel::SideWords* mine = nullptr;
  channel::SideWords* theirs = nullptr;
  std::byte* out_ring = nullptr;
  std::byte* in_ring = nullptr;
  channel::testing::TcpQueue* out_tcp = nullptr;
  channel::testing::TcpQueue* in_tcp = nullptr;
};

struct PodCounts {
  std::uint64_t sent = 0, by_ring = 0, received = 0, from_ring = 0;
  std::uint64_t ups = 0, aborts = 0, downs = 0, replayed = 0, skipped = 0, aborts_seen = 0, resizes = 0, sleeps = 0;
};

// The bytes of a stream. Its period is a prime, so that no two places of a ring hold the same.
class Pattern {
 public:
  static constexpr std::size_t kLongest = 1 << 16;
  // Out of `alphabet` values: few make payload look like frames.
  Pattern(std::uint64_t seed, std::uint64_t alphabet);
  // At least kLongest bytes from stream position `position` on.
  [[nodiscard]] const std::uint8_t* At(std::uint64_t position) const { return bytes_.data() + position % kPeriod; }

 private:
  static constexpr std::size_t kPeriod = 4093;
  std::vector<std::uint8_t> bytes_;
};

class SimPod {
 public:
  enum class End : std::uint8_t { kNone, kClean, kReset };

  SimPod(const PodView& view, const Pattern* sends, const Pattern* receives, std::uint64_t out_start, std::uint64_t in_start,
         std::function<std::uint64_t(std::uint64_t)> below);

  void StepSend();     // one thing that a sending program does
  void StepReceive();  // ... a receiving one
  // The program ends its stream: off the ring first, then FIN. False: not yet.
  bool Finish();
  void Kill() {
    killed_ = true;
    view_.out_tcp->Close();
  }
  // The node's agent has not renewed the lease.
  void LoseLease() {
    lease_over_ = true;
    Wake();
  }
  void Wake() { send_sleeps_ = receive_sleeps_ = false; }

  [[nodiscard]] bool CanSend() const { return !killed_ && !finished_ && !send_sleeps_; }
  [[nodiscard]] bool CanReceive() const;
  [[nodiscard]] bool Killed() const { return killed_; }
  [[nodiscard]] bool Finished() const { return finished_; }
  [[nodiscard]] End Ended() const { return end_; }
  [[nodiscard]] std::uint64_t Accepted() const { return accepted_; }
  [[nodiscard]] std::uint64_t Published() const { return out_.pos; }
  [[nodiscard]] std::uint64_t Received() const { return in_.pos; }
  [[nodiscard]] std::uint64_t UpAt() const { return up_at_; }  // where the last proposal began
  // On the ring, and what is there needs no more action of this end to arrive.
  [[nodiscard]] bool IsMirrored() const {
    return tx_.mode == channel::SwitchSender::Mode::kRing && CommitState() == channel::Commit::kCommitted && PathHolds();
  }
  [[nodiscard]] const PodCounts& Counts() const { return counts_; }
  [[nodiscard]] const std::string& Wrong() const { return wrong_; }  // empty: nothing
  [[nodiscard]] std::string State() const;

  std::function<void()> ring_agent = [] {};

 private:
  // Sending.
  void GoUp();
  void Leave();
  void Flush();
  void SendSome();
  void SendByRing(std::uint64_t want);
  [[nodiscard]] bool PathHolds() const;
  [[nodiscard]] channel::Commit CommitState() const;
  void TouchedFor(std::atomic<std::uint32_t>& waiter);
  // Receiving.
  void ReceiveByTcp();
  void ReceiveByRing();
  void LookAtFrames();
  void Finished(std::uint32_t generation);
  bool ConsiderEnd();
  void Take(const std::uint8_t* bytes, std::uint64_t size);
  bool TakeFromRing(std::uint64_t until);
  void SleepToReceive();
  [[nodiscard]] channel::Proposal Load() const;
  void Say(const std::string& what);

  PodView view_;
  const Pattern* sends_;
  const Pattern* receives_;
  std::function<std::uint64_t(std::uint64_t)> below_;
  PodCounts counts_;
  std::string wrong_;

  channel::ProducerState out_;
  channel::SwitchSender tx_;
  std::uint32_t path_ = 0;  // of the last proposal
  std::uint64_t up_at_ = 0;
  bool last_aborted_ = false;
  std::uint64_t accepted_;
  bool killed_ = false, finished_ = false, send_sleeps_ = false, lease_over_ = false;

  channel::ConsumerState in_;
  channel::SwitchReceiver rx_;
  bool framed_ = false;     // in kRing: a frame of this generation was seen
  bool took_ring_ = false;  // ... or ring bytes
  bool asked_ = false;
  bool receive_sleeps_ = false;
  End end_ = End::kNone;
};

}  // namespace vsocket::transport::testing
