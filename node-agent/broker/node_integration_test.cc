// The node with real sockets: proof, match, grant, release, denial, revocation. Needs root (a network namespace, SOCK_DESTROY).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <atomic>
#include <fstream>
#include <mutex>

#include "node-agent/broker/testing/test_node.h"

namespace vsocket::broker {
namespace {

using channel::Reason;
using model::ConnectionState;
using testing::Eventually;
using testing::FakeShim;
using testing::kIpA;
using testing::kIpB;
using testing::MakeTcpPair;
using testing::MappedRegion;
using testing::TcpPair;

class NodeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(testing::EnterTestNamespace());
    options_ = testing::OptionsIn(dir_.Path());
    options_.broker.verdict = [this](const model::Flow& flow) {
      model::Verdict verdict;
      {
        const std::lock_guard lock(mutex_);
        asked_ = flow;
      }
      verdict.egress.allowed = true;
      verdict.ingress.decided_by = "policy default/closed";
      verdict.allowed = verdict.ingress.allowed = allowed_.load();
      return verdict;
    };
    options_.broker.events = [this](const Event& event) {
      const std::lock_guard lock(mutex_);
      events_.push_back(event);
    };
  }

  void Start() {
    auto node = Node::Open(options_, {});
    ASSERT_TRUE(node) << node.Error();
    node_ = std::move(node.Value());
    for (const char* uid : {"a", "b"}) {
      const auto added = node_->AddPod(testing::PodOf(uid));
      ASSERT_TRUE(added) << added.Error().message;
    }
    node_->Serve();
  }

  std::string Sock(const char* uid) { return testing::SocketOf(dir_.Path(), uid); }

  model::ConnectionInfo Shown(int tcp) {
    const std::uint64_t cookie = testing::CookieOf(tcp);
    for (const auto& info : node_->Connections()) {
      if (info.cookie == cookie && info.pod == "default/a") return info;
    }
    return {};
  }

  bool Logged(const std::string& what, const std::string& why) {
    const std::lock_guard lock(mutex_);
    for (const Event& event : events_) {
      if (event.what != what) continue;
      for (const auto& [name, value] : event.fields) {
        if (name == "why" && value.find(why) != std::string::npos) return true;
      }
    }
    return false;
  }

  testing::TempDir dir_;
  NodeOptions options_;
  std::atomic<bool> allowed_{true};
  std::mutex mutex_;
  model::Flow asked_;
  std::vector<Event> events_;
  std::unique_ptr<Node> node_;  // last: its thread uses what is above until it has gone
};

// A granted connection between two shims.
struct Channel {
  TcpPair tcp;
  FakeShim::Granted client, server;
};

bool GrantBetween(FakeShim& a, FakeShim& b, Channel* channel, const char* ip_a = kIpA, const char* ip_b = kIpB) {
  channel->tcp = MakeTcpPair(ip_a, ip_b);
  // Quiet in between: the agent has a's request before b sends, so `a` becomes side 0.
  if (!a.Upgrade(channel->tcp.client.Get()) || !a.Quiet() || !b.Upgrade(channel->tcp.server.Get())) return false;
  auto client = a.ExpectGrant(channel->tcp.client.Get());
  auto server = b.ExpectGrant(channel->tcp.server.Get());
  if (!client || !server) return false;
  channel->client = std::move(*client);
  channel->server = std::move(*server);
  return true;
}

TEST_F(NodeTest, GrantsBothEndsOneSlot) {
  Start();
  FakeShim a(Sock("a"));
  FakeShim b(Sock("b"));
  ASSERT_TRUE(a.Hello("client") && b.Hello("server"));
  Channel channel;
  ASSERT_TRUE(GrantBetween(a, b, &channel));
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
  {
    const std::lock_guard lock(mutex_);
    EXPECT_EQ(asked_.source.ToString(), kIpA) << "the listener is the destination, whoever asks first";
    EXPECT_EQ(asked_.destination.ToString(), kIpB);
  }
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
  ASSERT_TRUE(GrantBetween(a, b, &second));
  EXPECT_EQ(second.client.grant.channel.region_id, mine.region_id);
  EXPECT_NE(second.client.grant.channel.slot, mine.slot);
  ASSERT_TRUE(a.Release(channel.client.grant) && a.Quiet());
  EXPECT_EQ(node_->Stats().channels, 2U);
  ASSERT_TRUE(b.Release(channel.server.grant) && b.Quiet());
  EXPECT_EQ(node_->Stats().channels, 1U);
  EXPECT_EQ(node_->Stats().ring_bytes, 1000U);
  Channel third;
  ASSERT_TRUE(GrantBetween(a, b, &third));
  EXPECT_EQ(third.client.grant.channel.slot, mine.slot);
  EXPECT_NE(third.client.grant.channel.epoch, mine.epoch);
}

TEST_F(NodeTest, GrantsLoopbackIPv6MappedAndOneProcessWithItself) {
  Start();
  FakeShim a(Sock("a"));
  FakeShim b(Sock("b"));
  ASSERT_TRUE(a.Hello() && b.Hello());
  allowed_ = false;  // a pod may always talk to itself
  Channel loopback;
  ASSERT_TRUE(GrantBetween(a, a, &loopback, "127.0.0.1", "127.0.0.1"));
  EXPECT_NE(loopback.client.grant.channel.side, loopback.server.grant.channel.side);
  Channel own_address;
  EXPECT_TRUE(GrantBetween(a, a, &own_address, kIpA, kIpA));
  allowed_ = true;
  Channel v6;
  EXPECT_TRUE(GrantBetween(a, b, &v6, "fd77::1", "fd77::2"));
  Channel mapped;
  EXPECT_TRUE(GrantBetween(a, b, &mapped, "::ffff:10.77.0.1", "::ffff:10.77.0.2"));
  EXPECT_EQ(Shown(mapped.tcp.client.Get()).remote.ToString(), kIpB);
}

TEST_F(NodeTest, DoesNotHoldBackTheEndOfAConnection) {
  Start();
  FakeShim a(Sock("a"));
  ASSERT_TRUE(a.Hello());
  TcpPair tcp = MakeTcpPair(kIpA, kIpB);
  ASSERT_TRUE(a.Upgrade(tcp.client.Get()) && a.Quiet());
  tcp.client.Reset();
  char byte = 0;
  EXPECT_EQ(::recv(tcp.server.Get(), &byte, 1, 0), 0);
}

TEST_F(NodeTest, DeniesWhatItCannotProve) {
  Start();
  FakeShim a(Sock("a"));
  FakeShim b(Sock("b"));
  ASSERT_TRUE(a.Hello() && b.Hello());
  const TcpPair tcp = MakeTcpPair(kIpA, kIpB);

  ASSERT_TRUE(b.Upgrade(tcp.client.Get()));
  auto deny = b.ExpectDeny(tcp.client.Get());
  ASSERT_TRUE(deny);
  EXPECT_EQ(deny->reason, static_cast<std::uint16_t>(Reason::kNotPodAddress)) << "a's socket through b's agent.sock";

  const std::array<int, 1> fds{tcp.client.Get()};
  ASSERT_TRUE(a.Send(channel::Upgrade{channel::HeaderOf(channel::MessageType::kUpgrade), 1}, fds));
  auto answer = a.Receive();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->As<channel::Deny>().reason, static_cast<std::uint16_t>(Reason::kBadRequest)) << "a cookie that is not the socket's";

  const UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ASSERT_TRUE(a.Upgrade(udp.Get()));
  deny = a.ExpectDeny(udp.Get());
  ASSERT_TRUE(deny);
  EXPECT_EQ(deny->reason, static_cast<std::uint16_t>(Reason::kBadRequest));

  ASSERT_EQ(::shutdown(tcp.client.Get(), SHUT_WR), 0);
  ASSERT_TRUE(a.Upgrade(tcp.client.Get()));
  deny = a.ExpectDeny(tcp.client.Get());
  ASSERT_TRUE(deny);
  EXPECT_EQ(deny->reason, static_cast<std::uint16_t>(Reason::kClosing));
  EXPECT_EQ(node_->Stats().channels, 0U);
}

TEST_F(NodeTest, WaitsForTheOtherEndAndForgetsWhoCancels) {
  Start();
  FakeShim a(Sock("a"));
  FakeShim b(Sock("b"));
  ASSERT_TRUE(a.Hello() && b.Hello());
  const TcpPair tcp = MakeTcpPair(kIpA, kIpB);
  EXPECT_EQ(Shown(tcp.client.Get()).reason, static_cast<std::uint16_t>(Reason::kNotProven));
  ASSERT_TRUE(a.Upgrade(tcp.client.Get()) && a.Quiet());
  EXPECT_EQ(Shown(tcp.client.Get()).state, ConnectionState::kUpgrading);
  EXPECT_EQ(Shown(tcp.client.Get()).reason, static_cast<std::uint16_t>(Reason::kPeerSilent));
  ASSERT_TRUE(a.Cancel(tcp.client.Get()) && a.Note(tcp.client.Get(), Reason::kForeignUse) && a.Quiet());
  EXPECT_EQ(Shown(tcp.client.Get()).state, ConnectionState::kTcp);
  EXPECT_EQ(Shown(tcp.client.Get()).reason, static_cast<std::uint16_t>(Reason::kForeignUse));
  ASSERT_TRUE(b.Upgrade(tcp.server.Get()));
  EXPECT_TRUE(b.Quiet());
  // The process that waited goes: its request goes with it.
  b.Close();
  EXPECT_TRUE(Eventually([&] { return node_->Stats().pending == 0; }));
}

TEST_F(NodeTest, PolicyDeniesAnUpgrade) {
  Start();
  allowed_ = false;
  FakeShim a(Sock("a"));
  FakeShim b(Sock("b"));
  ASSERT_TRUE(a.Hello() && b.Hello());
  const TcpPair tcp = MakeTcpPair(kIpA, kIpB);
  ASSERT_TRUE(b.Upgrade(tcp.server.Get()) && a.Upgrade(tcp.client.Get()));
  const auto first = a.ExpectDeny(tcp.client.Get());
  const auto second = b.ExpectDeny(tcp.server.Get());
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->reason, static_cast<std::uint16_t>(Reason::kPolicy));
  EXPECT_EQ(second->reason, static_cast<std::uint16_t>(Reason::kPolicy));
  EXPECT_TRUE(Logged("upgrade denied", "policy default/closed"));
  EXPECT_EQ(node_->Stats().denials[static_cast<std::size_t>(Reason::kPolicy)], 2U);
}

TEST_F(NodeTest, QuotaHoldsAndIsGivenBack) {
  options_.broker.quota.channels = 1;
  Start();
  FakeShim a(Sock("a"));
  FakeShim b(Sock("b"));
  ASSERT_TRUE(a.Hello() && b.Hello());
  Channel first;
  ASSERT_TRUE(GrantBetween(a, b, &first));
  const TcpPair tcp = MakeTcpPair(kIpA, kIpB);
  ASSERT_TRUE(a.Upgrade(tcp.client.Get()) && b.Upgrade(tcp.server.Get()));
  const auto deny = a.ExpectDeny(tcp.client.Get());
  ASSERT_TRUE(deny && b.ExpectDeny(tcp.server.Get()));
  EXPECT_EQ(deny->reason, static_cast<std::uint16_t>(Reason::kQuota));
  EXPECT_GT(deny->retry_after_ms, 0U);
  ASSERT_TRUE(a.Release(first.client.grant) && b.Release(first.server.grant) && b.Quiet() && a.Quiet());
  ASSERT_TRUE(a.Upgrade(tcp.client.Get()) && b.Upgrade(tcp.server.Get()));
  EXPECT_TRUE(a.ExpectGrant(tcp.client.Get()) && b.ExpectGrant(tcp.server.Get()));
}

TEST_F(NodeTest, PolicyChangeCutsRingAndTcp) {
  Start();
  FakeShim a(Sock("a"));
  FakeShim b(Sock("b"));
  ASSERT_TRUE(a.Hello() && b.Hello());
  Channel channel;
  ASSERT_TRUE(GrantBetween(a, b, &channel));
  Channel inside;
  ASSERT_TRUE(GrantBetween(a, a, &inside, kIpA, kIpA));
  const TcpPair plain = MakeTcpPair(kIpA, kIpB);
  const MappedRegion region(channel.client.memory.Get());
  const auto& ref = channel.client.grant.channel;
  // Both sides sleep on a wake object.
  int bell_ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, bell_ends), 0);
  const UniqueFd heard(bell_ends[0]);
  const UniqueFd bell(bell_ends[1]);
  ASSERT_TRUE(a.Wake(channel::MessageType::kWakeOffer, ref.region_id, 0, 5, bell.Get()) && a.Quiet());
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
  Start();
  FakeShim a(Sock("a"));
  FakeShim b(Sock("b"));
  ASSERT_TRUE(a.Hello() && b.Hello());
  Channel channel;
  ASSERT_TRUE(GrantBetween(a, b, &channel));
  const MappedRegion region(channel.server.memory.Get());
  ASSERT_TRUE(node_->RemovePod("container-a", "eth0"));
  EXPECT_EQ(region.Slot(channel.server.grant.channel.slot).revoked.load(), channel.server.grant.channel.epoch);
  char byte = 0;
  EXPECT_EQ(::recv(channel.tcp.server.Get(), &byte, 1, 0), -1);
  EXPECT_TRUE(a.ExpectEnd());
  EXPECT_NE(::access(Sock("a").c_str(), F_OK), 0);
  ASSERT_TRUE(b.Release(channel.server.grant) && b.Quiet());
  EXPECT_EQ(node_->Stats().channels, 0U);
  EXPECT_EQ(node_->Stats().regions, 0U);
  EXPECT_EQ(node_->Pods().size(), 1U);
  EXPECT_TRUE(node_->RemovePod("container-a", "eth0")) << "a late second DEL";
  EXPECT_TRUE(node_->RemovePod("unknown", "eth0"));
}

TEST_F(NodeTest, WakeObjectsPassToTheOtherSideOnly) {
  Start();
  FakeShim a(Sock("a"));
  FakeShim b(Sock("b"));
  FakeShim stranger(Sock("b"));
  ASSERT_TRUE(a.Hello() && b.Hello() && stranger.Hello());
  Channel channel;
  ASSERT_TRUE(GrantBetween(a, b, &channel));
  const std::uint64_t region = channel.client.grant.channel.region_id;
  using channel::MessageType;

  ASSERT_TRUE(b.Wake(MessageType::kWakeWant, region, 0, 1));
  auto answer = b.Receive();
  ASSERT_TRUE(answer && answer->type == MessageType::kWake);
  EXPECT_FALSE(answer->fd.Valid()) << "not offered yet";

  int bell_ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, bell_ends), 0);
  const UniqueFd heard(bell_ends[0]);
  const UniqueFd bell(bell_ends[1]);
  ASSERT_TRUE(a.Wake(MessageType::kWakeOffer, region, 0, 1, bell.Get()) && a.Quiet());
  ASSERT_TRUE(b.Wake(MessageType::kWakeWant, region, 0, 1));
  answer = b.Receive();
  ASSERT_TRUE(answer && answer->fd.Valid());
  ASSERT_EQ(::send(answer->fd.Get(), "r", 1, MSG_DONTWAIT), 1);
  char rung = 0;
  EXPECT_EQ(::recv(heard.Get(), &rung, 1, MSG_DONTWAIT), 1);

  // Neither a process that is not of the region, nor the offering side itself, nor an offer for the other side.
  ASSERT_TRUE(stranger.Wake(MessageType::kWakeWant, region, 0, 1));
  EXPECT_FALSE(stranger.Receive()->fd.Valid());
  ASSERT_TRUE(a.Wake(MessageType::kWakeWant, region, 0, 1));
  EXPECT_FALSE(a.Receive()->fd.Valid());
  ASSERT_TRUE(b.Wake(MessageType::kWakeOffer, region, 0, 2, bell.Get()) && b.Quiet());
  ASSERT_TRUE(b.Wake(MessageType::kWakeWant, region, 0, 2));
  EXPECT_FALSE(b.Receive()->fd.Valid());

  int pipe_ends[2];
  ASSERT_EQ(::pipe2(pipe_ends, O_CLOEXEC), 0);
  const UniqueFd reading(pipe_ends[0]);
  const UniqueFd writing(pipe_ends[1]);
  ASSERT_TRUE(a.Wake(MessageType::kWakeOffer, region, 0, 3, writing.Get()));
  EXPECT_TRUE(a.ExpectEnd()) << "not a UNIX stream socket";
}

TEST_F(NodeTest, RefusesAProcessOfAnotherNamespace) {
  Start();
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
