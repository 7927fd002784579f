// A reliable connected queue pair and a completion queue over libibverbs.
#pragma once

#include <infiniband/verbs.h>

#include <string>
#include <vector>

#include "node-agent/transport/fabric/fabric.h"
#include "node-agent/transport/verbs/device_choice.h"
#include "node-agent/transport/verbs/handles.h"

namespace vsocket::transport {

Failure<FabricError> VerbsFailure(int error, const char* what);

class VerbsCompletionQueue final : public CompletionQueue {
 public:
  explicit VerbsCompletionQueue(CompletionQueueHandle queue) : queue_(std::move(queue)) {}
  int Poll(std::span<Completion> into) override;
  Result<bool, FabricError> RequestNotification() override;
  [[nodiscard]] ibv_cq* Get() const { return queue_.get(); }

 private:
  CompletionQueueHandle queue_;
};

class VerbsQueuePair final : public QueuePair {
 public:
  // In the state INIT, so that receives can be posted.
  static Result<std::unique_ptr<QueuePair>, FabricError> Create(ibv_pd* domain, ibv_cq* completions, const QueuePairLimits& wanted,
                                                                const DeviceWish& wish, const DeviceChoice& choice, std::uint16_t lid,
                                                                bool ethernet);
  [[nodiscard]] QueuePairAddress Address() const override;
  [[nodiscard]] QueuePairLimits Limits() const override { return limits_; }
  Result<bool, FabricError> Connect(const QueuePairAddress& peer) override;
  Result<bool, FabricError> PostSend(std::span<const SendRequest> requests) override;
  Result<bool, FabricError> PostReceive(std::span<const ReceiveRequest> requests) override;
  void Abort() override;

 private:
  VerbsQueuePair(QueuePairHandle pair, const QueuePairLimits& limits, const DeviceWish& wish, const DeviceChoice& choice, std::uint16_t lid,
                 bool ethernet);
  Result<bool, FabricError> ToInit();

  QueuePairHandle pair_;
  QueuePairLimits limits_;
  DeviceWish wish_;
  DeviceChoice choice_;
  std::uint16_t lid_;
  bool ethernet_;
  std::uint32_t packet_sequence_ = 0;
  // Kept between calls, so that posting allocates nothing.
  std::vector<ibv_send_wr> sends_;
  std::vector<ibv_recv_wr> receives_;
  std::vector<ibv_sge> pieces_;
};

}  // namespace vsocket::transport
