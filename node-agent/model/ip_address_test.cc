#include "node-agent/model/ip_address.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>

namespace vsocket::model {
namespace {

TEST(IpAddressTest, ParsesAndPrintsBothFamilies) {
  for (const char* text : {"0.0.0.0", "10.1.2.3", "255.255.255.255", "::", "::1", "fd00::1:2", "2001:db8::ff"}) {
    const auto address = IpAddress::Parse(text);
    ASSERT_TRUE(address) << text;
    EXPECT_EQ(address->ToString(), text);
  }
  EXPECT_TRUE(IpAddress::Parse("10.0.0.1")->IsV4());
  EXPECT_FALSE(IpAddress::Parse("fd00::1")->IsV4());
}

TEST(IpAddressTest, RefusesWhatIsNoAddress) {
  for (const char* text : {"", " ", "10.0.0", "10.0.0.256", "10.0.0.01", "10.0.0.1 ", "1.2.3.4.5", "fe80::1%eth0", "::1/128", "1::2::3",
                           "localhost", "0x0a.0.0.1", "00000000000000000000000000000000000000000000000000000000000000"}) {
    EXPECT_FALSE(IpAddress::Parse(text)) << text;
  }
  EXPECT_FALSE(IpAddress::Parse(std::string_view("10.0.0.1\0", 9)));
}

TEST(IpAddressTest, MappedAddressIsTheIpv4One) {
  const auto mapped = IpAddress::Parse("::ffff:10.0.0.7");
  ASSERT_TRUE(mapped);
  EXPECT_TRUE(mapped->IsV4());
  EXPECT_EQ(*mapped, *IpAddress::Parse("10.0.0.7"));
  EXPECT_EQ(*mapped, IpAddress::V4({10, 0, 0, 7}));
  // Neither the deprecated compatible form nor a neighbour of the prefix is mapped.
  EXPECT_FALSE(IpAddress::Parse("::10.0.0.7")->IsV4());
  EXPECT_FALSE(IpAddress::Parse("::fffe:10.0.0.7")->IsV4());
}

TEST(IpAddressTest, Loopback) {
  EXPECT_TRUE(IpAddress::Parse("127.0.0.1")->IsLoopback());
  EXPECT_TRUE(IpAddress::Parse("127.255.0.9")->IsLoopback());
  EXPECT_TRUE(IpAddress::Parse("::1")->IsLoopback());
  EXPECT_TRUE(IpAddress::Parse("::ffff:127.0.0.1")->IsLoopback());
  EXPECT_FALSE(IpAddress::Parse("128.0.0.1")->IsLoopback());
  EXPECT_FALSE(IpAddress::Parse("::2")->IsLoopback());
  EXPECT_FALSE(IpAddress::Parse("1::1")->IsLoopback());
}

TEST(IpAddressTest, FromSockaddr) {
  sockaddr_storage storage{};
  auto& in = reinterpret_cast<sockaddr_in&>(storage);
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(0x0a010203);
  EXPECT_EQ(IpAddress::FromSockaddr(reinterpret_cast<sockaddr&>(storage)), IpAddress::Parse("10.1.2.3"));
  storage = {};
  auto& in6 = reinterpret_cast<sockaddr_in6&>(storage);
  in6.sin6_family = AF_INET6;
  inet_pton(AF_INET6, "::ffff:10.1.2.3", &in6.sin6_addr);
  EXPECT_EQ(IpAddress::FromSockaddr(reinterpret_cast<sockaddr&>(storage)), IpAddress::Parse("10.1.2.3"));
  inet_pton(AF_INET6, "fd00::5", &in6.sin6_addr);
  EXPECT_EQ(IpAddress::FromSockaddr(reinterpret_cast<sockaddr&>(storage)), IpAddress::Parse("fd00::5"));
  storage = {};
  storage.ss_family = AF_UNIX;
  EXPECT_FALSE(IpAddress::FromSockaddr(reinterpret_cast<sockaddr&>(storage)));
}

}  // namespace
}  // namespace vsocket::model
