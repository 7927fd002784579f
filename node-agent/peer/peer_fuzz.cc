// libFuzzer target for what a far agent can send: any number of messages, each after its length (2 bytes, little endian), to the agent of
// node "a", which leads, and to that of node "b", which does not. Both have ends of pods that wait.
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>

#include "node-agent/peer/convert.h"
#include "node-agent/peer/session.h"
#include "node-agent/peer/testing/fake_host.h"

namespace {

using namespace vsocket;
using namespace vsocket::peer;

void Require(bool holds) {
  if (!holds) std::abort();
}

// The agent that is attacked: as Peers wires it, without gRPC.
class Victim final : public SessionSink, public Outgoing {
 public:
  Victim(const std::string& node, std::string far) : far_(std::move(far)), agreement_(node, Limits(), cluster_, host_, *this) {
    for (std::uint16_t port = 1; port <= 3; ++port) {
      Require(!agreement_.Ask(node == "a" ? testing::ClientEnd(port) : testing::ServerEnd(port), 0));
    }
    SessionOptions options;
    options.node = node;
    options.instance = 1;
    options.transports = {"verbs"};
    session_.emplace(node == "a" ? Session::Role::kCaller : Session::Role::kListener, options, far_, *this, 0);
  }
  void Receive(const Result<Message, std::string>& message) {
    now_ns_ += 10'000'000;
    if (message) {
      session_->Receive(message.Value(), now_ns_);
    } else {
      session_->ReceivedGarbage(message.Error());
    }
    session_->Tick(now_ns_);
    agreement_.Tick(now_ns_);
    Check();
  }

  void Send(const Message& message) override {
    // What goes out, the far agent can read.
    const auto back = FromProto(ToProto(message));
    Require(back.Ok() && back.Value() == message);
  }
  void SendTo(const std::string& node, const Message& message) override {
    Require(node == far_);
    Send(message);
  }
  void Opened(const Terms& terms) override { agreement_.SessionOpened(far_, terms); }
  bool Deliver(const Message& message, std::string* why) override { return agreement_.Receive(far_, message, now_ns_, why); }
  void Ended(Farewell, const std::string& text) override {
    Require(text.size() < 4 * kMaxTextBytes);
    agreement_.SessionLost(far_, text, now_ns_);
  }

 private:
  static AgreementLimits Limits() {
    AgreementLimits limits;
    limits.offers_per_peer = 8;
    limits.channels_per_peer = 2;
    return limits;
  }
  void Check() const {
    Require(agreement_.OffersOf(far_) <= 8 && agreement_.ChannelsOf(far_) <= 2);
    // Only what this node's own pods asked for comes to be, and nothing is left of what ended.
    Require(host_.granted.size() <= host_.prepared.size() && host_.prepared.size() == agreement_.ChannelsOf(far_));
    Require(agreement_.Waiting() + host_.prepared.size() <= 3);
  }

  const std::string far_;
  const testing::FakeCluster cluster_ = testing::TwoNodes();
  testing::FakeHost host_;
  Agreement agreement_;
  std::optional<Session> session_;
  std::uint64_t now_ns_ = 1;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  google::protobuf::SetLogHandler(nullptr);  // it would say of each broken text that it is
  Victim leader("a", "b"), follower("b", "a");
  while (size >= 2) {
    const std::size_t length = std::min<std::size_t>(size - 2, data[0] | static_cast<std::size_t>(data[1]) << 8U);
    v1::PeerMessage raw;
    const bool parsed = raw.ParseFromArray(data + 2, static_cast<int>(length));
    data += 2 + length;
    size -= 2 + length;
    if (!parsed) continue;  // gRPC would have ended the stream
    const auto message = FromProto(raw);
    if (message) {
      const auto back = FromProto(ToProto(message.Value()));
      Require(back.Ok() && back.Value() == message.Value());
    }
    leader.Receive(message);
    follower.Receive(message);
  }
  return 0;
}
