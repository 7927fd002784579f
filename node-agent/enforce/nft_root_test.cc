// The rules in real network namespaces with real connections. Needs root.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "base/unique_fd.h"
#include "node-agent/enforce/enforcer.h"
#include "node-agent/enforce/nft_applier.h"
#include "node-agent/enforce/ruleset.h"
#include "node-agent/enforce/testing/netns_node.h"

namespace vsocket::enforce {
namespace {

using model::AllowEntry;
using model::AllowList;
using model::IpAddress;
using model::Protocol;
using testing::NetnsNode;

constexpr int kServer = 0, kFriend = 1, kStranger = 2, kHost = -1;
constexpr int kPatienceMs = 5000;  // for what must come
constexpr int kSilenceMs = 300;    // for what must not: the time a packet has to get through if it were let through

IpAddress Ip(const std::string& text) {
  return IpAddress::Parse(text).value();
}

sockaddr_storage Sockaddr(const std::string& ip, std::uint16_t port, socklen_t* size) {
  sockaddr_storage storage{};
  if (ip.find(':') != std::string::npos) {
    auto& in6 = reinterpret_cast<sockaddr_in6&>(storage);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(port);
    inet_pton(AF_INET6, ip.c_str(), &in6.sin6_addr);
    *size = sizeof(in6);
  } else {
    auto& in = reinterpret_cast<sockaddr_in&>(storage);
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    inet_pton(AF_INET, ip.c_str(), &in.sin_addr);
    *size = sizeof(in);
  }
  return storage;
}

bool Readable(int fd, int ms) {
  pollfd p{fd, POLLIN, 0};
  return ::poll(&p, 1, ms) > 0;
}

class NftRootTest : public ::testing::Test {
 protected:
  NftRootTest() : node_(3), enforcer_(std::make_unique<NftApplier>()) {}

  UniqueFd Socket(int where, const std::string& ip, int type, std::uint16_t local_port = 0) {
    UniqueFd fd;
    node_.Inside(where, [&] {
      socklen_t size = 0;
      const sockaddr_storage address = Sockaddr(ip, local_port, &size);
      fd = UniqueFd(::socket(address.ss_family, type | SOCK_CLOEXEC, 0));
      const int on = 1;
      ::setsockopt(fd.Get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
      if (::bind(fd.Get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) fd.Reset();
    });
    return fd;
  }
  UniqueFd Listen(int where, const std::string& ip, std::uint16_t port) {
    UniqueFd fd = Socket(where, ip, SOCK_STREAM, port);
    if (!fd.Valid() || ::listen(fd.Get(), 16) != 0) fd.Reset();
    return fd;
  }
  // 0, or the errno of the connect; ETIMEDOUT when nothing came back.
  int Connect(int where, const std::string& ip, std::uint16_t port, UniqueFd* out = nullptr) {
    int result = -1;
    node_.Inside(where, [&] {
      socklen_t size = 0;
      const sockaddr_storage address = Sockaddr(ip, port, &size);
      UniqueFd fd(::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      result = ::connect(fd.Get(), reinterpret_cast<const sockaddr*>(&address), size) == 0 ? 0 : errno;
      if (result == EINPROGRESS) {
        pollfd p{fd.Get(), POLLOUT, 0};
        socklen_t length = sizeof(result);
        if (::poll(&p, 1, kPatienceMs) <= 0) {
          result = ETIMEDOUT;
        } else {
          ::getsockopt(fd.Get(), SOL_SOCKET, SO_ERROR, &result, &length);
        }
      }
      if (out != nullptr) *out = std::move(fd);
    });
    return result;
  }
  static void SendTo(int fd, const std::string& ip, std::uint16_t port) {
    socklen_t size = 0;
    const sockaddr_storage address = Sockaddr(ip, port, &size);
    const ssize_t sent = ::sendto(fd, "ping", 4, 0, reinterpret_cast<const sockaddr*>(&address), size);
    // A packet dropped on the way out is told as EPERM.
    ASSERT_TRUE(sent == 4 || errno == EPERM) << std::strerror(errno);
  }
  static bool Receives(int fd, int ms) {
    if (!Readable(fd, ms)) return false;
    char buffer[16];
    return ::recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT) == 4;
  }

  // The server lets the friend in on 6379 only, by TCP and (53) UDP.
  static AllowList FriendOnly() {
    AllowList list;
    list.pod = "test/pod0";
    list.ingress.isolated = true;
    for (const char* ip : {"10.77.0.11", "fd77::11"}) {
      list.ingress.entries.push_back({{Ip(ip), Ip(ip)}, Protocol::kTcp, 6379, 6379});
      list.ingress.entries.push_back({{Ip(ip), Ip(ip)}, Protocol::kUdp, 53, 53});
    }
    list.node_addresses = {Ip("10.77.0.1"), Ip("fd77::1")};
    return list;
  }
  void Enforce(const AllowList& list) {
    const auto errors = enforcer_.Sync({{node_.Pod(kServer), list}});
    ASSERT_TRUE(errors.empty()) << errors[0].what;
  }

  NetnsNode node_;
  Enforcer enforcer_;
};

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
    socklen_t size = 0;
    const sockaddr_storage address = Sockaddr("10.77.0.10", 6379, &size);
    *error = ::connect(fd.Get(), reinterpret_cast<const sockaddr*>(&address), size) == 0 ? 0 : errno;
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
  socklen_t size = 0;
  const sockaddr_storage closed = Sockaddr("10.77.0.11", 53, &size);
  ASSERT_EQ(::connect(client.Get(), reinterpret_cast<const sockaddr*>(&closed), size), 0);
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

class NftApplierTest : public NftRootTest {};

TEST_F(NftApplierTest, SaysWhatIsWrong) {
  NftApplier applier;
  model::LocalPod pod = node_.Pod(kServer);
  const auto refused = applier.Apply(pod, "nonsense\n");
  ASSERT_FALSE(refused.Ok());
  EXPECT_FALSE(refused.Error().namespace_gone);
  EXPECT_NE(refused.Error().what.find("nonsense"), std::string::npos) << refused.Error().what;

  pod.netns_cookie = 1;  // no namespace has it
  EXPECT_TRUE(applier.Apply(pod, RemovalText()).Error().namespace_gone);
  pod.netns_path = "/proc/self/ns/net";
  EXPECT_NE(applier.Apply(pod, RemovalText()).Error().what.find("own network namespace"), std::string::npos);
  pod.netns_path = "/nonexistent/netns";
  EXPECT_TRUE(applier.Apply(pod, RemovalText()).Error().namespace_gone);
  pod.netns_path = "/etc/hostname";
  EXPECT_TRUE(applier.Apply(pod, RemovalText()).Error().namespace_gone);
  EXPECT_NE(NftApplier("/nonexistent/nft").Apply(node_.Pod(kServer), RemovalText()).Error().what.find("cannot be started"),
            std::string::npos);
}

TEST_F(NftApplierTest, AnNftThatHangsIsKilled) {
  char path[] = "/tmp/vsocket-hanging-nft-XXXXXX";
  UniqueFd script(::mkstemp(path));
  const std::string text = "#!/bin/sh\nexec sleep 60\n";
  ASSERT_EQ(::write(script.Get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  ASSERT_EQ(::fchmod(script.Get(), 0700), 0);
  script.Reset();
  const auto result = NftApplier(path, std::chrono::milliseconds(100)).Apply(node_.Pod(kServer), RemovalText());
  ::unlink(path);
  ASSERT_FALSE(result.Ok());
  EXPECT_NE(result.Error().what.find("killed"), std::string::npos) << result.Error().what;
}

}  // namespace
}  // namespace vsocket::enforce
