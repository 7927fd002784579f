#include "cli/arguments.h"

#include <gtest/gtest.h>

namespace vsocket::cli {
namespace {

TEST(ParsePod, NameOrNamespaceAndName) {
  EXPECT_EQ(ParsePod("web"), "default/web");
  EXPECT_EQ(ParsePod("shop/web-1.a"), "shop/web-1.a");
  EXPECT_EQ(ParsePod("_cni/0123abc"), "_cni/0123abc");
  for (const char* bad : {"", "/", "a/", "/b", "a/b/c", "a b", "..", "a/..", "web:80", "a\n"}) EXPECT_FALSE(ParsePod(bad)) << bad;
}

TEST(ParsePodPort, NumberOrName) {
  const auto number = ParsePodPort("shop/redis:6379");
  ASSERT_TRUE(number);
  EXPECT_EQ(number->pod, "shop/redis");
  EXPECT_EQ(number->port, "6379");
  const auto name = ParsePodPort("redis:db-port");
  ASSERT_TRUE(name);
  EXPECT_EQ(name->pod, "default/redis");
  EXPECT_EQ(name->port, "db-port");
  for (const char* with_protocol : {"53/udp", "dns/UDP", "80/tcp", "9/Sctp"}) {
    const auto parsed = ParsePodPort(std::string("kube-system/dns:") + with_protocol);
    ASSERT_TRUE(parsed) << with_protocol;
    EXPECT_EQ(parsed->pod, "kube-system/dns");
    EXPECT_EQ(parsed->port, with_protocol);
  }
  for (const char* bad : {"", "redis", "redis:", ":80", "redis:0", "redis:65536", "redis:999999999999", "redis:80:90", "redis:-1",
                          "redis:a b", "redis:53/", "redis:53/icmp", "redis:/udp", "redis:53/udp/tcp"}) {
    EXPECT_FALSE(ParsePodPort(bad)) << bad;
  }
}

}  // namespace
}  // namespace vsocket::cli
