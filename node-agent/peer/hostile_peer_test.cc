// An agent against a node that is taken over: it has that node's certificate, and says what it likes.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <vsocket/v1/peer.grpc.pb.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "node-agent/peer/convert.h"
#include "node-agent/peer/credentials.h"
#include "node-agent/peer/peers.h"
#include "node-agent/peer/testing/certificates.h"
#include "node-agent/peer/testing/fake_host.h"

namespace vsocket::peer {
namespace {

using namespace std::chrono_literals;
using testing::ClientEnd;
using testing::EndOf;
using testing::Replace;
using testing::WishOf;

constexpr std::size_t kOffersPerPeer = 50;

class HostilePeerTest : public ::testing::Test {
 protected:
  HostilePeerTest() : folder_(std::filesystem::temp_directory_path() / ("vsocket-hostile-" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(folder_);
    for (const char* node : {"a", "b"}) {
      std::filesystem::create_directories(folder_ / node);
      const auto pair = authority_.Sign(WishOf(node));
      Replace(folder_ / node / "tls.crt", pair.certificate);
      Replace(folder_ / node / "tls.key", pair.key);
    }
    Replace(folder_ / "ca.crt", authority_.Pem());
    PeersOptions options;
    options.node = "b";
    options.trust_domain = "test.local";
    options.listen = "127.0.0.1:0";
    options.certificate_file = folder_ / "b" / "tls.crt";
    options.key_file = folder_ / "b" / "tls.key";
    options.roots_file = folder_ / "ca.crt";
    options.instance = 1;
    options.transports = {"verbs"};
    options.silence_ms = 60'000;
    options.heartbeat_ms = 60'000;  // so that nothing but answers is sent
    options.limits.offers_per_peer = kOffersPerPeer;
    auto started = Peers::Start(options, host_);
    EXPECT_TRUE(started) << started.Error();
    victim_ = std::move(started.Value());
    std::vector<model::Shared<model::Pod>> pods;
    for (const auto& [ip, place] : testing::TwoNodes().pods) {
      model::Pod pod;
      pod.ns = "shop";
      pod.name = place.pod.substr(5);
      pod.node = place.node;
      pod.ips = {ip};
      pods.emplace_back(pod);
    }
    victim_->SetCluster(Directory(pods, {{"a", "127.0.0.1:1", {}}, {"b", "127.0.0.1:2", {}}}));
    credentials_ = std::make_unique<Credentials>(CertificateFiles{folder_ / "a" / "tls.crt", folder_ / "a" / "tls.key", folder_ / "ca.crt"},
                                                 "test.local", [](const std::string&) {});
    // The attacker's gRPC keeps what it does not read, up to a window that grows; with one that does not grow it is soon full.
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 65536);
    channel_ = grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(victim_->Port()), credentials_->ForCalling("b"), arguments);
    stub_ = v1::Peer::NewStub(channel_);
  }
  ~HostilePeerTest() override {
    victim_.reset();
    std::filesystem::remove_all(folder_);
  }

  // A stream of the attacker's.
  struct Call {
    explicit Call(v1::Peer::Stub& stub) : stream(stub.Session(&context)) {}
    ~Call() {
      context.TryCancel();
      stream->Finish();
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    bool Say(const Message& message) { return stream->Write(ToProto(message)); }
    // The next message; nothing at the end of the stream.
    std::optional<Message> Hear() {
      v1::PeerMessage raw;
      if (!stream->Read(&raw)) return std::nullopt;
      auto message = FromProto(raw);
      EXPECT_TRUE(message) << message.Error();
      return message ? std::optional(message.Value()) : std::nullopt;
    }
    // The next one of its kind, others left out.
    template <typename Kind>
    std::optional<Kind> HearA() {
      while (const auto message = Hear()) {
        if (const auto* one = std::get_if<Kind>(&*message)) return *one;
      }
      return std::nullopt;
    }
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<v1::PeerMessage, v1::PeerMessage>> stream;
  };
  static Hello Greeting() { return {1, 1, "a", 77, "evil", 60'000, {"verbs"}}; }
  static void Greet(Call& call) {
    EXPECT_TRUE(call.Say(Greeting()));
    EXPECT_TRUE(call.Say(Resume{}));
    EXPECT_TRUE(call.HearA<Resume>());
  }

  const std::filesystem::path folder_;
  testing::Authority authority_{"authority"};
  testing::FakeHost host_;
  std::unique_ptr<Peers> victim_;
  std::unique_ptr<Credentials> credentials_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Peer::Stub> stub_;
};

TEST_F(HostilePeerTest, AHelloInAnothersName) {
  Call call(*stub_);
  Hello hello = Greeting();
  hello.node = "c";
  EXPECT_TRUE(call.Say(hello));
  const auto goodbye = call.HearA<Goodbye>();
  ASSERT_TRUE(goodbye);
  EXPECT_EQ(goodbye->why, Farewell::kWrongNode);
  EXPECT_FALSE(call.Hear()) << "and that was the last word";
}

TEST_F(HostilePeerTest, AMessageOutOfItsBounds) {
  Call call(*stub_);
  Greet(call);
  v1::PeerMessage message = ToProto(Offer{1, ClientEnd()});
  message.mutable_offer()->mutable_end()->mutable_local()->set_port(70'000);
  EXPECT_TRUE(call.stream->Write(message));
  const auto goodbye = call.HearA<Goodbye>();
  ASSERT_TRUE(goodbye);
  EXPECT_EQ(goodbye->why, Farewell::kBrokeProtocol);
  EXPECT_EQ(goodbye->text, "end.local is out of its bounds");
  EXPECT_EQ(victim_->Counters().breaches, 1U);
}

TEST_F(HostilePeerTest, AMessageThatIsTooLarge) {
  Call call(*stub_);
  Greet(call);
  v1::PeerMessage message;
  message.mutable_goodbye()->set_text(std::string(2 * kMaxMessageBytes, 'x'));
  call.stream->Write(message);
  EXPECT_FALSE(call.HearA<Goodbye>()) << "gRPC ends the stream";
}

TEST_F(HostilePeerTest, AnotherNodesPods) {
  Call call(*stub_);
  Greet(call);
  EXPECT_TRUE(call.Say(Offer{1, EndOf("b2", "10.2.0.2", 1, "10.2.0.1", 2)}));
  const auto refusal = call.HearA<Refuse>();
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->text, "10.2.0.2 is not known to be pod shop/b2 on node a");
}

TEST_F(HostilePeerTest, ASecondStreamTakesThePlaceOfTheFirst) {
  Call first(*stub_);
  Greet(first);
  EXPECT_TRUE(first.Say(Offer{1, ClientEnd(1)}));
  Call second(*stub_);
  Greet(second);
  const auto goodbye = first.HearA<Goodbye>();
  ASSERT_TRUE(goodbye);
  EXPECT_EQ(goodbye->why, Farewell::kReplaced);
  EXPECT_EQ(victim_->List().at(0).offers, 0U) << "and what was offered on it is forgotten";
}

TEST_F(HostilePeerTest, AFloodFromOneThatDoesNotReadIsNotReadEither) {
  Call call(*stub_);
  Greet(call);
  constexpr std::uint64_t kMany = 12'000;
  std::atomic<std::uint64_t> written{0};
  std::thread flood([&] {
    for (std::uint64_t offer = 1; offer <= kMany; ++offer) {
      if (!call.Say(Offer{offer, ClientEnd(static_cast<std::uint16_t>(1 + offer % 60'000))})) return;
      ++written;
    }
  });
  const auto wait_until = [](auto condition) {
    for (const auto give_up = std::chrono::steady_clock::now() + 60s; !condition() && std::chrono::steady_clock::now() < give_up;) {
      std::this_thread::sleep_for(5ms);  // nothing announces it
    }
  };
  wait_until([&] { return victim_->Counters().pauses != 0; });  // what is written may wait in buffers: the victim is behind
  EXPECT_GE(victim_->Counters().pauses, 1U) << "written: " << written;
  const auto counters = victim_->Counters().agreement;
  EXPECT_LT(counters.offers_received, kMany / 2) << "it stopped taking them";
  EXPECT_LE(victim_->List().at(0).offers, kOffersPerPeer);
  // As soon as the attacker reads, it is read from again.
  std::thread reader([&] {
    while (call.Hear()) {
    }
  });
  flood.join();
  EXPECT_EQ(written, kMany);
  wait_until([&] { return victim_->Counters().agreement.offers_received == kMany; });
  EXPECT_EQ(victim_->Counters().agreement.offers_received, kMany);
  EXPECT_EQ(victim_->List().at(0).offers, kOffersPerPeer);
  call.context.TryCancel();
  reader.join();
}

}  // namespace
}  // namespace vsocket::peer
