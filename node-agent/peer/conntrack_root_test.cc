// Real connections through real translation, in a network namespace of the test process' own: pods and a Service are addresses of its
// loopback device.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/unique_fd.h"
#include "node-agent/peer/conntrack.h"

namespace vsocket::peer {
namespace {

using model::AddressPair;
using model::IpAddress;
using model::SocketAddress;

SocketAddress At(const char* ip, std::uint16_t port) {
  return {*IpAddress::Parse(ip), port};
}

struct Address {
  Address() = default;
  explicit Address(const SocketAddress& from) {
    if (from.ip.IsV4()) {
      auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
      v4->sin_family = AF_INET;
      v4->sin_port = htons(from.port);
      std::copy_n(from.ip.Bytes().begin(), 4, reinterpret_cast<std::uint8_t*>(&v4->sin_addr));
    } else {
      auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
      v6->sin6_family = AF_INET6;
      v6->sin6_port = htons(from.port);
      std::copy_n(from.ip.Bytes().begin(), 16, reinterpret_cast<std::uint8_t*>(&v6->sin6_addr));
      size = sizeof(sockaddr_in6);
    }
  }
  [[nodiscard]] SocketAddress Value() const {
    SocketAddress value;
    value.ip = *IpAddress::FromSockaddr(*Get());
    value.port = ntohs(storage.ss_family == AF_INET ? reinterpret_cast<const sockaddr_in*>(&storage)->sin_port
                                                    : reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
    return value;
  }
  sockaddr* Get() { return reinterpret_cast<sockaddr*>(&storage); }
  [[nodiscard]] const sockaddr* Get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr_storage storage{};
  socklen_t size = sizeof(sockaddr_in);
};

AddressPair Of(int fd) {
  Address local, remote;
  local.size = remote.size = sizeof(sockaddr_storage);
  EXPECT_EQ(::getsockname(fd, local.Get(), &local.size), 0);
  EXPECT_EQ(::getpeername(fd, remote.Get(), &remote.size), 0);
  return {local.Value(), remote.Value()};
}

// Both ends of a TCP connection.
struct Connection {
  Connection(const SocketAddress& server, const SocketAddress& client, const SocketAddress& target) {
    const int family = server.ip.IsV4() ? AF_INET : AF_INET6;
    UniqueFd listener(::socket(family, SOCK_STREAM, 0));
    const int on = 1;
    ::setsockopt(listener.Get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    Address address(server);
    EXPECT_EQ(::bind(listener.Get(), address.Get(), address.size), 0);
    EXPECT_EQ(::listen(listener.Get(), 1), 0);
    opener.Reset(::socket(family, SOCK_STREAM, 0));
    Address from(client);
    EXPECT_EQ(::bind(opener.Get(), from.Get(), from.size), 0);
    Address to(target);
    EXPECT_EQ(::connect(opener.Get(), to.Get(), to.size), 0) << std::strerror(errno);
    taker.Reset(::accept(listener.Get(), nullptr, nullptr));
  }
  UniqueFd opener, taker;
};

class ConntrackTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0) << "needs root";
    ASSERT_EQ(std::system("ip link set lo up"), 0);
    for (const char* ip : {"10.1.0.1/32", "10.1.0.2/32", "10.2.0.1/32", "192.168.0.1/32", "fd00:1::1/128", "fd00:2::1/128"}) {
      ASSERT_EQ(std::system((std::string("ip address add ") + ip + " dev lo" + (std::strchr(ip, ':') != nullptr ? " nodad" : "")).c_str()),
                0);
    }
    ASSERT_EQ(std::system("ip route add 172.20.0.0/16 dev lo && ip -6 route add fd00:20::/64 dev lo"), 0);
    FILE* rules = ::popen("nft -f -", "w");
    ASSERT_NE(rules, nullptr);
    std::fputs(
        "table inet nat {\n"
        " chain out { type nat hook output priority -100\n"
        "  ip daddr 172.20.0.10 tcp dport 8080 dnat ip to 10.2.0.1:80\n"
        "  ip6 daddr fd00:20::10 tcp dport 8080 dnat ip6 to [fd00:2::1]:80\n"
        " }\n"
        " chain post { type nat hook postrouting priority 100\n"
        "  ip saddr 10.1.0.2 snat ip to 192.168.0.1\n"
        " }\n"
        "}\n",
        rules);
    ASSERT_EQ(::pclose(rules), 0);
  }
  void SetUp() override {
    auto opened = Conntrack::Open();
    ASSERT_TRUE(opened) << opened.Error();
    conntrack = std::move(opened.Value());
  }
  std::unique_ptr<Conntrack> conntrack;
};

TEST_F(ConntrackTest, AServicesAddressBecomesTheBackends) {
  const Connection connection(At("10.2.0.1", 80), At("10.1.0.1", 40000), At("172.20.0.10", 8080));
  const AddressPair opener = Of(connection.opener.Get()), taker = Of(connection.taker.Get());
  EXPECT_EQ(opener.remote, At("172.20.0.10", 8080));
  EXPECT_EQ(conntrack->OnTheWire(opener), (AddressPair{At("10.1.0.1", 40000), At("10.2.0.1", 80)}));
  EXPECT_EQ(conntrack->OnTheWire(opener), taker.Mirror()) << "what the other end's socket has";
}

TEST_F(ConntrackTest, OfTheEndThatWasTranslatedToTheWireIsWhatCameIn) {
  const Connection connection(At("10.2.0.1", 80), At("10.1.0.1", 40001), At("172.20.0.10", 8080));
  // This node did the translation, so to it the wire is what the opener sent.
  EXPECT_EQ(conntrack->OnTheWire(Of(connection.taker.Get())), (AddressPair{At("172.20.0.10", 8080), At("10.1.0.1", 40001)}));
}

TEST_F(ConntrackTest, ASourceThatBecomesTheNodes) {
  const Connection connection(At("10.2.0.1", 80), At("10.1.0.2", 40002), At("10.2.0.1", 80));
  EXPECT_EQ(conntrack->OnTheWire(Of(connection.opener.Get())), (AddressPair{At("192.168.0.1", 40002), At("10.2.0.1", 80)}));
  EXPECT_EQ(Of(connection.taker.Get()).remote, At("192.168.0.1", 40002));
}

TEST_F(ConntrackTest, WithIpv6) {
  const Connection connection(At("fd00:2::1", 80), At("fd00:1::1", 40003), At("fd00:20::10", 8080));
  EXPECT_EQ(conntrack->OnTheWire(Of(connection.opener.Get())), (AddressPair{At("fd00:1::1", 40003), At("fd00:2::1", 80)}));
}

TEST_F(ConntrackTest, WhatIsNotTranslatedStaysAsItIs) {
  const Connection connection(At("10.2.0.1", 80), At("10.1.0.1", 40004), At("10.2.0.1", 80));
  const AddressPair opener = Of(connection.opener.Get());
  EXPECT_EQ(conntrack->OnTheWire(opener), opener);
}

TEST_F(ConntrackTest, WhatTheKernelDoesNotKnowStaysAsItIs) {
  const AddressPair nobody{At("10.1.0.1", 1), At("172.20.0.10", 8080)};
  EXPECT_EQ(conntrack->OnTheWire(nobody), nobody);
  const Connection connection(At("10.2.0.1", 80), At("10.1.0.1", 40005), At("172.20.0.10", 8080));
  EXPECT_NE(conntrack->OnTheWire(Of(connection.opener.Get())).remote, At("172.20.0.10", 8080)) << "and the next question is answered";
}

}  // namespace
}  // namespace vsocket::peer
