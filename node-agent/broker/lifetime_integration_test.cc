// Processes and agents that come and go: nothing stays behind, and a new agent knows what the old one granted. Needs root.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <vector>

#include "node-agent/broker/loop.h"
#include "node-agent/broker/testing/integration_test.h"

namespace vsocket::broker {
namespace {

using channel::Reason;
using testing::AgentProcess;
using testing::Channel;
using testing::Eventually;
using testing::FakeShim;
using testing::kIpA;
using testing::kIpB;
using testing::MakeTcpPair;
using testing::MappedRegion;
using testing::TcpPair;

class LifetimeTest : public testing::NamespaceTest {};

TEST_F(LifetimeTest, RestartedAgentTakesChannelsBack) {
  auto agent = std::make_unique<AgentProcess>(dir_.Path());
  ASSERT_TRUE(agent->Ready());
  Channel granted;
  auto a = std::make_unique<FakeShim>(Sock("a"));
  auto b = std::make_unique<FakeShim>(Sock("b"));
  ASSERT_TRUE(a->Hello() && b->Hello() && GrantBetween(*a, *b, &granted));
  const MappedRegion region(granted.client.memory.Get());
  const auto& ref = granted.client.grant.channel;

  agent->Kill();
  EXPECT_TRUE(a->ExpectEnd());
  EXPECT_EQ(region.Slot(ref.slot).revoked.load(), 0U) << "rings live on";
  agent = std::make_unique<AgentProcess>(dir_.Path());  // over the dead one's lock, socket files and stored pods
  ASSERT_TRUE(agent->Ready());
  region.Header().lease_until_ns.store(0);

  a = std::make_unique<FakeShim>(Sock("a"));
  b = std::make_unique<FakeShim>(Sock("b"));
  ASSERT_TRUE(a->Hello() && b->Hello());
  ASSERT_TRUE(a->Reattach(granted.tcp.client.Get(), granted.client.grant, granted.client.memory.Get()));
  ASSERT_TRUE(a->Quiet()) << "no answer means it is taken back";
  EXPECT_GT(region.Header().lease_until_ns.load(), MonotonicNow());
  ASSERT_TRUE(b->Reattach(granted.tcp.server.Get(), granted.server.grant, granted.server.memory.Get()));
  ASSERT_TRUE(b->Quiet());
  EXPECT_EQ(agent->Stats().channels, 1U);
  EXPECT_EQ(agent->Stats().reattached, 2U);

  // New connections of the same processes work beside it, and the old channel can be given back.
  Channel next;
  ASSERT_TRUE(GrantBetween(*a, *b, &next));
  EXPECT_NE(next.client.grant.channel.region_id, ref.region_id);
  ASSERT_TRUE(a->Release(granted.client.grant) && b->Release(granted.server.grant) && a->Quiet() && b->Quiet());
  EXPECT_EQ(agent->Stats().channels, 1U);
  EXPECT_EQ(agent->Stats().regions, 1U);
}

TEST_F(LifetimeTest, ReattachIsBelievedOnlyWhenAllFits) {
  auto agent = std::make_unique<AgentProcess>(dir_.Path());
  ASSERT_TRUE(agent->Ready());
  Channel first;
  Channel second;
  {
    FakeShim a(Sock("a"));
    FakeShim b(Sock("b"));
    ASSERT_TRUE(a.Hello() && b.Hello() && GrantBetween(a, b, &first) && GrantBetween(a, b, &second));
    agent->Kill();
  }
  agent = std::make_unique<AgentProcess>(dir_.Path());
  ASSERT_TRUE(agent->Ready());
  FakeShim a(Sock("a"));
  FakeShim b(Sock("b"));
  ASSERT_TRUE(a.Hello() && b.Hello());
  const int client = first.tcp.client.Get();
  const auto denied = [&](FakeShim& shim, int tcp, const channel::Grant& grant, int memfd, Reason reason) {
    if (!shim.Reattach(tcp, grant, memfd)) return false;
    const auto deny = shim.ExpectDeny(tcp);
    return deny && deny->reason == static_cast<std::uint16_t>(reason);
  };
  channel::Grant wrong = first.client.grant;
  wrong.channel.epoch ^= 1;
  EXPECT_TRUE(denied(a, client, wrong, first.client.memory.Get(), Reason::kBadRequest)) << "epoch";
  wrong = first.client.grant;
  wrong.channel.region_id ^= 1;
  EXPECT_TRUE(denied(a, client, wrong, first.client.memory.Get(), Reason::kBadRequest)) << "region";
  EXPECT_TRUE(denied(a, client, first.client.grant, client, Reason::kBadRequest)) << "not memory";
  EXPECT_TRUE(denied(b, client, first.client.grant, first.client.memory.Get(), Reason::kNotPodAddress)) << "another pod's socket";
  EXPECT_EQ(agent->Stats().channels, 0U);

  ASSERT_TRUE(a.Reattach(client, first.client.grant, first.client.memory.Get()) && a.Quiet());
  // The other side of that slot is the other end of that connection and nothing else.
  channel::Grant stolen = second.server.grant;
  stolen.channel = first.server.grant.channel;
  EXPECT_TRUE(denied(b, second.tcp.server.Get(), stolen, second.server.memory.Get(), Reason::kBadRequest));
  stolen = second.client.grant;
  stolen.channel = first.client.grant.channel;
  EXPECT_TRUE(denied(a, second.tcp.client.Get(), stolen, second.client.memory.Get(), Reason::kBadRequest));
  ASSERT_TRUE(b.Reattach(first.tcp.server.Get(), first.server.grant, first.server.memory.Get()) && b.Quiet());
  EXPECT_EQ(agent->Stats().channels, 1U);
}

TEST_F(LifetimeTest, WithoutAPolicyNothingIsTakenBackAndNothingIsCut) {
  auto agent = std::make_unique<AgentProcess>(dir_.Path());
  ASSERT_TRUE(agent->Ready());
  Channel granted;
  {
    FakeShim a(Sock("a"));
    FakeShim b(Sock("b"));
    ASSERT_TRUE(a.Hello() && b.Hello() && GrantBetween(a, b, &granted));
    agent->Kill();
  }
  const MappedRegion region(granted.client.memory.Get());
  const std::uint64_t lease = region.Header().lease_until_ns.load();
  agent = std::make_unique<AgentProcess>(dir_.Path(), [](NodeOptions* options) {
    options->broker.verdict = [](const model::Flow&) {
      model::Verdict verdict;
      verdict.known = false;
      return verdict;
    };
  });
  ASSERT_TRUE(agent->Ready());
  FakeShim a(Sock("a"));
  FakeShim b(Sock("b"));
  ASSERT_TRUE(a.Hello() && b.Hello());
  const int client = granted.tcp.client.Get();
  ASSERT_TRUE(a.Reattach(client, granted.client.grant, granted.client.memory.Get()));
  const auto kept = a.ExpectDeny(client);
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->reason, static_cast<std::uint16_t>(Reason::kPolicy));
  EXPECT_GT(kept->retry_after_ms, 0U);
  ASSERT_TRUE(a.Upgrade(client) && b.Upgrade(granted.tcp.server.Get()));
  EXPECT_TRUE(a.ExpectDeny(client) && b.ExpectDeny(granted.tcp.server.Get()));
  const BrokerStats stats = agent->Stats();
  EXPECT_EQ(stats.channels, 0U);
  EXPECT_EQ(stats.revocations + stats.sockets_destroyed, 0U);
  EXPECT_EQ(region.Slot(granted.client.grant.channel.slot).revoked.load(), 0U);
  EXPECT_EQ(region.Header().lease_until_ns.load(), lease) << "the ring ends with the lease of the agent that granted it";
  EXPECT_EQ(::send(client, "x", 1, MSG_NOSIGNAL), 1) << "the connection lives";
}

TEST_F(LifetimeTest, OneSidedChannelIsForgottenWithoutTouchingTheRing) {
  auto agent = std::make_unique<AgentProcess>(dir_.Path());
  ASSERT_TRUE(agent->Ready());
  Channel granted;
  {
    FakeShim a(Sock("a"));
    FakeShim b(Sock("b"));
    ASSERT_TRUE(a.Hello() && b.Hello() && GrantBetween(a, b, &granted));
    agent->Kill();
  }
  agent = std::make_unique<AgentProcess>(dir_.Path());
  ASSERT_TRUE(agent->Ready());
  FakeShim a(Sock("a"));
  ASSERT_TRUE(a.Hello());
  ASSERT_TRUE(a.Reattach(granted.tcp.client.Get(), granted.client.grant, granted.client.memory.Get()) && a.Quiet());
  const MappedRegion region(granted.server.memory.Get());
  ASSERT_TRUE(a.Release(granted.client.grant) && a.Quiet());
  EXPECT_EQ(agent->Stats().channels, 0U);
  EXPECT_EQ(agent->Memfds(), 0U);
  // The sleeping end may have unread bytes there.
  EXPECT_EQ(region.Slot(granted.server.grant.channel.slot).epoch.load(), granted.server.grant.channel.epoch);
  EXPECT_EQ(region.Header().revoked.load(), 0U);
}

TEST_F(LifetimeTest, ForkedChildKeepsTheChannelWhenItsParentGoes) {
  AgentProcess agent(dir_.Path());
  ASSERT_TRUE(agent.Ready());
  FakeShim b(Sock("b"));
  ASSERT_TRUE(b.Hello());
  auto a = std::make_unique<FakeShim>(Sock("a"));
  ASSERT_TRUE(a->Hello());
  Channel granted;
  ASSERT_TRUE(GrantBetween(*a, b, &granted));
  int hold[2];
  ASSERT_EQ(::pipe(hold), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(hold[1]);
    a->Close();
    b.Close();
    granted.tcp.server.Reset();
    granted.tcp.listener.Reset();
    char byte = 0;
    [[maybe_unused]] const auto ended = ::read(hold[0], &byte, 1);  // holds only the client's socket until then
    ::_exit(0);
  }
  ::close(hold[0]);
  a->Close();
  granted.tcp.client.Reset();
  ASSERT_TRUE(Eventually([&] { return agent.Stats().processes == 1; }));
  ASSERT_TRUE(b.Release(granted.server.grant) && b.Quiet());
  EXPECT_EQ(agent.Stats().channels, 1U) << "the child has it";

  // A child that says it lets go, through a line of its own, is believed once the kernel agrees.
  FakeShim line_of_child(Sock("a"));
  ASSERT_TRUE(line_of_child.Hello());
  ASSERT_TRUE(line_of_child.Send(channel::Release{
      channel::HeaderOf(channel::MessageType::kRelease), granted.client.grant.cookie, granted.client.grant.channel, 0, {}}));
  ASSERT_TRUE(line_of_child.Quiet());
  EXPECT_EQ(agent.Stats().channels, 1U);
  ::close(hold[1]);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(Eventually([&] { return agent.Stats().channels == 0 && agent.Memfds() == 0; }));
}

TEST_F(LifetimeTest, NothingLeaksOverThousandsOfGrantsAndKills) {
  AgentProcess agent(dir_.Path());
  ASSERT_TRUE(agent.Ready());
  const std::uint32_t before = agent.Descriptors();
  constexpr int kRounds = 250;
  constexpr int kConnections = 10;
  for (int round = 0; round < kRounds; ++round) {
    // Two processes with connections between them; how they end differs by round.
    FakeShim b(Sock("b"));
    ASSERT_TRUE(b.Hello());
    std::vector<TcpPair> pairs;
    for (int i = 0; i < kConnections; ++i) pairs.push_back(MakeTcpPair(kIpA, kIpB));
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      b.Close();
      for (TcpPair& pair : pairs) {
        pair.server.Reset();
        pair.listener.Reset();
      }
      FakeShim a(Sock("a"));
      bool good = a.Hello();
      for (const TcpPair& pair : pairs) good = good && a.Upgrade(pair.client.Get());
      if (round % 3 == 0) {
        for (std::size_t i = 0; i < pairs.size(); ++i) {
          const auto answer = a.Receive();
          good = good && answer && answer->type == channel::MessageType::kGrant;
          if (good) a.Release(answer->As<channel::Grant>());
        }
      }
      [[maybe_unused]] const auto told = ::write(ready[1], good ? "y" : "n", 1);
      ::pause();
      ::_exit(0);
    }
    for (TcpPair& pair : pairs) pair.client.Reset();
    std::vector<FakeShim::Granted> grants;
    for (const TcpPair& pair : pairs) {
      ASSERT_TRUE(b.Upgrade(pair.server.Get()));
      auto grant = b.ExpectGrant(pair.server.Get());
      ASSERT_TRUE(grant) << round;
      grants.push_back(std::move(*grant));
    }
    char told = 0;
    ASSERT_EQ(::read(ready[0], &told, 1), 1);
    ASSERT_EQ(told, 'y');
    ::close(ready[0]);
    ::close(ready[1]);
    if (round % 2 == 0) {
      for (const auto& grant : grants) ASSERT_TRUE(b.Release(grant.grant));
    }
    ::kill(child, SIGKILL);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  }
  ASSERT_TRUE(Eventually([&] { return agent.Stats().channels == 0 && agent.Stats().processes == 0; }));
  const BrokerStats stats = agent.Stats();
  EXPECT_EQ(stats.upgrades, static_cast<std::uint64_t>(kRounds) * kConnections);
  EXPECT_EQ(stats.regions, 0U);
  EXPECT_EQ(stats.pending, 0U);
  EXPECT_EQ(stats.bytes_reserved, 0U);
  EXPECT_EQ(agent.MappedRegions(), 0U);
  // A descriptor outlives its region until the agent has made sure that nobody maps the memory.
  EXPECT_TRUE(Eventually([&] { return agent.Memfds() == 0; })) << agent.Memfds();
  EXPECT_TRUE(Eventually([&] { return agent.Descriptors() == before; })) << agent.Descriptors() << " were " << before;
}

TEST_F(LifetimeTest, SecondAgentIsRefusedAndStaleSocketReplaced) {
  AgentProcess agent(dir_.Path());
  ASSERT_TRUE(agent.Ready());
  const auto second = Node::Open(testing::OptionsIn(dir_.Path()), {});
  ASSERT_FALSE(second);
  EXPECT_NE(second.Error().find("another vsocket-agent is running"), std::string::npos) << second.Error();
  agent.Kill();
  ASSERT_TRUE(std::filesystem::exists(Sock("a"))) << "left by the kill";
  AgentProcess third(dir_.Path());
  ASSERT_TRUE(third.Ready());
  FakeShim shim(Sock("a"));
  EXPECT_TRUE(shim.Hello());
}

TEST_F(LifetimeTest, IdleAgentDoesNotWakeUp) {
  AgentProcess agent(dir_.Path());
  ASSERT_TRUE(agent.Ready());
  {
    FakeShim a(Sock("a"));
    FakeShim b(Sock("b"));
    Channel granted;
    ASSERT_TRUE(a.Hello() && b.Hello() && GrantBetween(a, b, &granted));
  }
  ASSERT_TRUE(Eventually([&] { return agent.Stats().channels == 0 && agent.Stats().processes == 0; }));
  // With no channel no deadline is set: the timer of the loop is off. /proc/PID/fdinfo of a timerfd shows what is left of it.
  const auto armed = [&] {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(agent.Pid()) + "/fdinfo")) {
      FILE* file = ::fopen(entry.path().c_str(), "re");
      char line[128];
      bool found = false;
      while (file != nullptr && ::fgets(line, sizeof line, file) != nullptr) {
        found = found || (::strncmp(line, "it_value:", 9) == 0 && ::strstr(line, "(0, 0)") == nullptr);
      }
      if (file != nullptr) ::fclose(file);
      if (found) return true;
    }
    return false;
  };
  EXPECT_TRUE(Eventually([&] { return !armed(); }));
}

}  // namespace
}  // namespace vsocket::broker
