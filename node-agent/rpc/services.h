// The two gRPC services as adapters over model::NodeApi. Only rpc/ sees this header.
//
// A gate holds every request until the agent has applied its spool, so that a DEL which arrives early cannot be overtaken by the
// spooled ADD of the same pod. Thread safety: handlers run on gRPC's threads, several at a time.
#pragma once

#include <grpcpp/grpcpp.h>
#include <vsocket/v1/agent.grpc.pb.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "node-agent/model/flow_source.h"
#include "node-agent/model/node_api.h"

namespace vsocket::rpc {

class Gate {
 public:
  explicit Gate(std::uint32_t protocol_version) : protocol_version_(protocol_version) {}
  void Open() { Set(State::kOpen); }
  // For good: those who wait, and those who come, are turned away.
  void Shut() { Set(State::kShut); }
  // OK when a request of this protocol version may be served, after waiting for Open(); UNAVAILABLE after Shut().
  // FAILED_PRECONDITION at once for another version: what else the request says cannot be understood.
  [[nodiscard]] grpc::Status Admit(std::uint32_t version);

 private:
  enum class State { kWaiting, kOpen, kShut };
  void Set(State state);

  const std::uint32_t protocol_version_;
  std::mutex mutex_;
  std::condition_variable changed_;
  State state_ = State::kWaiting;
};

class CniService final : public v1::Cni::Service {
 public:
  CniService(model::NodeApi& api, Gate& gate) : api_(api), gate_(gate) {}

  grpc::Status AddPod(grpc::ServerContext*, const v1::AddPodRequest* request, v1::AddPodResponse* response) override;
  grpc::Status RemovePod(grpc::ServerContext*, const v1::RemovePodRequest* request, v1::RemovePodResponse*) override;
  grpc::Status CheckPod(grpc::ServerContext*, const v1::CheckPodRequest* request, v1::CheckPodResponse* response) override;
  grpc::Status CollectPods(grpc::ServerContext*, const v1::CollectPodsRequest* request, v1::CollectPodsResponse* response) override;
  grpc::Status Status(grpc::ServerContext*, const v1::CniStatusRequest* request, v1::CniStatusResponse* response) override;

 private:
  model::NodeApi& api_;
  Gate& gate_;
};

class InspectService final : public v1::Inspect::Service {
 public:
  // So many clients may follow flow events: each takes one of the server's threads.
  static constexpr int kMostFollowers = 16;

  // `flows` may be null: there are no flow events to see.
  InspectService(model::NodeApi& api, model::FlowSource* flows, Gate& gate) : api_(api), flows_(flows), gate_(gate) {}

  grpc::Status Status(grpc::ServerContext*, const v1::StatusRequest* request, v1::StatusResponse* response) override;
  grpc::Status ListPods(grpc::ServerContext*, const v1::ListPodsRequest* request, v1::ListPodsResponse* response) override;
  grpc::Status ListConnections(grpc::ServerContext*, const v1::ListConnectionsRequest* request,
                               grpc::ServerWriter<v1::ConnectionsPage>* pages) override;
  grpc::Status TracePolicy(grpc::ServerContext*, const v1::TracePolicyRequest* request, v1::TracePolicyResponse* response) override;
  grpc::Status ListPolicies(grpc::ServerContext*, const v1::ListPoliciesRequest* request,
                            grpc::ServerWriter<v1::PoliciesPage>* pages) override;
  grpc::Status WatchFlows(grpc::ServerContext* context, const v1::WatchFlowsRequest* request,
                          grpc::ServerWriter<v1::FlowsPage>* pages) override;

 private:
  model::NodeApi& api_;
  model::FlowSource* const flows_;
  Gate& gate_;
  std::atomic<int> followers_{0};
};

}  // namespace vsocket::rpc
