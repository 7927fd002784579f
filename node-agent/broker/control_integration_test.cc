// What a hostile or broken shim can send on agent.sock, and what the agent does when it runs out of descriptors. Needs root.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "node-agent/broker/testing/integration_test.h"

namespace vsocket::broker {
namespace {

using channel::HeaderOf;
using channel::MessageType;
using channel::Reason;
using testing::AgentProcess;
using testing::Eventually;
using testing::FakeShim;
using testing::kIpA;
using testing::kIpB;
using testing::MakeTcpPair;
using testing::TcpPair;

class ControlTest : public testing::NamespaceTest {};

TEST_F(ControlTest, WrongVersionsAreRejectedAndClosed) {
  AgentProcess agent(dir_.Path());
  ASSERT_TRUE(agent.Ready());
  channel::Hello hello{HeaderOf(MessageType::kHello), channel::kLayoutVersion, 1, {}};
  for (const int which : {0, 1}) {
    channel::Hello wrong = hello;
    if (which == 0) wrong.header.version = 9;
    if (which == 1) wrong.layout_version = 9;
    FakeShim shim(Sock("a"));
    ASSERT_TRUE(shim.Send(wrong));
    const auto answer = shim.Receive();
    ASSERT_TRUE(answer && answer->type == MessageType::kReject) << which;
    const auto reject = answer->As<channel::Reject>();
    EXPECT_EQ(reject.reason, static_cast<std::uint16_t>(Reason::kVersion));
    EXPECT_EQ(reject.min_version, channel::kControlVersion);
    EXPECT_TRUE(shim.ExpectEnd());
  }
  EXPECT_EQ(agent.Stats().shims_refused, 2U);
}

TEST_F(ControlTest, GarbageEndsTheConnectionAndLeaksNothing) {
  AgentProcess agent(dir_.Path());
  ASSERT_TRUE(agent.Ready());
  const TcpPair tcp = MakeTcpPair(kIpA, kIpB);
  const std::uint32_t before = agent.Descriptors();

  const auto refused = [&](std::span<const std::byte> bytes, std::size_t fd_count, bool hello_first) {
    FakeShim shim(Sock("a"));
    if (hello_first && !shim.Hello()) return false;
    const std::vector<int> fds(fd_count, tcp.client.Get());
    return shim.Send(bytes, fds) && shim.ExpectEnd();
  };
  const channel::Upgrade upgrade{HeaderOf(MessageType::kUpgrade), testing::CookieOf(tcp.client.Get())};
  const auto bytes = std::as_bytes(std::span(&upgrade, 1));
  EXPECT_TRUE(refused(bytes.first(3), 0, true)) << "short";
  EXPECT_TRUE(refused(bytes.first(15), 1, true)) << "cut";
  EXPECT_TRUE(refused(bytes, 0, true)) << "no descriptor";
  EXPECT_TRUE(refused(bytes, 2, true)) << "two descriptors";
  EXPECT_TRUE(refused(bytes, 253, true)) << "as many as a packet carries";
  EXPECT_TRUE(refused(bytes, 1, false)) << "before HELLO";
  const std::vector<std::byte> zeros(5000);
  EXPECT_TRUE(refused(zeros, 3, true)) << "longer than any message";
  channel::Grant grant{HeaderOf(MessageType::kGrant), 1, {1, 0, 1, 0, 0}, 0, 0};
  EXPECT_TRUE(refused(std::as_bytes(std::span(&grant, 1)), 0, true)) << "the agent's own message";
  channel::WakeRef wake{HeaderOf(MessageType::kWakeWant), 1, 2, 0};
  EXPECT_TRUE(refused(std::as_bytes(std::span(&wake, 1)), 0, true)) << "side 2";
  channel::Release release{HeaderOf(MessageType::kRelease), 1, {1, channel::kSlots, 1, 0, 0}, 0, {}};
  EXPECT_TRUE(refused(std::as_bytes(std::span(&release, 1)), 0, true)) << "slot 64";

  EXPECT_GE(agent.Stats().protocol_errors, 10U);
  EXPECT_TRUE(Eventually([&] { return agent.Descriptors() == before; })) << agent.Descriptors() << " were " << before;
}

TEST_F(ControlTest, DescriptorsInUnreadPacketsAreNotLeaked) {
  AgentProcess agent(dir_.Path());
  ASSERT_TRUE(agent.Ready());
  const TcpPair tcp = MakeTcpPair(kIpA, kIpB);
  const std::uint32_t before = agent.Descriptors();
  for (int i = 0; i < 50; ++i) {
    FakeShim shim(Sock("a"));
    ASSERT_TRUE(shim.Hello());
    // The first ends the connection; those behind it are never read.
    const std::array<std::byte, 3> junk{};
    const std::array<int, 2> fds{tcp.client.Get(), tcp.server.Get()};
    shim.Send(junk, fds);
    for (int more = 0; more < 5; ++more) shim.Send(junk, fds);
  }
  EXPECT_TRUE(Eventually([&] { return agent.Descriptors() == before; })) << agent.Descriptors() << " were " << before;
}

TEST_F(ControlTest, FloodIsBoundedAndOthersAreServed) {
  AgentProcess agent(dir_.Path(), [](NodeOptions* options) {
    options->broker.limits.pending_per_process = 8;
    options->broker.limits.processes_per_pod = 4;
    options->broker.limits.unsent_per_process = 64;
  });
  ASSERT_TRUE(agent.Ready());
  FakeShim flood(Sock("a"));
  ASSERT_TRUE(flood.Hello());
  std::vector<TcpPair> pairs;
  for (int i = 0; i < 9; ++i) {
    pairs.push_back(MakeTcpPair(kIpA, kIpB));
    ASSERT_TRUE(flood.Upgrade(pairs.back().client.Get()));
  }
  const auto deny = flood.ExpectDeny(pairs.back().client.Get());
  ASSERT_TRUE(deny);
  EXPECT_EQ(deny->reason, static_cast<std::uint16_t>(Reason::kQuota));
  EXPECT_EQ(agent.Stats().pending, 8U);

  // Asks without ever reading: disconnected, not buffered for.
  const channel::WakeRef want{HeaderOf(MessageType::kWakeWant), 1, 0, 0};
  bool ended = false;
  for (int i = 0; i < 100000 && !ended; ++i) ended = !flood.Send(want);
  EXPECT_TRUE(ended);
  EXPECT_TRUE(Eventually([&] { return agent.Stats().shims_dropped == 1; }));
  EXPECT_EQ(agent.Stats().pending, 0U);

  // Another process is served; the fifth at the same time is not.
  std::vector<std::unique_ptr<FakeShim>> shims;
  for (int i = 0; i < 4; ++i) {
    shims.push_back(std::make_unique<FakeShim>(Sock("a")));
    EXPECT_TRUE(shims.back()->Hello());
  }
  FakeShim fifth(Sock("a"));
  const auto answer = fifth.Receive();
  ASSERT_TRUE(answer && answer->type == MessageType::kReject);
  EXPECT_EQ(answer->As<channel::Reject>().reason, static_cast<std::uint16_t>(Reason::kQuota));
}

TEST_F(ControlTest, OutOfDescriptorsMeansNoUpgradeAndNoSpin) {
  AgentProcess agent(dir_.Path(), [](NodeOptions*) {
    const rlimit low{40, 40};
    ::setrlimit(RLIMIT_NOFILE, &low);
  });
  ASSERT_TRUE(agent.Ready());
  // Shims until the agent has no descriptor left for one.
  std::vector<std::unique_ptr<FakeShim>> shims;
  bool full = false;
  while (!full && shims.size() < 60) {
    shims.push_back(std::make_unique<FakeShim>(Sock("a")));
    full = !shims.back()->Hello();
  }
  ASSERT_TRUE(full);
  shims.pop_back();
  const TcpPair tcp = MakeTcpPair(kIpA, kIpB);
  ASSERT_TRUE(shims[0]->Upgrade(tcp.client.Get()));
  const auto deny = shims[0]->ExpectDeny(tcp.client.Get());
  ASSERT_TRUE(deny);
  EXPECT_EQ(deny->reason, static_cast<std::uint16_t>(Reason::kNoMemory));
  EXPECT_GT(deny->retry_after_ms, 0U);
  // It takes room for two sockets' copies and a region; with the shims gone there is.
  shims.resize(2);
  // Their descriptors are closed on the pod's worker thread, a moment after the sessions end.
  ASSERT_TRUE(Eventually([&] { return agent.Stats().processes == 2 && agent.Descriptors() < 30; }));
  FakeShim b(Sock("b"));
  ASSERT_TRUE(b.Hello());
  ASSERT_TRUE(shims[0]->Upgrade(tcp.client.Get()) && b.Upgrade(tcp.server.Get()));
  EXPECT_TRUE(shims[0]->ExpectGrant(tcp.client.Get()));
  EXPECT_TRUE(b.ExpectGrant(tcp.server.Get()));
}

TEST_F(ControlTest, LingeringSocketDoesNotHoldUpTheAgent) {
  AgentProcess agent(dir_.Path());
  ASSERT_TRUE(agent.Ready());
  FakeShim shim(Sock("a"));
  ASSERT_TRUE(shim.Hello());
  TcpPair tcp = MakeTcpPair(kIpA, kIpB);
  // Unsent data and a long SO_LINGER: whoever closes last would wait for a reader that never reads.
  const linger forever{1, 1000};
  ASSERT_EQ(::setsockopt(tcp.client.Get(), SOL_SOCKET, SO_LINGER, &forever, sizeof forever), 0);
  ASSERT_EQ(::fcntl(tcp.client.Get(), F_SETFL, O_NONBLOCK), 0);
  const std::vector<char> data(65536);
  while (::send(tcp.client.Get(), data.data(), data.size(), MSG_NOSIGNAL) > 0) {
  }
  ASSERT_TRUE(shim.Upgrade(tcp.client.Get()));
  // Ours is closed by a process whose end does not linger, so the agent's is likely the last.
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  EXPECT_TRUE(shim.Quiet());
  FakeShim other(Sock("b"));
  EXPECT_TRUE(other.Hello());
  const linger off{0, 0};
  ::setsockopt(tcp.client.Get(), SOL_SOCKET, SO_LINGER, &off, sizeof off);
}

}  // namespace
}  // namespace vsocket::broker
