// The node with real sockets: proof, match, grant, release, denial, revocation. Needs root (a network namespace, SOCK_DESTROY).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <array>

#include "node-agent/broker/testing/integration_test.h"

namespace vsocket::broker {
namespace {

using channel::Reason;
using model::ConnectionState;
using testing::Channel;
using testing::Eventually;
using testing::FakeShim;
using testing::kIpA;
using testing::kIpB;
using testing::MakeTcpPair;
using testing::MappedRegion;
using testing::TcpPair;

class NodeTest : public testing::ServedNodeTest {
 protected:
  model::ConnectionInfo Shown(int tcp) {
    const std::uint64_t cookie = testing::CookieOf(tcp);
    for (const auto& info : node_->Connections()) {
      if (info.cookie == cookie && info.pod == "default/a") return info;
    }
    return {};
  }
};

TEST_F(NodeTest, GrantsBothEndsOneSlot) {
  ASSERT_NO_FATAL_FAILURE(StartAndGreet());
  Channel channel;
  ASSERT_TRUE(GrantBetween(*a_, *b_, &channel));
  const channel::ChannelRef& mine = channel.client.grant.channel;
  const channel::ChannelRef& theirs = channel.server.grant.channel;
  EXPECT_EQ(mine.region_id, theirs.region_id);
  EXPECT_EQ(mine.slot, theirs.slot);
  EXPECT_EQ(mine.epoch, theirs.epoch);
  EXPECT_EQ(mine.side, 0U) << "it asked first";
  EXPECT_EQ(theirs.side, 1U);
  const MappedRegion region(channel.client.memory.Get());
  ASSERT_TRUE(region.Valid());
  EXPECT_EQ(region.Slot(mine.slot).epoch.load(), mine.epoch);
  EXPECT_GT(region.Header().lease_until_ns.load(), MonotonicNow() + 8'000'000'000);
  EXPECT_EQ(Asked().source.ToString(), kIpA) << "the listener is the destination, whoever asks first";
  EXPECT_EQ(Asked().destination.ToString(), kIpB);
  region.Slot(mine.slot).side[0].proposal_start.store(100);
  region.Slot(mine.slot).side[0].tail.store(1100);
  region.Slot(mine.slot).side[0].proposal_generation.store(1);
  const auto info = Shown(channel.tcp.client.Get());
  EXPECT_EQ(info.state, ConnectionState::kRing);
  EXPECT_EQ(info.program, "client");
  EXPECT_EQ(info.pid, ::getpid());
  EXPECT_EQ(info.remote_pod, "default/b");
  EXPECT_EQ(info.ring_sent, 1000U);
  EXPECT_EQ(info.ring_received, 0U);

  // The next connection between the two gets a slot of the same region, and the first slot is given again only when both let go.
  Channel second;
  ASSERT_TRUE(GrantBetween(*a_, *b_, &second));
  EXPECT_EQ(second.client.grant.channel.region_id, mine.region_id);
  EXPECT_NE(second.client.grant.channel.slot, mine.slot);
  ASSERT_TRUE(a_->Release(channel.client.grant) && a_->Quiet());
  EXPECT_EQ(node_->Stats().channels, 2U);
  ASSERT_TRUE(b_->Release(channel.server.grant) && b_->Quiet());
  EXPECT_EQ(node_->Stats().channels, 1U);
  EXPECT_EQ(node_->Stats().ring_bytes, 1000U);
  Channel third;
  ASSERT_TRUE(GrantBetween(*a_, *b_, &third));
  EXPECT_EQ(third.client.grant.channel.slot, mine.slot);
  EXPECT_NE(third.client.grant.channel.epoch, mine.epoch);
}

TEST_F(NodeTest, GrantsLoopbackIPv6MappedAndOneProcessWithItself) {
  ASSERT_NO_FATAL_FAILURE(StartAndGreet());
  allowed_ = false;  // a pod may always talk to itself
  Channel loopback;
  ASSERT_TRUE(GrantBetween(*a_, *a_, &loopback, "127.0.0.1", "127.0.0.1"));
  EXPECT_NE(loopback.client.grant.channel.side, loopback.server.grant.channel.side);
  Channel own_address;
  EXPECT_TRUE(GrantBetween(*a_, *a_, &own_address, kIpA, kIpA));
  allowed_ = true;
  Channel v6;
  EXPECT_TRUE(GrantBetween(*a_, *b_, &v6, "fd77::1", "fd77::2"));
  Channel mapped;
  EXPECT_TRUE(GrantBetween(*a_, *b_, &mapped, "::ffff:10.77.0.1", "::ffff:10.77.0.2"));
  EXPECT_EQ(Shown(mapped.tcp.client.Get()).remote.ToString(), kIpB);
}

TEST_F(NodeTest, DoesNotHoldBackTheEndOfAConnection) {
  ASSERT_NO_FATAL_FAILURE(Start());
  FakeShim a(Sock("a"));
  ASSERT_TRUE(a.Hello());
  TcpPair tcp = MakeTcpPair(kIpA, kIpB);
  ASSERT_TRUE(a.Upgrade(tcp.client.Get()) && a.Quiet());
  tcp.client.Reset();
  char byte = 0;
  EXPECT_EQ(::recv(tcp.server.Get(), &byte, 1, 0), 0);
}

TEST_F(NodeTest, DeniesWhatItCannotProve) {
  ASSERT_NO_FATAL_FAILURE(StartAndGreet());
  const TcpPair tcp = MakeTcpPair(kIpA, kIpB);

  ASSERT_TRUE(b_->Upgrade(tcp.client.Get()));
  auto deny = b_->ExpectDeny(tcp.client.Get());
  ASSERT_TRUE(deny);
  EXPECT_EQ(deny->reason, static_cast<std::uint16_t>(Reason::kNotPodAddress)) << "a's socket through b's agent.sock";

  const std::array<int, 1> fds{tcp.client.Get()};
  ASSERT_TRUE(a_->Send(channel::Upgrade{channel::HeaderOf(channel::MessageType::kUpgrade), 1}, fds));
  auto answer = a_->Receive();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->As<channel::Deny>().reason, static_cast<std::uint16_t>(Reason::kBadRequest)) << "a cookie that is not the socket's";

  const UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ASSERT_TRUE(a_->Upgrade(udp.Get()));
  deny = a_->ExpectDeny(udp.Get());
  ASSERT_TRUE(deny);
  EXPECT_EQ(deny->reason, static_cast<std::uint16_t>(Reason::kBadRequest));

  ASSERT_EQ(::shutdown(tcp.client.Get(), SHUT_WR), 0);
  ASSERT_TRUE(a_->Upgrade(tcp.client.Get()));
  deny = a_->ExpectDeny(tcp.client.Get());
  ASSERT_TRUE(deny);
  EXPECT_EQ(deny->reason, static_cast<std::uint16_t>(Reason::kClosing));
  EXPECT_EQ(node_->Stats().channels, 0U);
}

TEST_F(NodeTest, WaitsForTheOtherEndAndForgetsWhoCancels) {
  ASSERT_NO_FATAL_FAILURE(StartAndGreet());
  const TcpPair tcp = MakeTcpPair(kIpA, kIpB);
  EXPECT_EQ(Shown(tcp.client.Get()).reason, static_cast<std::uint16_t>(Reason::kNotProven));
  ASSERT_TRUE(a_->Upgrade(tcp.client.Get()) && a_->Quiet());
  EXPECT_EQ(Shown(tcp.client.Get()).state, ConnectionState::kUpgrading);
  EXPECT_EQ(Shown(tcp.client.Get()).reason, static_cast<std::uint16_t>(Reason::kPeerSilent));
  ASSERT_TRUE(a_->Cancel(tcp.client.Get()) && a_->Note(tcp.client.Get(), Reason::kForeignUse) && a_->Quiet());
  EXPECT_EQ(Shown(tcp.client.Get()).state, ConnectionState::kTcp);
  EXPECT_EQ(Shown(tcp.client.Get()).reason, static_cast<std::uint16_t>(Reason::kForeignUse));
  ASSERT_TRUE(b_->Upgrade(tcp.server.Get()));
  EXPECT_TRUE(b_->Quiet());
  // The process that waited goes: its request goes with it.
  b_->Close();
  EXPECT_TRUE(Eventually([&] { return node_->Stats().pending == 0; }));
}

TEST_F(NodeTest, PolicyDeniesAnUpgrade) {
  ASSERT_NO_FATAL_FAILURE(StartAndGreet());
  allowed_ = false;
  const TcpPair tcp = MakeTcpPair(kIpA, kIpB);
  ASSERT_TRUE(b_->Upgrade(tcp.server.Get()) && a_->Upgrade(tcp.client.Get()));
  const auto first = a_->ExpectDeny(tcp.client.Get());
  const auto second = b_->ExpectDeny(tcp.server.Get());
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->reason, static_cast<std::uint16_t>(Reason::kPolicy));
  EXPECT_EQ(second->reason, static_cast<std::uint16_t>(Reason::kPolicy));
  EXPECT_TRUE(Logged("upgrade denied", "policy default/closed"));
  EXPECT_EQ(node_->Stats().denials[static_cast<std::size_t>(Reason::kPolicy)], 2U);
}

TEST_F(NodeTest, QuotaHoldsAndIsGivenBack) {
  options_.broker.quota.channels = 1;
  ASSERT_NO_FATAL_FAILURE(StartAndGreet());
  Channel first;
  ASSERT_TRUE(GrantBetween(*a_, *b_, &first));
  const TcpPair tcp = MakeTcpPair(kIpA, kIpB);
  ASSERT_TRUE(a_->Upgrade(tcp.client.Get()) && b_->Upgrade(tcp.server.Get()));
  const auto deny = a_->ExpectDeny(tcp.client.Get());
  ASSERT_TRUE(deny && b_->ExpectDeny(tcp.server.Get()));
  EXPECT_EQ(deny->reason, static_cast<std::uint16_t>(Reason::kQuota));
  EXPECT_GT(deny->retry_after_ms, 0U);
  ASSERT_TRUE(a_->Release(first.client.grant) && b_->Release(first.server.grant) && b_->Quiet() && a_->Quiet());
  ASSERT_TRUE(a_->Upgrade(tcp.client.Get()) && b_->Upgrade(tcp.server.Get()));
  EXPECT_TRUE(a_->ExpectGrant(tcp.client.Get()) && b_->ExpectGrant(tcp.server.Get()));
}

TEST_F(NodeTest, PolicyChangeCutsRingAndTcp) {
  ASSERT_NO_FATAL_FAILURE(StartAndGreet());
  Channel channel;
  ASSERT_TRUE(GrantBetween(*a_, *b_, &channel));
  Channel inside;
  ASSERT_TRUE(GrantBetween(*a_, *a_, &inside, kIpA, kIpA));
  const TcpPair plain = MakeTcpPair(kIpA, kIpB);
  const MappedRegion region(channel.client.memory.Get());
  const auto& ref = channel.client.grant.channel;
  // Both sides sleep on a wake object.
  int bell_ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, bell_ends), 0);
  const UniqueFd heard(bell_ends[0]);
  const UniqueFd bell(bell_ends[1]);
  ASSERT_TRUE(a_->Wake(channel::MessageType::kWakeOffer, ref.region_id, 0, 5, bell.Get()) && a_->Quiet());
  region.Slot(ref.slot).side[0].data_waiter.store(channel::kFirstWakeFd + 5);

  EXPECT_EQ(node_->ReevaluateNow(), 0U);
  allowed_ = false;
  EXPECT_GE(node_->ReevaluateNow(), 2U);
  EXPECT_EQ(region.Slot(ref.slot).revoked.load(), ref.epoch);
  EXPECT_TRUE(Logged("channel revoked", "policy default/closed"));
  EXPECT_TRUE(Logged("connection cut", "policy default/closed"));
  EXPECT_TRUE(Eventually([&] {
    std::uint64_t count = 0;
    return ::recv(heard.Get(), &count, sizeof count, MSG_DONTWAIT) > 0;
  }));
  for (const int tcp : {channel.tcp.client.Get(), channel.tcp.server.Get(), plain.client.Get(), plain.server.Get()}) {
    char byte = 0;
    EXPECT_EQ(::recv(tcp, &byte, 1, 0), -1);
    EXPECT_TRUE(errno == ECONNABORTED || errno == ECONNRESET) << errno;
  }
  char byte = 'x';
  EXPECT_EQ(::send(inside.tcp.client.Get(), &byte, 1, MSG_NOSIGNAL), 1) << "the pod's own connection goes on";
  const BrokerStats stats = node_->Stats();
  EXPECT_EQ(stats.revocations, 1U);
  EXPECT_EQ(node_->ReevaluateNow(), 0U) << "nothing is cut twice";
}

TEST_F(NodeTest, RemovedPodLosesChannelsSocketsAndDirectory) {
  ASSERT_NO_FATAL_FAILURE(StartAndGreet());
  Channel channel;
  ASSERT_TRUE(GrantBetween(*a_, *b_, &channel));
  const MappedRegion region(channel.server.memory.Get());
  ASSERT_TRUE(node_->RemovePod("container-a", "eth0"));
  EXPECT_EQ(region.Slot(channel.server.grant.channel.slot).revoked.load(), channel.server.grant.channel.epoch);
  char byte = 0;
  EXPECT_EQ(::recv(channel.tcp.server.Get(), &byte, 1, 0), -1);
  EXPECT_TRUE(a_->ExpectEnd());
  EXPECT_NE(::access(Sock("a").c_str(), F_OK), 0);
  ASSERT_TRUE(b_->Release(channel.server.grant) && b_->Quiet());
  EXPECT_EQ(node_->Stats().channels, 0U);
  EXPECT_EQ(node_->Stats().regions, 0U);
  EXPECT_EQ(node_->Pods().size(), 1U);
  EXPECT_TRUE(node_->RemovePod("container-a", "eth0")) << "a late second DEL";
  EXPECT_TRUE(node_->RemovePod("unknown", "eth0"));
}

TEST_F(NodeTest, WakeObjectsPassToTheOtherSideOnly) {
  ASSERT_NO_FATAL_FAILURE(StartAndGreet());
  FakeShim stranger(Sock("b"));
  ASSERT_TRUE(stranger.Hello());
  Channel channel;
  ASSERT_TRUE(GrantBetween(*a_, *b_, &channel));
  const std::uint64_t region = channel.client.grant.channel.region_id;
  using channel::MessageType;

  ASSERT_TRUE(b_->Wake(MessageType::kWakeWant, region, 0, 1));
  auto answer = b_->Receive();
  ASSERT_TRUE(answer && answer->type == MessageType::kWake);
  EXPECT_FALSE(answer->fd.Valid()) << "not offered yet";

  int bell_ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, bell_ends), 0);
  const UniqueFd heard(bell_ends[0]);
  const UniqueFd bell(bell_ends[1]);
  ASSERT_TRUE(a_->Wake(MessageType::kWakeOffer, region, 0, 1, bell.Get()) && a_->Quiet());
  ASSERT_TRUE(b_->Wake(MessageType::kWakeWant, region, 0, 1));
  answer = b_->Receive();
  ASSERT_TRUE(answer && answer->fd.Valid());
  ASSERT_EQ(::send(answer->fd.Get(), "r", 1, MSG_DONTWAIT), 1);
  char rung = 0;
  EXPECT_EQ(::recv(heard.Get(), &rung, 1, MSG_DONTWAIT), 1);

  // Neither a process that is not of the region, nor the offering side itself, nor an offer for the other side.
  ASSERT_TRUE(stranger.Wake(MessageType::kWakeWant, region, 0, 1));
  EXPECT_FALSE(stranger.Receive()->fd.Valid());
  ASSERT_TRUE(a_->Wake(MessageType::kWakeWant, region, 0, 1));
  EXPECT_FALSE(a_->Receive()->fd.Valid());
  ASSERT_TRUE(b_->Wake(MessageType::kWakeOffer, region, 0, 2, bell.Get()) && b_->Quiet());
  ASSERT_TRUE(b_->Wake(MessageType::kWakeWant, region, 0, 2));
  EXPECT_FALSE(b_->Receive()->fd.Valid());

  int pipe_ends[2];
  ASSERT_EQ(::pipe2(pipe_ends, O_CLOEXEC), 0);
  const UniqueFd reading(pipe_ends[0]);
  const UniqueFd writing(pipe_ends[1]);
  ASSERT_TRUE(a_->Wake(MessageType::kWakeOffer, region, 0, 3, writing.Get()));
  EXPECT_TRUE(a_->ExpectEnd()) << "not a UNIX stream socket";
}

TEST_F(NodeTest, RefusesAProcessOfAnotherNamespace) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const pid_t child = ::fork();
  if (child == 0) {
    if (::unshare(CLONE_NEWNET) != 0) ::_exit(9);
    FakeShim shim(Sock("a"));
    const auto answer = shim.Receive();
    const bool rejected = answer && answer->type == channel::MessageType::kReject &&
                          answer->As<channel::Reject>().reason == static_cast<std::uint16_t>(Reason::kUnknownPod);
    ::_exit(rejected && shim.ExpectEnd() ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace vsocket::broker
