// The broker's decisions with the kernel faked: what no real kernel does on demand (sockets that die at a chosen moment, time).
#include "node-agent/broker/broker.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace vsocket::broker {
namespace {

using channel::HeaderOf;
using channel::MessageType;
using channel::Reason;

constexpr std::uint64_t kSecond = 1'000'000'000;

// What the kernel would say, shared by the two fakes.
struct FakeKernel {
  std::vector<TcpSocket> sockets;  // live ones
  std::uint64_t next_read = 0;     // cookie of the socket that the next descriptor is
  std::vector<std::uint16_t> listening;
  std::vector<std::uint64_t> destroyed;
  std::vector<std::uint64_t> looked_for;
};

class FakeProbe final : public SocketProbe {
 public:
  explicit FakeProbe(FakeKernel& kernel) : kernel_(kernel) {}
  Result<TcpSocket, ProbeError> Read(int) override {
    for (const TcpSocket& socket : kernel_.sockets) {
      if (socket.cookie == kernel_.next_read) return socket;
    }
    return Failure(ProbeError::kNotTcp);
  }
  bool IsWakeSocket(int) override { return true; }

 private:
  FakeKernel& kernel_;
};

class FakePodSockets final : public PodSockets {
 public:
  explicit FakePodSockets(FakeKernel& kernel) : kernel_(kernel) {}
  std::vector<TcpSocket> Connections() override { return kernel_.sockets; }
  std::optional<TcpSocket> Find(const Tuple&, std::uint64_t cookie) override {
    kernel_.looked_for.push_back(cookie);
    for (const TcpSocket& socket : kernel_.sockets) {
      if (socket.cookie == cookie) return socket;
    }
    return std::nullopt;
  }
  bool Listens(const Endpoint& local) override {
    return std::find(kernel_.listening.begin(), kernel_.listening.end(), local.port) != kernel_.listening.end();
  }
  bool Destroy(const Tuple&, std::uint64_t cookie) override {
    kernel_.destroyed.push_back(cookie);
    return std::erase_if(kernel_.sockets, [&](const TcpSocket& socket) { return socket.cookie == cookie; }) != 0;
  }

 private:
  FakeKernel& kernel_;
};

class FakeLink final : public ShimLink {
 public:
  void Send(std::span<const std::byte> message, std::shared_ptr<const UniqueFd> fd) override {
    sent.emplace_back(message.begin(), message.end());
    memory = std::move(fd);
  }
  void Close() override { closed = true; }
  template <typename T>
  T Last() const {
    T message{};
    if (!sent.empty() && sent.back().size() == sizeof message) std::memcpy(&message, sent.back().data(), sizeof message);
    return message;
  }
  std::vector<std::vector<std::byte>> sent;
  std::shared_ptr<const UniqueFd> memory;
  bool closed = false;
};

class BrokerTest : public ::testing::Test {
 protected:
  BrokerTest()
      : broker_(
            Options(), std::make_unique<FakeProbe>(kernel_), [this] { return now_; }, 99) {
    for (const char* uid : {"a", "b"}) {
      model::LocalPod pod;
      pod.uid = pod.name = uid;
      pod.netns_cookie = uid[0];
      pod.netns_inode = uid[0];
      pod.ips = {*model::IpAddress::Parse(uid[0] == 'a' ? "10.0.0.1" : "10.0.0.2")};
      broker_.AddPod(pod, std::make_unique<FakePodSockets>(kernel_));
    }
    kernel_.listening = {80};
  }

  BrokerOptions Options() {
    BrokerOptions options;
    options.sweep.channels_a_second = 2;
    options.verdict = [this](const model::Flow& flow) {
      asked_.push_back(flow);
      model::Verdict verdict;
      verdict.allowed = allowed_ && flow.destination_port != forbidden_port_;
      verdict.egress.allowed = true;
      verdict.ingress.allowed = verdict.allowed;
      verdict.egress.pod = "/a";
      verdict.ingress.pod = "/b";
      return verdict;
    };
    options.flows = [this](const model::FlowEvent& event) { flows_.push_back(event); };
    return options;
  }

  SessionId Connect(char pod, FakeLink* link) {
    Reason refusal{};
    const SessionId id = broker_.Connect(std::string(1, pod), 1, static_cast<std::uint64_t>(pod), link, &refusal);
    EXPECT_NE(id, 0U);
    EXPECT_TRUE(Receive(id, channel::Hello{HeaderOf(MessageType::kHello), channel::kLayoutVersion, 1, {}}));
    EXPECT_EQ(link->Last<channel::Welcome>().agent_instance, 99U);
    return id;
  }

  template <typename T>
  bool Receive(SessionId session, const T& message, std::size_t fd_count = 0) {
    std::vector<UniqueFd> fds;
    for (std::size_t i = 0; i < fd_count; ++i) fds.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    return broker_.Receive(session, std::as_bytes(std::span(&message, 1)), fds, false);
  }

  // A connection 10.0.0.1:port -> 10.0.0.2:80; its ends have the cookies port and port + 1.
  void MakeConnection(std::uint16_t port) {
    TcpSocket client;
    client.tuple = {{*model::IpAddress::Parse("10.0.0.1"), port}, {*model::IpAddress::Parse("10.0.0.2"), 80}};
    client.cookie = port;
    client.netns_cookie = 'a';
    client.state = kEstablished;
    client.inode = 7;
    TcpSocket server = client;
    server.tuple = client.tuple.Mirror();
    server.cookie = port + 1U;
    server.netns_cookie = 'b';
    kernel_.sockets.push_back(client);
    kernel_.sockets.push_back(server);
  }

  bool Upgrade(SessionId session, std::uint64_t cookie) {
    kernel_.next_read = cookie;
    return Receive(session, channel::Upgrade{HeaderOf(MessageType::kUpgrade), cookie}, 1);
  }

  void PassSeconds(int seconds) {
    for (int i = 0; i < seconds; ++i) {
      now_ += kSecond;
      broker_.Tick();
    }
  }

  FakeKernel kernel_;
  std::uint64_t now_ = 1000 * kSecond;
  bool allowed_ = true;
  std::uint16_t forbidden_port_ = 0;
  std::vector<model::Flow> asked_;
  std::vector<model::FlowEvent> flows_;
  Broker broker_;
};

// A shim in each pod, connected.
class TwoShimsTest : public BrokerTest {
 protected:
  TwoShimsTest() : a_(Connect('a', &link_a_)), b_(Connect('b', &link_b_)) {}

  // A connection as MakeConnection makes it, asked for by both.
  bool MakeChannel(std::uint16_t port) {
    MakeConnection(port);
    return Upgrade(a_, port) && Upgrade(b_, port + 1U);
  }

  bool Release(SessionId session, const channel::Grant& grant) {
    return Receive(session, channel::Release{HeaderOf(MessageType::kRelease), grant.cookie, grant.channel, 0, {}});
  }
  // Both let go of what they were granted last.
  bool ReleaseLast() { return Release(a_, link_a_.Last<channel::Grant>()) && Release(b_, link_b_.Last<channel::Grant>()); }

  FakeLink link_a_;
  FakeLink link_b_;
  const SessionId a_;
  const SessionId b_;
};

TEST_F(TwoShimsTest, JudgesFromClientToServerWhoeverAsksFirst) {
  kernel_.listening = {};
  MakeConnection(40000);
  ASSERT_TRUE(Upgrade(b_, 40001) && Upgrade(a_, 40000));
  ASSERT_EQ(asked_.size(), 1U);
  EXPECT_EQ(asked_[0].source.ToString(), "10.0.0.1");
  EXPECT_EQ(asked_[0].destination_port, 80);
  EXPECT_EQ(link_b_.Last<channel::Grant>().channel.side, 0U);
  EXPECT_EQ(link_a_.Last<channel::Grant>().channel.side, 1U);
}

TEST_F(TwoShimsTest, NoTimerWithoutChannels) {
  MakeConnection(40000);
  EXPECT_EQ(broker_.NextTick(), 0U);
  ASSERT_TRUE(Upgrade(a_, 40000));
  EXPECT_EQ(broker_.NextTick(), 0U) << "waiting for the other end costs nothing";
  ASSERT_TRUE(Upgrade(b_, 40001));
  EXPECT_EQ(broker_.NextTick(), now_ + kSecond);
  now_ += kSecond;
  broker_.Tick();
  EXPECT_EQ(broker_.NextTick(), now_ + kSecond);
  ASSERT_TRUE(ReleaseLast());
  now_ += kSecond;
  broker_.Tick();
  EXPECT_EQ(broker_.NextTick(), 0U);
}

TEST_F(TwoShimsTest, OrphanedSocketIsWatchedUntilTheKernelForgetsIt) {
  ASSERT_TRUE(MakeChannel(40000));
  broker_.Disconnected(a_);
  ASSERT_TRUE(Release(b_, link_b_.Last<channel::Grant>()));
  EXPECT_EQ(broker_.Stats().channels, 1U) << "a process still holds the socket";
  for (int i = 0; i < 3; ++i) {
    now_ = broker_.NextTick();
    broker_.Tick();
    EXPECT_EQ(broker_.Stats().channels, 1U);
  }
  EXPECT_EQ(broker_.NextTick(), now_ + kSecond);
  kernel_.sockets[0].inode = 0;  // only the kernel's own buffers are left of it
  now_ = broker_.NextTick();
  broker_.Tick();
  EXPECT_EQ(broker_.Stats().channels, 0U);
  EXPECT_EQ(broker_.Stats().regions, 0U);
  EXPECT_EQ(broker_.NextTick(), 0U);
}

TEST_F(BrokerTest, OneSocketAskedForByTwoProcesses) {
  FakeLink link_a;
  FakeLink link_fork;
  const SessionId a = Connect('a', &link_a);
  const SessionId fork = Connect('a', &link_fork);
  MakeConnection(40000);
  ASSERT_TRUE(Upgrade(a, 40000) && Upgrade(fork, 40000));
  EXPECT_EQ(link_fork.Last<channel::Deny>().reason, static_cast<std::uint16_t>(Reason::kSharedAcrossFork));
}

TEST_F(TwoShimsTest, AskingAgainGivesTheOldSlotBack) {
  ASSERT_TRUE(MakeChannel(40000));
  const auto first = link_a_.Last<channel::Grant>();
  ASSERT_TRUE(Upgrade(a_, 40000));
  EXPECT_EQ(broker_.Stats().channels, 1U) << "b has not let go";
  ASSERT_TRUE(Upgrade(b_, 40001));
  EXPECT_EQ(broker_.Stats().channels, 1U);
  EXPECT_NE(link_a_.Last<channel::Grant>().channel.epoch, first.channel.epoch);
}

TEST_F(TwoShimsTest, ReleaseMustNameTheChannelExactly) {
  ASSERT_TRUE(MakeChannel(40000));
  const auto mine = link_a_.Last<channel::Grant>();
  const auto theirs = link_b_.Last<channel::Grant>();
  auto stale = mine.channel;
  stale.epoch ^= 1;
  ASSERT_TRUE(Receive(a_, channel::Release{HeaderOf(MessageType::kRelease), mine.cookie, stale, 0, {}}));
  ASSERT_TRUE(Release(a_, theirs)) << "b's end";
  ASSERT_TRUE(Release(b_, theirs));
  EXPECT_EQ(broker_.Stats().channels, 1U) << "a's end is held";
}

TEST_F(TwoShimsTest, PolicyCutsChannelsAndPlainConnections) {
  MakeConnection(40000);
  MakeConnection(50000);
  ASSERT_TRUE(Upgrade(a_, 40000) && Upgrade(b_, 40001));
  EXPECT_EQ(broker_.Reevaluate(), 0U);
  EXPECT_TRUE(kernel_.destroyed.empty());
  allowed_ = false;
  EXPECT_GE(broker_.Reevaluate(), 2U);
  EXPECT_TRUE(kernel_.sockets.empty());
  EXPECT_EQ(broker_.Stats().revocations, 1U);
}

TEST_F(TwoShimsTest, EveryVerdictThatDoesSomethingIsAFlowEvent) {
  ASSERT_TRUE(MakeChannel(40000));
  MakeConnection(41000);  // stays on the kernel's path
  // The kernel's reset ends the other end of what is destroyed; the fake's does not, so it has one end only.
  std::erase_if(kernel_.sockets, [](const TcpSocket& socket) { return socket.cookie == 41001; });
  ASSERT_EQ(flows_.size(), 1U);
  EXPECT_EQ(flows_[0].action, model::FlowAction::kAllowed);
  EXPECT_EQ(flows_[0].path, model::FlowPath::kRing);
  EXPECT_EQ(flows_[0].flow.source.ToString(), "10.0.0.1");
  EXPECT_EQ(flows_[0].source_port, 40000);
  EXPECT_EQ(flows_[0].flow.destination_port, 80);
  allowed_ = false;
  EXPECT_EQ(broker_.Reevaluate(), 2U);
  ASSERT_EQ(flows_.size(), 3U);
  EXPECT_EQ(flows_[1].action, model::FlowAction::kCut);
  EXPECT_EQ(flows_[1].path, model::FlowPath::kRing);
  EXPECT_EQ(flows_[1].source_port, 40000);
  EXPECT_EQ(flows_[2].action, model::FlowAction::kCut);
  EXPECT_EQ(flows_[2].path, model::FlowPath::kKernel);
  EXPECT_EQ(flows_[2].source_port, 41000);
  for (const model::FlowEvent& event : flows_) {
    EXPECT_EQ(event.source_uid + event.destination_uid, "ab");
    EXPECT_EQ(event.source_pod + event.destination_pod, "/a/b");
    EXPECT_EQ(event.pod, "/b");  // whose ingress decided
  }
  ASSERT_TRUE(MakeChannel(42000));
  ASSERT_EQ(flows_.size(), 4U);
  EXPECT_EQ(flows_[3].action, model::FlowAction::kDenied);
  EXPECT_EQ(flows_[3].path, model::FlowPath::kRing);
  broker_.RemovePod("a", "gone");  // no verdict's doing
  EXPECT_EQ(flows_.size(), 4U);
}

TEST_F(TwoShimsTest, LostReleaseIsMadeUpForWhenNobodyHoldsTheSocket) {
  ASSERT_TRUE(MakeChannel(40000));
  PassSeconds(100);
  EXPECT_EQ(broker_.Stats().swept, 0U) << "both ends live";
  kernel_.sockets[0].inode = kernel_.sockets[1].inode = 0;
  PassSeconds(1);
  EXPECT_EQ(broker_.Stats().swept, 2U);
  EXPECT_EQ(broker_.Stats().channels, 0U);
  EXPECT_EQ(broker_.LoadOf("a").channels + broker_.LoadOf("b").channels, 0U);
  EXPECT_EQ(broker_.Stats().regions, 1U) << "kept for the next connection of the two";
  EXPECT_EQ(broker_.NextTick(), 0U);
}

TEST_F(TwoShimsTest, SocketThatIsGoneIsSweptLateAndItsMemoryLeftAlone) {
  ASSERT_TRUE(MakeChannel(40000));
  const auto old = link_a_.Last<channel::Grant>();
  const auto memory = link_a_.memory;
  const auto gone = std::exchange(kernel_.sockets, {});
  PassSeconds(29);
  kernel_.sockets = gone;  // the kernel had failed to answer
  PassSeconds(1);
  kernel_.sockets.clear();
  PassSeconds(30);
  EXPECT_EQ(broker_.Stats().channels, 1U);
  PassSeconds(1);
  EXPECT_EQ(broker_.Stats().channels, 0U);
  EXPECT_EQ(broker_.Stats().swept, 2U);
  EXPECT_EQ(broker_.LoadOf("a").channels, 0U);
  // The program may hold the closed socket and read on: the words are as they were, and nobody else gets the slot.
  auto region = model::MakeSharedMemory()->Adopt(UniqueFd(::fcntl(memory->Get(), F_DUPFD_CLOEXEC, 0)), old.channel.region_id);
  ASSERT_TRUE(region) << region.Error().what;
  EXPECT_EQ(region.Value()->Epoch(old.channel.slot), old.channel.epoch);
  // Its late RELEASE is nobody's business, and the next connection has memory of its own.
  ASSERT_TRUE(Release(a_, old));
  ASSERT_TRUE(MakeChannel(50000));
  EXPECT_NE(link_a_.Last<channel::Grant>().channel.region_id, old.channel.region_id);
}

TEST_F(TwoShimsTest, SweepLooksAtAFewChannelsAtATimeAndAtEachInTurn) {
  std::vector<std::uint64_t> cookies;
  for (std::uint16_t port = 40000; port < 40010; port += 2) {
    ASSERT_TRUE(MakeChannel(port));
    cookies.push_back(port);
    cookies.push_back(port + 1U);
  }
  std::vector<std::uint64_t> seen;
  for (int second = 0; second < 5; ++second) {  // 5 channels, 2 a second: each twice
    kernel_.looked_for.clear();
    PassSeconds(1);
    EXPECT_EQ(kernel_.looked_for.size(), 4U);
    broker_.Tick();
    EXPECT_EQ(kernel_.looked_for.size(), 4U) << "not more often than once a second";
    seen.insert(seen.end(), kernel_.looked_for.begin(), kernel_.looked_for.end());
  }
  for (const std::uint64_t cookie : cookies) EXPECT_EQ(std::count(seen.begin(), seen.end(), cookie), 2) << cookie;
}

TEST_F(TwoShimsTest, RevokedMemoryGivesNoNewSlots) {
  ASSERT_TRUE(MakeChannel(40000));
  const auto old = link_a_.Last<channel::Grant>();
  allowed_ = false;
  broker_.Reevaluate();
  EXPECT_EQ(broker_.Stats().revoked_memory.watched, 1U);
  allowed_ = true;
  ASSERT_TRUE(MakeChannel(50000));
  EXPECT_NE(link_a_.Last<channel::Grant>().channel.region_id, old.channel.region_id);
  EXPECT_EQ(broker_.Stats().regions, 2U);
}

TEST_F(TwoShimsTest, MemoryIsRevokedWithItsLastAllowedConnection) {
  MakeConnection(40000);
  MakeConnection(50000);
  kernel_.sockets[3].tuple.local.port = kernel_.sockets[2].tuple.remote.port = 81;
  kernel_.listening = {80, 81};
  for (const unsigned port : {40000U, 50000U}) ASSERT_TRUE(Upgrade(a_, port) && Upgrade(b_, port + 1));
  ASSERT_EQ(broker_.Stats().regions, 1U) << "they share it";
  forbidden_port_ = 80;
  broker_.Reevaluate();
  EXPECT_EQ(broker_.Stats().revocations, 1U);
  EXPECT_EQ(broker_.Stats().revoked_memory.watched, 0U) << "one connection may use it";
  ASSERT_EQ(link_a_.Last<channel::Grant>().cookie, 50000U);
  ASSERT_TRUE(ReleaseLast());
  EXPECT_EQ(broker_.Stats().revoked_memory.watched, 1U);
}

TEST_F(TwoShimsTest, MemoryKeptForTheNextConnectionIsRevokedToo) {
  ASSERT_TRUE(MakeChannel(40000));
  ASSERT_TRUE(ReleaseLast());
  broker_.Reevaluate();
  EXPECT_EQ(broker_.Stats().regions, 1U);
  allowed_ = false;
  broker_.Reevaluate();
  EXPECT_EQ(broker_.Stats().regions, 0U);
  EXPECT_EQ(broker_.Stats().revocations, 0U) << "no channel was there";
  EXPECT_EQ(broker_.Stats().revoked_memory.watched, 1U);
}

TEST_F(BrokerTest, AnotherPodsProcessIsRefused) {
  FakeLink link;
  Reason refusal{};
  EXPECT_EQ(broker_.Connect("a", 1, 'b', &link, &refusal), 0U);
  EXPECT_EQ(refusal, Reason::kUnknownPod);
  EXPECT_EQ(broker_.Connect("nobody", 1, 'a', &link, &refusal), 0U);
  EXPECT_EQ(broker_.Connect("a", 1, 0, &link, &refusal), 0U) << "a process that cannot be seen";
}

TEST_F(BrokerTest, HelloComesFirstAndOnce) {
  FakeLink link;
  Reason refusal{};
  const SessionId id = broker_.Connect("a", 1, 'a', &link, &refusal);
  EXPECT_FALSE(Receive(id, channel::Cancel{HeaderOf(MessageType::kCancel), 1}));
  FakeLink other;
  const SessionId greeted = Connect('a', &other);
  EXPECT_FALSE(Receive(greeted, channel::Hello{HeaderOf(MessageType::kHello), channel::kLayoutVersion, 1, {}}));
}

TEST_F(TwoShimsTest, RemovedPodTakesItsShimsAlong) {
  ASSERT_TRUE(MakeChannel(40000));
  broker_.RemovePod("a", "test");
  EXPECT_TRUE(link_a_.closed);
  EXPECT_FALSE(link_b_.closed);
  EXPECT_FALSE(Receive(a_, channel::Cancel{HeaderOf(MessageType::kCancel), 1}));
  EXPECT_EQ(broker_.LoadOf("a").channels, 0U);
  EXPECT_EQ(broker_.Stats().channels, 1U) << "b has it mapped";
  broker_.Disconnected(b_);
  EXPECT_EQ(broker_.Stats().channels, 0U);
}

}  // namespace
}  // namespace vsocket::broker
