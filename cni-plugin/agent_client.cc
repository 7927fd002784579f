#include "cni-plugin/agent_client.h"

#include <grpcpp/grpcpp.h>
#include <vsocket/v1/agent.grpc.pb.h>

#include <utility>

#include "cni-plugin/pod_message.h"
#include "proto/unix_channel.h"
#include "proto/version.h"

namespace vsocket::cni {
namespace {

class GrpcAgent final : public Agent {
 public:
  GrpcAgent(std::string socket_path, std::chrono::milliseconds timeout)
      : socket_path_(std::move(socket_path)), timeout_(timeout), deadline_(std::chrono::system_clock::now() + timeout) {}

  Answer AddPod(const Pod& pod) override {
    v1::AddPodRequest request;
    ToMessage(pod, request.mutable_pod());
    v1::AddPodResponse response;
    return Ask(request, &response, &v1::Cni::Stub::AddPod);
  }

  Answer RemovePod(const Attachment& attachment) override {
    v1::RemovePodRequest request;
    request.set_container_id(attachment.container_id);
    request.set_ifname(attachment.ifname);
    v1::RemovePodResponse response;
    return Ask(request, &response, &v1::Cni::Stub::RemovePod);
  }

  Answer CheckPod(const Pod& pod) override {
    v1::CheckPodRequest request;
    ToMessage(pod, request.mutable_pod());
    v1::CheckPodResponse response;
    return Ask(request, &response, &v1::Cni::Stub::CheckPod);
  }

  Answer CollectPods(const std::vector<Attachment>& keep) override {
    v1::CollectPodsRequest request;
    for (const Attachment& attachment : keep) ToMessage(attachment, request.add_keep());
    v1::CollectPodsResponse response;
    return Ask(request, &response, &v1::Cni::Stub::CollectPods);
  }

  Answer Status() override {
    v1::CniStatusRequest request;
    v1::CniStatusResponse response;
    Answer answer = Ask(request, &response, &v1::Cni::Stub::Status);
    if (answer.kind == Answer::Kind::kOk && !response.ready()) {
      return {Answer::Kind::kUnreachable, "the agent on " + socket_path_ + " is not ready yet"};
    }
    return answer;
  }

 private:
  template <typename Request, typename Response>
  Answer Ask(Request& request, Response* response, grpc::Status (v1::Cni::Stub::*method)(grpc::ClientContext*, const Request&, Response*)) {
    if (!stub_) {
      if (Answer connected = Connect(); connected.kind != Answer::Kind::kOk) return connected;
    }
    request.set_protocol_version(rpc::kProtocolVersion);
    grpc::ClientContext context;
    context.set_deadline(deadline_);
    const Answer answer = AnswerOf((stub_.get()->*method)(&context, request, response));
    // A connection handed to gRPC is not made again by it: the next question begins anew.
    if (answer.kind == Answer::Kind::kUnreachable) stub_.reset();
    return answer;
  }

  Answer Connect() {
    rpc::ConnectError error;
    const auto channel = rpc::ConnectUnix(socket_path_, &error);
    if (!channel) return {error.someone_listens ? Answer::Kind::kTimedOut : Answer::Kind::kUnreachable, error.message};
    stub_ = v1::Cni::NewStub(channel);
    return {};
  }

  [[nodiscard]] Answer AnswerOf(const grpc::Status& status) const {
    switch (status.error_code()) {
      case grpc::StatusCode::OK:
        return {};
      case grpc::StatusCode::DEADLINE_EXCEEDED:
        return {Answer::Kind::kTimedOut,
                "the agent on " + socket_path_ + " did not answer within " + std::to_string(timeout_.count()) + " ms"};
      case grpc::StatusCode::UNAVAILABLE:
        return {Answer::Kind::kUnreachable, "the agent on " + socket_path_ + " is not available: " + status.error_message()};
      case grpc::StatusCode::FAILED_PRECONDITION:
        return {Answer::Kind::kOtherVersion, status.error_message()};
      case grpc::StatusCode::UNIMPLEMENTED:
        return {Answer::Kind::kOtherVersion, "the agent on " + socket_path_ + " does not know this call: it is older than the plugin"};
      case grpc::StatusCode::NOT_FOUND:
        return {Answer::Kind::kNotFound, status.error_message()};
      case grpc::StatusCode::ALREADY_EXISTS:
        return {Answer::Kind::kDiffers, status.error_message()};
      default:
        return {Answer::Kind::kRefused, "the agent refuses: " + status.error_message()};
    }
  }

  const std::string socket_path_;
  const std::chrono::milliseconds timeout_;
  const std::chrono::system_clock::time_point deadline_;
  std::unique_ptr<v1::Cni::Stub> stub_;
};

}  // namespace

std::unique_ptr<Agent> ConnectAgent(std::string socket_path, std::chrono::milliseconds timeout) {
  return std::make_unique<GrpcAgent>(std::move(socket_path), timeout);
}

}  // namespace vsocket::cni
