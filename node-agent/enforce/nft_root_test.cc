// The rules in real network namespaces with real connections. Needs root.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "base/unique_fd.h"
#include "node-agent/enforce/nft_applier.h"
#include "node-agent/enforce/ruleset.h"
#include "node-agent/enforce/testing/traffic.h"

namespace vsocket::enforce {
namespace {

using model::AllowList;
using model::IpAddress;
using model::Protocol;
using namespace testing;  // NOLINT: the fixture's words

class NftRootTest : public TrafficTest {};

TEST_F(NftRootTest, IngressAllowsRefusesAndIsRemoved) {
  for (const std::string ip : {"10.77.0.10", "fd77::10"}) {
    const UniqueFd redis = Listen(kServer, ip, 6379), admin = Listen(kServer, ip, 7000);
    ASSERT_TRUE(redis.Valid() && admin.Valid());
    Enforce({});
    EXPECT_EQ(Connect(kStranger, ip, 6379), 0) << ip;
    Enforce(FriendOnly());
    EXPECT_EQ(Connect(kFriend, ip, 6379), 0) << ip;
    EXPECT_EQ(Connect(kFriend, ip, 7000), ECONNREFUSED) << ip;
    EXPECT_EQ(Connect(kStranger, ip, 6379), ECONNREFUSED) << ip;
    EXPECT_EQ(Connect(kHost, ip, 7000), 0) << ip;    // the own node
    EXPECT_EQ(Connect(kServer, ip, 7000), 0) << ip;  // itself
    Enforce({});
    EXPECT_EQ(Connect(kStranger, ip, 7000), 0) << ip;
  }
}

TEST_F(NftRootTest, RefusalIsAtOnce) {
  Enforce(FriendOnly());
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(Connect(kStranger, "10.77.0.10", 6379), ECONNREFUSED);
  // A dropped SYN would be sent again after a second.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(900));
}

TEST_F(NftRootTest, APodIsolatedForIngressStillConnectsOut) {
  Enforce(FriendOnly());
  const UniqueFd listener = Listen(kStranger, "10.77.0.12", 80);
  UniqueFd client;
  ASSERT_EQ(Connect(kServer, "10.77.0.12", 80, &client), 0);
  const UniqueFd served(::accept(listener.Get(), nullptr, nullptr));
  ASSERT_EQ(::send(served.Get(), "pong", 4, MSG_NOSIGNAL), 4);
  EXPECT_TRUE(Receives(client.Get(), kPatienceMs));
}

TEST_F(NftRootTest, ConnectionsOlderThanTheRulesGoOnInBothDirections) {
  const UniqueFd listener = Listen(kServer, "10.77.0.10", 6379), theirs = Listen(kStranger, "10.77.0.12", 80);
  UniqueFd in, out;
  ASSERT_EQ(Connect(kFriend, "10.77.0.10", 6379, &in), 0);
  const UniqueFd in_served(::accept(listener.Get(), nullptr, nullptr));
  ASSERT_EQ(Connect(kServer, "10.77.0.12", 80, &out), 0);
  const UniqueFd out_served(::accept(theirs.Get(), nullptr, nullptr));
  Enforce(FriendOnly());
  // The remote speaks first: nothing tells conntrack who opened the connection.
  ASSERT_EQ(::send(out_served.Get(), "push", 4, MSG_NOSIGNAL), 4);
  EXPECT_TRUE(Receives(out.Get(), kPatienceMs));
  ASSERT_EQ(::send(in.Get(), "ping", 4, MSG_NOSIGNAL), 4);
  EXPECT_TRUE(Receives(in_served.Get(), kPatienceMs));
  ASSERT_EQ(::send(in_served.Get(), "pong", 4, MSG_NOSIGNAL), 4);
  EXPECT_TRUE(Receives(in.Get(), kPatienceMs));
}

// conntrack still knows the four numbers when the client connects again from the same port.
TEST_F(NftRootTest, AConnectionThatWasCutCannotComeBackOnItsOwnPorts) {
  const UniqueFd listener = Listen(kServer, "10.77.0.10", 6379);
  AllowList everyone = FriendOnly();
  everyone.ingress.entries = {{{Ip("0.0.0.0"), Ip("255.255.255.255")}, {}, 0, 65535}};
  Enforce(everyone);
  const auto connect_from_port = [&](int* error) {
    UniqueFd fd = Socket(kStranger, "10.77.0.12", SOCK_STREAM, 40000);
    *error = ConnectFd(fd.Get(), "10.77.0.10", 6379);
    return fd;
  };
  int error = 0;
  UniqueFd client = connect_from_port(&error);
  ASSERT_EQ(error, 0);
  UniqueFd served(::accept(listener.Get(), nullptr, nullptr));
  ASSERT_EQ(::send(client.Get(), "ping", 4, MSG_NOSIGNAL), 4);
  ASSERT_TRUE(Receives(served.Get(), kPatienceMs));
  Enforce(FriendOnly());
  // Gone on the client's side without a word to the other: conntrack keeps the flow as established.
  const linger none{1, 0};
  node_.Inside(kStranger, [&] { ASSERT_EQ(std::system("ip link set eth0 down"), 0); });
  ::setsockopt(client.Get(), SOL_SOCKET, SO_LINGER, &none, sizeof(none));
  client.Reset();
  node_.Inside(kStranger, [&] { ASSERT_EQ(std::system("ip link set eth0 up"), 0); });
  client = connect_from_port(&error);
  EXPECT_EQ(error, ECONNREFUSED);
}

TEST_F(NftRootTest, DatagramsAreDroppedOrPassAndFollowAPolicyChangeAtOnce) {
  const UniqueFd server = Socket(kServer, "10.77.0.10", SOCK_DGRAM, 53);
  const UniqueFd stranger = Socket(kStranger, "10.77.0.12", SOCK_DGRAM, 5000), ally = Socket(kFriend, "10.77.0.11", SOCK_DGRAM, 5000);
  Enforce({});
  SendTo(stranger.Get(), "10.77.0.10", 53);
  ASSERT_TRUE(Receives(server.Get(), kPatienceMs));
  Enforce(FriendOnly());
  SendTo(stranger.Get(), "10.77.0.10", 53);
  SendTo(ally.Get(), "10.77.0.10", 53);
  ASSERT_TRUE(Receives(server.Get(), kPatienceMs));  // the friend's
  EXPECT_FALSE(Receives(server.Get(), kSilenceMs));  // not the stranger's
  SendTo(server.Get(), "10.77.0.11", 5000);
  EXPECT_TRUE(Receives(ally.Get(), kPatienceMs));  // the answer
  AllowList nobody = FriendOnly();
  nobody.ingress.entries.clear();
  Enforce(nobody);
  SendTo(ally.Get(), "10.77.0.10", 53);
  EXPECT_FALSE(Receives(server.Get(), kSilenceMs));  // though conntrack knows the flow
}

TEST_F(NftRootTest, EgressAllowsRefusesAtOnceAndLetsAnswersIn) {
  const UniqueFd web = Listen(kFriend, "10.77.0.11", 80), other = Listen(kFriend, "10.77.0.11", 81);
  const UniqueFd dns = Socket(kFriend, "10.77.0.11", SOCK_DGRAM, 53), own = Socket(kServer, "10.77.0.10", SOCK_DGRAM, 5001);
  AllowList list;
  list.egress.isolated = true;
  list.egress.entries = {{{Ip("10.77.0.11"), Ip("10.77.0.11")}, Protocol::kTcp, 80, 80},
                         {{Ip("10.77.0.11"), Ip("10.77.0.11")}, Protocol::kUdp, 53, 53}};
  list.ingress.isolated = true;
  list.node_addresses = {Ip("10.77.0.1")};
  Enforce(list);
  EXPECT_EQ(Connect(kServer, "10.77.0.11", 80), 0);
  EXPECT_EQ(Connect(kServer, "10.77.0.11", 81), ECONNREFUSED);
  EXPECT_EQ(Connect(kServer, "10.77.0.1", 80), ECONNREFUSED);  // the node is allowed in, not out to
  SendTo(own.Get(), "10.77.0.11", 53);
  ASSERT_TRUE(Receives(dns.Get(), kPatienceMs));
  SendTo(dns.Get(), "10.77.0.10", 5001);
  EXPECT_TRUE(Receives(own.Get(), kPatienceMs));
  // The same two ports, but begun by the remote: not an answer to anything once the flow is another one.
  const UniqueFd unasked = Socket(kServer, "10.77.0.10", SOCK_DGRAM, 5002);
  SendTo(dns.Get(), "10.77.0.10", 5002);
  EXPECT_FALSE(Receives(unasked.Get(), kSilenceMs));
}

// Without ICMP errors a closed port is a silence, and a too small MTU a connection that hangs.
TEST_F(NftRootTest, ErrorsAboutAllowedFlowsComeIn) {
  AllowList list;
  list.ingress.isolated = list.egress.isolated = true;
  list.egress.entries = {{{Ip("10.77.0.11"), Ip("10.77.0.11")}, Protocol::kUdp, 53, 53}};
  Enforce(list);
  const UniqueFd client = Socket(kServer, "10.77.0.10", SOCK_DGRAM, 5001);
  ASSERT_EQ(ConnectFd(client.Get(), "10.77.0.11", 53), 0);
  ASSERT_EQ(::send(client.Get(), "ping", 4, 0), 4);
  ASSERT_TRUE(Readable(client.Get(), kPatienceMs));
  char buffer[16];
  EXPECT_EQ(::recv(client.Get(), buffer, sizeof(buffer), MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, ECONNREFUSED);
}

TEST_F(NftRootTest, ManyElementsOfEveryKindAreAccepted) {
  AllowList list = FriendOnly();
  list.egress.isolated = true;
  for (unsigned i = 0; i < 2000; ++i) {
    const IpAddress ip = IpAddress::V4({10, 1, static_cast<std::uint8_t>(i / 200), static_cast<std::uint8_t>(i % 200)});
    const auto port = static_cast<std::uint16_t>(1 + i * 7 % 60000);
    list.ingress.entries.push_back({{ip, ip}, static_cast<Protocol>(i % 3), port, static_cast<std::uint16_t>(port + i % 50)});
  }
  list.egress.entries = {{{Ip("10.0.0.0"), Ip("10.255.255.255")}, {}, 0, 65535},
                         {{Ip("0.0.0.0"), Ip("255.255.255.255")}, Protocol::kTcp, 0, 65535},
                         {{Ip("::"), Ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")}, Protocol::kSctp, 1, 65535},
                         {{Ip("fd00::"), Ip("fd00::ffff")}, {}, 0, 65535}};
  Enforce(list);
  const UniqueFd redis = Listen(kServer, "10.77.0.10", 6379);
  EXPECT_EQ(Connect(kFriend, "10.77.0.10", 6379), 0);
  EXPECT_EQ(Connect(kStranger, "10.77.0.10", 6379), ECONNREFUSED);
}

// By raw sockets, because not every kernel has SCTP: the packets are what counts.
TEST_F(NftRootTest, SctpIsJudgedByProtocolAndPort) {
  AllowList list = FriendOnly();
  list.ingress.entries.push_back({{Ip("10.77.0.11"), Ip("10.77.0.11")}, Protocol::kSctp, 9999, 9999});
  Enforce(list);
  const auto raw = [&](int where) {
    UniqueFd fd;
    node_.Inside(where, [&] { fd = UniqueFd(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_SCTP)); });
    return fd;
  };
  const UniqueFd server = raw(kServer), ally = raw(kFriend), stranger = raw(kStranger);
  ASSERT_TRUE(server.Valid() && ally.Valid() && stranger.Valid());
  // A common header with ports (RFC 9260, section 3.1) and the head of an INIT chunk.
  const auto send = [](const UniqueFd& from, std::uint16_t port) {
    std::uint8_t packet[32] = {0x13, 0x88, static_cast<std::uint8_t>(port >> 8), static_cast<std::uint8_t>(port & 0xFF)};
    packet[12] = 1;
    packet[15] = 20;
    EXPECT_EQ(ConnectFd(from.Get(), "10.77.0.10", 0), 0);
    EXPECT_EQ(::send(from.Get(), packet, sizeof packet, 0), static_cast<ssize_t>(sizeof packet));
  };
  const auto arrives = [&](int ms) {
    std::uint8_t packet[128];
    return Readable(server.Get(), ms) && ::recv(server.Get(), packet, sizeof packet, MSG_DONTWAIT) > 0;
  };
  send(stranger, 9999);
  send(ally, 6379);  // TCP's
  EXPECT_FALSE(arrives(kSilenceMs));
  send(ally, 9999);
  EXPECT_TRUE(arrives(kPatienceMs));
}

// Another pod's address comes and goes in the list: every time the whole table is replaced. `flood` sends what is allowed and what is not
// meanwhile; nothing of the first may be missing, nothing of the second may come.
TEST_F(NftRootTest, AReplacementOfTheTableIsSeenByNoPacket) {
  constexpr int kReplacements = 60;
  const UniqueFd listener = Listen(kServer, "10.77.0.10", 6379);
  const UniqueFd dns = Socket(kServer, "10.77.0.10", SOCK_DGRAM, 53);
  const int room = 1 << 22;
  ::setsockopt(dns.Get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  const UniqueFd ally = Socket(kFriend, "10.77.0.11", SOCK_DGRAM, 5000), stranger = Socket(kStranger, "10.77.0.12", SOCK_DGRAM, 5000);
  AllowList list = FriendOnly();
  Enforce(list);
  UniqueFd client;
  ASSERT_EQ(Connect(kFriend, "10.77.0.10", 6379, &client), 0);
  const UniqueFd served(::accept(listener.Get(), nullptr, nullptr));

  std::atomic<bool> over{false};
  unsigned refused = 0, opened = 0, strangers_in = 0;
  int last_error = 0;
  ::fcntl(listener.Get(), F_SETFL, O_NONBLOCK);
  std::thread connects([&] {
    while (!over) {
      const int error = Connect(kFriend, "10.77.0.10", 6379);
      if (error != 0) {
        ++refused;
        last_error = error;
      }
      strangers_in += Connect(kStranger, "10.77.0.10", 6379) == 0 ? 1 : 0;
      ++opened;
      while (UniqueFd(::accept(listener.Get(), nullptr, nullptr)).Valid()) {
      }
    }
  });
  unsigned sent = 0, received = 0, wrong = 0, echoed = 0;
  std::thread datagrams([&] {
    char buffer[16];
    while (!over) {
      SendTo(ally.Get(), "10.77.0.10", 53);
      SendTo(stranger.Get(), "10.77.0.10", 53);
      ++sent;
      if (Receives(dns.Get(), kPatienceMs)) ++received;
      if (::recv(dns.Get(), buffer, sizeof buffer, MSG_DONTWAIT) > 0) ++wrong;
      if (::send(client.Get(), "ping", 4, MSG_NOSIGNAL) == 4 && Receives(served.Get(), kPatienceMs)) ++echoed;
    }
  });
  for (int i = 0; i < kReplacements; ++i) {
    list.ingress.entries.resize(4);
    if (i % 2 == 0) list.ingress.entries.push_back({{Ip("10.77.0.99"), Ip("10.77.0.99")}, Protocol::kTcp, 80, 80});
    Enforce(list);
  }
  over = true;
  connects.join();
  datagrams.join();
  EXPECT_EQ(enforcer_.GetCounters().applied, kReplacements + 1U);
  EXPECT_EQ(received, sent);
  EXPECT_EQ(echoed, sent);
  EXPECT_EQ(wrong, 0U);
  EXPECT_EQ(refused, 0U) << "of " << opened << ", " << std::strerror(last_error);
  EXPECT_EQ(strangers_in, 0U);
  EXPECT_GT(sent, 100U);
  EXPECT_GT(opened, 50U);
  std::printf("%d replacements: %u datagrams, %u segments there, %u connections, none lost; none of the stranger's came\n", kReplacements,
              sent, echoed, opened);
}

// An agent that is started again finds the table of the one before, and goes on with the other slot.
TEST_F(NftRootTest, ARestartedAgentsRulesTakeOverWithoutAGap) {
  const UniqueFd listener = Listen(kServer, "10.77.0.10", 6379);
  Enforce(FriendOnly());
  NftApplier applier;
  EXPECT_EQ(ActiveSlot(applier.ListHook(node_.Pod(kServer)).Value()), Slot::kA);
  Enforcer second(std::make_unique<NftApplier>());
  EXPECT_TRUE(second.Sync({{node_.Pod(kServer), FriendOnly(), {}}}).empty());
  EXPECT_EQ(ActiveSlot(applier.ListHook(node_.Pod(kServer)).Value()), Slot::kB);
  EXPECT_EQ(Connect(kFriend, "10.77.0.10", 6379), 0);
  EXPECT_EQ(Connect(kStranger, "10.77.0.10", 6379), ECONNREFUSED);
  // One that is not ours goes, in the transaction that brings ours.
  const std::string foreign =
      "table inet vsocket {\n  set node4_a {\n    type ipv6_addr\n  }\n  chain input {\n    type filter hook input priority 0\n  }\n}\n";
  const auto applied = applier.Apply(node_.Pod(kServer), {RemovalText() + foreign});
  ASSERT_TRUE(applied.Ok()) << applied.Error().what;
  EXPECT_FALSE(ActiveSlot(applier.ListHook(node_.Pod(kServer)).Value()));
  Enforcer third(std::make_unique<NftApplier>());
  const auto errors = third.Sync({{node_.Pod(kServer), FriendOnly(), {}}});
  EXPECT_TRUE(errors.empty()) << errors[0].what;
  EXPECT_EQ(Connect(kFriend, "10.77.0.10", 6379), 0);
  EXPECT_EQ(Connect(kStranger, "10.77.0.10", 6379), ECONNREFUSED);
}

TEST_F(NftRootTest, AServicesAddressIsJudgedByTheServiceAlone) {
  AllowList list;
  list.egress.isolated = true;
  list.egress.entries = {{{Ip("10.96.0.0"), Ip("10.96.255.255")}, {}, 0, 65535}};  // a rule that means the addresses of Services
  ServiceRules services;
  services.addresses = {Ip("10.96.0.1"), Ip("10.96.0.2")};
  services.entries = {{{Ip("10.96.0.1"), Ip("10.96.0.1")}, Protocol::kTcp, 80, 80}};
  // The bridge plays kube-proxy: all of these addresses are its own.
  node_.Inside(kHost, [] {
    ASSERT_EQ(std::system("ip addr add 10.96.0.1/32 dev br0 && ip addr add 10.96.0.2/32 dev br0 && "
                          "ip addr add 10.96.0.3/32 dev br0"),
              0);
  });
  const UniqueFd first = Listen(kHost, "10.96.0.1", 80), second = Listen(kHost, "10.96.0.2", 80), third = Listen(kHost, "10.96.0.3", 80);
  ASSERT_TRUE(first.Valid() && second.Valid() && third.Valid());
  const auto errors = enforcer_.Sync({{node_.Pod(kServer), list, services}});
  ASSERT_TRUE(errors.empty()) << errors[0].what;
  EXPECT_EQ(Connect(kServer, "10.96.0.1", 80), 0);
  EXPECT_EQ(Connect(kServer, "10.96.0.1", 81), ECONNREFUSED);
  EXPECT_EQ(Connect(kServer, "10.96.0.2", 80), ECONNREFUSED);  // though the rule covers it
  EXPECT_EQ(Connect(kServer, "10.96.0.3", 80), 0);             // not a Service's
}

class NftApplierTest : public NftRootTest {};

TEST_F(NftApplierTest, SaysWhatIsWrong) {
  NftApplier applier;
  model::LocalPod pod = node_.Pod(kServer);
  const auto refused = applier.Apply(pod, {"nonsense\n"});
  ASSERT_FALSE(refused.Ok());
  EXPECT_FALSE(refused.Error().namespace_gone);
  EXPECT_NE(refused.Error().what.find("nonsense"), std::string::npos) << refused.Error().what;

  pod.netns_cookie = 1;  // no namespace has it
  EXPECT_TRUE(applier.Apply(pod, {RemovalText()}).Error().namespace_gone);
  pod.netns_path = "/proc/self/ns/net";
  EXPECT_NE(applier.Apply(pod, {RemovalText()}).Error().what.find("own network namespace"), std::string::npos);
  pod.netns_path = "/nonexistent/netns";
  EXPECT_TRUE(applier.Apply(pod, {RemovalText()}).Error().namespace_gone);
  pod.netns_path = "/etc/hostname";
  EXPECT_TRUE(applier.Apply(pod, {RemovalText()}).Error().namespace_gone);
  EXPECT_NE(NftApplier("/nonexistent/nft").Apply(node_.Pod(kServer), {RemovalText()}).Error().what.find("cannot be started"),
            std::string::npos);
}

TEST_F(NftApplierTest, AnNftThatHangsIsKilled) {
  char path[] = "/tmp/vsocket-hanging-nft-XXXXXX";
  UniqueFd script(::mkstemp(path));
  const std::string text = "#!/bin/sh\nexec sleep 60\n";
  ASSERT_EQ(::write(script.Get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  ASSERT_EQ(::fchmod(script.Get(), 0700), 0);
  script.Reset();
  const auto result = NftApplier(path, std::chrono::milliseconds(100)).Apply(node_.Pod(kServer), {RemovalText()});
  ::unlink(path);
  ASSERT_FALSE(result.Ok());
  EXPECT_NE(result.Error().what.find("killed"), std::string::npos) << result.Error().what;
}

}  // namespace
}  // namespace vsocket::enforce
