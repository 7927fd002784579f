// The verbs calls as the rest of the agent makes them: a seam of plain values, so that everything above it is tested without a device.
// verbs/ makes them with libibverbs, fabric/testing/ with a simulated network. They mean what ibv_post_send(3), ibv_poll_cq(3) and the
// others mean; nothing is added, and nothing but what is used is here.
//
// Only reliable connected queue pairs. On one of them requests are carried out in order, and a later WRITE is not visible in memory before
// an earlier one (no memory is registered with relaxed ordering); between two of them there is no order. After the first completion that
// is not kSuccess a queue pair does nothing more, and what was posted is completed as kFlushed, or not at all once it is destroyed.
//
// Thread safety: none; one thread uses a device and everything made from it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"

namespace vsocket::transport {

struct FabricError {
  int number = 0;  // errno
  std::string what;
};

enum class Access : std::uint8_t {
  kLocal,        // this side's requests read it, and receives write it
  kRemoteWrite,  // and the far side's WRITEs
};

struct MemoryKeys {
  std::uint32_t local = 0;
  std::uint32_t remote = 0;  // as good as 0 with Access::kLocal
};

struct SendRequest {
  enum class Operation : std::uint8_t { kWrite, kWriteWithImmediate, kSend };
  std::uint64_t id = 0;
  Operation operation = Operation::kWrite;
  bool signalled = false;
  bool inlined = false;  // length <= QueuePairLimits::inline_bytes; the memory may change as soon as PostSend has returned
  std::uint32_t length = 0;
  std::uint64_t local_address = 0;
  std::uint32_t local_key = 0;
  std::uint32_t remote_key = 0;
  std::uint64_t remote_address = 0;
  std::uint32_t immediate = 0;  // host byte order
};

struct ReceiveRequest {
  std::uint64_t id = 0;
  std::uint64_t local_address = 0;
  std::uint32_t local_key = 0;
  std::uint32_t length = 0;
};

enum class CompletionStatus : std::uint8_t {
  kSuccess,
  kFlushed,           // IBV_WC_WR_FLUSH_ERR: of a queue pair that had failed before
  kRetriesExhausted,  // IBV_WC_RETRY_EXC_ERR: the far side acknowledges nothing
  kReceiverNotReady,  // IBV_WC_RNR_RETRY_EXC_ERR
  kRemoteRefused,     // IBV_WC_REM_ACCESS_ERR, IBV_WC_REM_INV_REQ_ERR, IBV_WC_REM_OP_ERR
  kLocalFailure,      // any other
};
const char* StatusText(CompletionStatus status);

struct Completion {
  enum class Kind : std::uint8_t { kSent, kReceived, kReceivedImmediate };
  std::uint64_t id = 0;
  std::uint32_t queue_pair = 0;
  CompletionStatus status = CompletionStatus::kSuccess;
  Kind kind = Kind::kSent;  // what failed is told apart by its id
  std::uint32_t length = 0;
  std::uint32_t immediate = 0;
};

// What the far side needs to reach a queue pair. Crosses nodes as plain values; the other node's may be anything.
struct QueuePairAddress {
  std::uint32_t number = 0;           // 24 bits
  std::uint32_t packet_sequence = 0;  // 24 bits
  std::uint16_t lid = 0;              // InfiniBand only
  std::uint8_t mtu = 0;               // 1..5: 256 << (mtu - 1) bytes
  std::array<std::uint8_t, 16> gid{};
};

struct QueuePairLimits {
  std::uint32_t sends = 0;     // requests posted and not known to be done
  std::uint32_t receives = 0;  // buffers posted
  std::uint32_t inline_bytes = 0;
};

class QueuePair {
 public:
  virtual ~QueuePair() = default;  // no request of either side is carried out after it
  [[nodiscard]] virtual QueuePairAddress Address() const = 0;
  [[nodiscard]] virtual QueuePairLimits Limits() const = 0;  // at least what was asked for, but for inline_bytes
  // Once. Receives are posted before it.
  virtual Result<bool, FabricError> Connect(const QueuePairAddress& peer) = 0;
  // One doorbell for all. An error: how many were taken is unknown, and the queue pair is to be given up.
  virtual Result<bool, FabricError> PostSend(std::span<const SendRequest> requests) = 0;
  virtual Result<bool, FabricError> PostReceive(std::span<const ReceiveRequest> requests) = 0;
  // To the error state: nothing more is sent, nothing of the far side's is carried out when it has returned.
  virtual void Abort() = 0;
};

class CompletionQueue {
 public:
  virtual ~CompletionQueue() = default;
  // How many of `into` were filled; negative: the device has gone.
  virtual int Poll(std::span<Completion> into) = 0;
  // The next completion that is added makes the device's event descriptor readable. One that is there already need not: poll after it.
  virtual Result<bool, FabricError> RequestNotification() = 0;
};

enum class DeviceEvent : std::uint8_t { kPortDown, kPortUp, kDeviceGone, kQueuePairFailed, kOther };

class Device {
 public:
  virtual ~Device() = default;  // after everything made from it
  [[nodiscard]] virtual std::string Name() const = 0;
  virtual Result<MemoryKeys, FabricError> Register(void* address, std::size_t length, Access access) = 0;
  virtual void Deregister(const MemoryKeys& keys) = 0;
  virtual Result<std::unique_ptr<CompletionQueue>, FabricError> CreateCompletionQueue(std::uint32_t depth) = 0;
  virtual Result<std::unique_ptr<QueuePair>, FabricError> CreateQueuePair(CompletionQueue& completions, const QueuePairLimits& wanted) = 0;
  // Readable when a completion queue that asked for it has something new, and when TakeEvent has something. -1: neither has a descriptor.
  [[nodiscard]] virtual int CompletionFd() const = 0;
  [[nodiscard]] virtual int EventFd() const = 0;
  virtual void ClearNotifications() = 0;
  // The next event, if there is one. `queue_pair`: the number, for kQueuePairFailed.
  virtual bool TakeEvent(DeviceEvent* event, std::uint32_t* queue_pair) = 0;
};

}  // namespace vsocket::transport
