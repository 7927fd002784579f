// The verbs calls without a device: queue pairs joined by a simulated network, for tests.
//
// Nothing happens by itself. A test calls Step, which moves one queue pair on by one packet or one acknowledgement; which of them is the
// seed's choice, so queue pairs overtake each other at will while each keeps its order. A WRITE becomes visible in pieces of any size,
// also an eight-byte word. Time is a number that the test advances.
//
// Faults: the network loses everything while it is cut, one way or both; what is unacknowledged for longer than the retry budget fails its
// queue pair, whether or not it was carried out. A device may be removed, its port go down, its owner die. Completions of a failed queue
// pair come late, out of order and twice.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "node-agent/transport/fabric/fabric.h"

namespace vsocket::transport::testing {

class FakeDevice;
class FakeQueuePair;

struct NetworkCounts {
  std::uint64_t writes = 0, sends = 0, pieces = 0, torn_words = 0;
  std::uint64_t not_ready = 0;  // a request found no receive posted
  std::uint64_t refused = 0;    // ... or a key that does not cover its address
  std::uint64_t overflows = 0;  // a completion queue held more than its depth
  std::uint64_t timeouts = 0, done_but_unacknowledged = 0;
};

class FakeNetwork {
 public:
  explicit FakeNetwork(std::uint64_t seed) : random_(seed) {}

  // A device of `owner` (0 or 1), which outlives nothing: the network may go on without it.
  std::unique_ptr<FakeDevice> AddDevice(int owner);
  void Advance(std::uint64_t ns) { now_ns_ += ns; }
  [[nodiscard]] std::uint64_t Now() const { return now_ns_; }
  // One packet or acknowledgement, or a timeout that is due. False: nothing can move.
  bool Step();
  // When the next queue pair gives up; UINT64_MAX: none is waiting.
  [[nodiscard]] std::uint64_t NextTimeout() const;

  // Packets from `owner` are lost.
  void Cut(int owner) { cut_[owner] = true; }
  void Heal() { cut_[0] = cut_[1] = false; }
  [[nodiscard]] bool IsCut() const { return cut_[0] || cut_[1]; }

  // From now on a queue pair may be held up for long, so that others overtake it by far.
  void HoldUp() { holds_ = true; }
  void SetRetryBudget(std::uint64_t ns) { budget_ns_ = ns; }
  [[nodiscard]] NetworkCounts& Counts() { return counts_; }
  std::uint64_t Below(std::uint64_t n) { return random_() % n; }

 private:
  friend class FakeCompletionQueue;
  friend class FakeDevice;
  friend class FakeQueuePair;
  [[nodiscard]] FakeQueuePair* Find(std::uint32_t number) const;

  std::mt19937_64 random_;
  std::uint64_t now_ns_ = 1;
  std::uint64_t budget_ns_ = 7ULL * 1000 * 1000 * 1000;
  bool cut_[2] = {};
  bool holds_ = false;
  std::uint32_t next_number_ = 17;
  std::uint32_t next_key_ = 1000;
  std::map<std::uint32_t, FakeQueuePair*> pairs_;
  NetworkCounts counts_;
};

class FakeCompletionQueue final : public CompletionQueue {
 public:
  FakeCompletionQueue(FakeDevice* device, std::uint32_t depth) : device_(device), depth_(depth) {}
  int Poll(std::span<Completion> into) override;
  Result<bool, FabricError> RequestNotification() override;
  void Push(const Completion& completion, bool front = false);

 private:
  FakeDevice* device_;
  std::uint32_t depth_;
  std::deque<Completion> completions_;
  bool armed_ = false;
};

class FakeQueuePair final : public QueuePair {
 public:
  FakeQueuePair(FakeNetwork* network, FakeDevice* device, FakeCompletionQueue* completions, const QueuePairLimits& limits);
  ~FakeQueuePair() override;
  [[nodiscard]] QueuePairAddress Address() const override;
  [[nodiscard]] QueuePairLimits Limits() const override { return limits_; }
  Result<bool, FabricError> Connect(const QueuePairAddress& peer) override;
  Result<bool, FabricError> PostSend(std::span<const SendRequest> requests) override;
  Result<bool, FabricError> PostReceive(std::span<const ReceiveRequest> requests) override;
  void Abort() override;

 private:
  friend class FakeNetwork;
  friend class FakeDevice;
  struct Posted {
    SendRequest request;
    std::vector<std::byte> inlined;
    std::uint32_t moved = 0;
    std::uint64_t since_ns = 0;  // posted, or first in the queue
    bool carried_out = false;
  };
  [[nodiscard]] bool CanMove() const;
  [[nodiscard]] bool CanAcknowledge() const;
  void Move();
  void Acknowledge();
  void Fail(CompletionStatus status);
  [[nodiscard]] bool Deliver(FakeQueuePair& far, Posted& posted);
  [[nodiscard]] FakeQueuePair* Far() const;  // null: nobody is there, or it has failed

  FakeNetwork* network_;
  FakeDevice* device_;
  FakeCompletionQueue* completions_;
  QueuePairLimits limits_;
  std::uint32_t number_;
  std::uint32_t far_number_ = 0;
  bool failed_ = false;
  std::uint64_t held_ = 0;       // steps for which nothing of it moves
  std::deque<Posted> requests_;  // not acknowledged, in order; those carried out first
  std::size_t carried_out_ = 0;
  std::deque<ReceiveRequest> receives_;
  std::size_t unreaped_ = 0;  // requests that take up the send queue
  std::size_t silent_ = 0;    // ... acknowledged, and no completion has told of it
};

class FakeDevice final : public Device {
 public:
  FakeDevice(FakeNetwork* network, int owner) : network_(network), owner_(owner) {}
  [[nodiscard]] std::string Name() const override { return "fake" + std::to_string(owner_); }
  Result<MemoryKeys, FabricError> Register(void* address, std::size_t length, Access access) override;
  void Deregister(const MemoryKeys& keys) override;
  Result<std::unique_ptr<CompletionQueue>, FabricError> CreateCompletionQueue(std::uint32_t depth) override;
  Result<std::unique_ptr<QueuePair>, FabricError> CreateQueuePair(CompletionQueue& completions, const QueuePairLimits& wanted) override;
  [[nodiscard]] int CompletionFd() const override { return -1; }
  [[nodiscard]] int EventFd() const override { return -1; }
  void ClearNotifications() override { notified_ = false; }
  bool TakeEvent(DeviceEvent* event, std::uint32_t* queue_pair) override;

  // The loop that owns it would be woken: CompletionFd or EventFd is readable.
  [[nodiscard]] bool Notified() const { return notified_ || !events_.empty(); }
  void Remove();
  void TakePortDown();
  [[nodiscard]] std::size_t Registrations() const { return memory_.size(); }
  [[nodiscard]] std::size_t QueuePairs() const { return pairs_.size(); }

 private:
  friend class FakeCompletionQueue;
  friend class FakeQueuePair;
  friend class FakeNetwork;
  struct Memory {
    std::uint64_t address;
    std::size_t length;
    Access access;
    MemoryKeys keys;
  };
  [[nodiscard]] bool Covers(std::uint32_t key, bool remote, std::uint64_t address, std::size_t length) const;

  FakeNetwork* network_;
  int owner_;
  std::vector<Memory> memory_;
  std::vector<FakeQueuePair*> pairs_;
  std::deque<DeviceEvent> events_;
  bool notified_ = false;
  bool gone_ = false;
  bool port_down_ = false;
};

}  // namespace vsocket::transport::testing
