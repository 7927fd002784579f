// Bandwidth limits on real regions between real sockets, with shims that behave and that do not. Needs root (a network namespace,
// SOCK_DESTROY).
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "channel/grant.h"
#include "node-agent/broker/testing/integration_test.h"

namespace vsocket::broker {
namespace {

using testing::Eventually;
using testing::FieldOf;
using testing::MappedRegion;

constexpr std::uint64_t kMbit = 1'000'000;

model::BandwidthLimit Limit(std::uint64_t bits, const char* text) {
  return {bits, text};
}

class BandwidthTest : public testing::ServedNodeTest {
 protected:
  void SetUp() override {
    ServedNodeTest::SetUp();
    ASSERT_NO_FATAL_FAILURE(StartAndGreet());
  }

  void LimitEgressOfA(std::uint64_t bits) { node_->SetBandwidth({{"a", {std::nullopt, Limit(bits, "as asked"), ""}}}); }

  void Connect() {
    ASSERT_TRUE(GrantBetween(*a_, *b_, &channel_));
    region_ = std::make_unique<MappedRegion>(channel_.client.memory.Get());
    ASSERT_TRUE(region_->Valid());
    side_ = channel_.client.grant.channel.side;
  }

  channel::SlotHeader& Slot() { return region_->Slot(channel_.client.grant.channel.slot); }
  std::uint64_t MayPublish() { return channel::MayPublish(Slot().grant[side_], published_); }
  // As the client's shim does, with its direction on the ring.
  void Publish(std::uint64_t bytes) {
    published_ += bytes;
    Slot().side[side_].tail.store(published_);
    Slot().side[side_].proposal_generation.store(1);
  }
  bool Ask() { return a_->AskGrant(channel_.tcp.client.Get(), channel_.client.grant); }
  std::string LimitShown() {
    for (const model::ConnectionInfo& info : node_->Connections()) {
      if (info.cookie == testing::CookieOf(channel_.tcp.client.Get())) return info.limited_by;
    }
    return "no such connection";
  }
  // Takes what is granted for so many milliseconds.
  std::uint64_t SendFor(int ms) {
    const std::uint64_t end = MonotonicNow() + static_cast<std::uint64_t>(ms) * 1'000'000;
    std::uint64_t sent = 0;
    while (MonotonicNow() < end) {
      const std::uint64_t may = MayPublish();
      Publish(may);
      sent += may;
      if (may == 0 && Slot().watched[side_].load() == channel::kUnwatched) (void)Ask();
      ::usleep(500);
    }
    return sent;
  }

  testing::Channel channel_;
  std::unique_ptr<MappedRegion> region_;
  std::uint32_t side_ = 0;
  std::uint64_t published_ = 0;
};

TEST_F(BandwidthTest, APodWithoutALimitHasNoGrant) {
  ASSERT_NO_FATAL_FAILURE(Connect());
  EXPECT_EQ(Slot().grant[0].load(), 0U);
  EXPECT_EQ(Slot().grant[1].load(), 0U);
  EXPECT_GT(MayPublish(), 1ULL << 60);
  EXPECT_EQ(LimitShown(), "");
  EXPECT_EQ(node_->Stats().bandwidth.limited, 0U);
}

TEST_F(BandwidthTest, ASenderIsGrantedItsRateAndTheAgentRestsAfterwards) {
  LimitEgressOfA(8 * kMbit);
  ASSERT_NO_FATAL_FAILURE(Connect());
  EXPECT_EQ(LimitShown(), "egress-bandwidth as asked");
  EXPECT_EQ(Slot().grant[1 - side_].load(), 0U) << "the other direction has none";
  EXPECT_EQ(MayPublish(), 0U);
  Publish(0);
  const std::uint64_t sent = SendFor(1000);
  EXPECT_GT(sent, 800'000U);
  EXPECT_LT(sent, 1'060'000U);
  EXPECT_TRUE(Eventually([&] { return node_->Stats().bandwidth.active == 0; }));
  const std::uint64_t rounds = node_->Stats().bandwidth.rounds;
  ::usleep(100'000);
  EXPECT_EQ(node_->Stats().bandwidth.rounds, rounds) << "nobody sends, and the agent looks at nothing";
}

TEST_F(BandwidthTest, ChangesOfTheAnnotationReachALiveChannel) {
  ASSERT_NO_FATAL_FAILURE(Connect());
  Publish(5000);
  LimitEgressOfA(8 * kMbit);
  EXPECT_LT(MayPublish(), 1ULL << 30);
  EXPECT_LT(SendFor(500), 560'000U);
  node_->SetBandwidth({{"a", {}}, {"b", {Limit(80 * kMbit, "80M"), std::nullopt, ""}}});
  EXPECT_EQ(LimitShown(), "ingress-bandwidth 80M of the other pod");
  EXPECT_GT(SendFor(500), 2'500'000U);
  node_->SetBandwidth({{"b", {}}});
  EXPECT_GT(MayPublish(), 1ULL << 60);
  EXPECT_EQ(Slot().watched[side_].load(), channel::kUnwatched);
}

TEST_F(BandwidthTest, AnAnnotationThatIsNotUnderstoodKeepsThePodOnTcp) {
  ASSERT_NO_FATAL_FAILURE(Connect());
  Publish(100);
  node_->SetBandwidth({{"b", {std::nullopt, std::nullopt, "ingress-bandwidth: \"fast\" is not a quantity"}}});
  for (std::uint32_t side = 0; side < 2; ++side) {
    EXPECT_EQ(Slot().watched[side].load(), channel::kNoMore);
    EXPECT_EQ(channel::MayPublish(Slot().grant[side], 100), 0U);
  }
  testing::Channel denied;
  denied.tcp = testing::MakeTcpPair(testing::kIpA, testing::kIpB);
  ASSERT_TRUE(a_->Upgrade(denied.tcp.client.Get()) && b_->Upgrade(denied.tcp.server.Get()));
  const auto deny = a_->ExpectDeny(denied.tcp.client.Get());
  ASSERT_TRUE(deny);
  EXPECT_EQ(deny->reason, static_cast<std::uint16_t>(channel::Reason::kBadBandwidth));
  EXPECT_NE(deny->retry_after_ms, 0U);
  EXPECT_TRUE(b_->ExpectDeny(denied.tcp.server.Get()));
  const model::AgentStatus status = node_->Status();
  ASSERT_EQ(status.problems.size(), 1U);
  EXPECT_NE(status.problems[0].what.find("not a quantity"), std::string::npos);
  node_->SetBandwidth({{"b", {}}});
  EXPECT_GT(MayPublish(), 1ULL << 60);
  EXPECT_TRUE(node_->Status().problems.empty());
}

TEST_F(BandwidthTest, ASenderThatIgnoresItsGrantIsCutAndStaysOnTcp) {
  LimitEgressOfA(8 * kMbit);
  ASSERT_NO_FATAL_FAILURE(Connect());
  Publish(0);
  (void)SendFor(50);
  Publish(MayPublish() + 1'000'000);
  EXPECT_TRUE(Eventually([&] { return node_->Stats().over_limit == 1; }));
  EXPECT_TRUE(Eventually([&] { return Slot().revoked.load() == channel_.client.grant.channel.epoch; }));
  const auto said = Said("bandwidth limit ignored");
  ASSERT_TRUE(said);
  EXPECT_EQ(FieldOf(*said, "pod"), "a");
  char byte = 0;
  EXPECT_LT(::recv(channel_.tcp.server.Get(), &byte, 1, 0), 1) << "the kernel's connection is gone as well";
  testing::TcpPair next = testing::MakeTcpPair(testing::kIpA, testing::kIpB);
  ASSERT_TRUE(a_->Upgrade(next.client.Get()) && b_->Upgrade(next.server.Get()));
  const auto deny = a_->ExpectDeny(next.client.Get());
  ASSERT_TRUE(deny);
  EXPECT_EQ(deny->reason, static_cast<std::uint16_t>(channel::Reason::kOverLimit));
}

TEST_F(BandwidthTest, OneThatNeverAsksIsFoundAsWell) {
  LimitEgressOfA(8 * kMbit);
  ASSERT_NO_FATAL_FAILURE(Connect());
  Publish(50'000'000);
  EXPECT_TRUE(Eventually([&] { return node_->Stats().over_limit == 1; }));
}

TEST_F(BandwidthTest, WhatTheKernelHasCarriedExplainsAPosition) {
  LimitEgressOfA(8 * kMbit);
  ASSERT_NO_FATAL_FAILURE(Connect());
  std::vector<char> bytes(100'000);
  ASSERT_EQ(::send(channel_.tcp.client.Get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  Publish(bytes.size());  // goes up behind them, unread as they are
  EXPECT_GT(SendFor(300), 200'000U);
  EXPECT_EQ(node_->Stats().over_limit, 0U);
}

}  // namespace
}  // namespace vsocket::broker
