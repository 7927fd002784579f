#include "node-agent/policy/local_addresses.h"

#include <gtest/gtest.h>

#include "node-agent/policy/testing/builders.h"

namespace vsocket::policy {
namespace {

using namespace testing;  // NOLINT: the builders are this file's language

model::LocalPod Wired(const std::string& ns, const std::string& name, const std::string& uid, const std::string& ip) {
  model::LocalPod pod;
  pod.ns = ns;
  pod.name = name;
  pod.uid = uid;
  pod.ips = {Ip(ip)};
  return pod;
}

model::ClusterState One(const std::string& uid) {
  model::ClusterState state;
  model::Pod pod = MakePod("a", "web", "10.0.0.9", {{"app", "web"}});
  pod.uid = uid;
  pod.ips.clear();
  state.pods = {pod};
  state.revision = 7;
  return state;
}

TEST(LocalAddressesTest, FillsInAddressesByName) {
  const auto merged = WithLocalAddresses(One(""), {Wired("a", "web", "u1", "10.0.0.5")});
  ASSERT_EQ(merged.pods.size(), 1u);
  EXPECT_EQ(merged.pods[0].ips, std::vector{Ip("10.0.0.5")});
  EXPECT_EQ(merged.pods[0].uid, "u1");
  EXPECT_EQ(merged.pods[0].labels.at("app"), "web");
  EXPECT_EQ(merged.revision, 7u);
}

TEST(LocalAddressesTest, AnotherUidIsAnotherPod) {
  const auto merged = WithLocalAddresses(One("u0"), {Wired("a", "web", "u1", "10.0.0.5")});
  ASSERT_EQ(merged.pods.size(), 1u);
  EXPECT_EQ(merged.pods[0].uid, "u1");
  EXPECT_TRUE(merged.pods[0].labels.empty());  // the labels were the other pod's
  EXPECT_EQ(WithLocalAddresses(One("u1"), {Wired("a", "web", "u1", "10.0.0.5")}).pods[0].labels.size(), 1u);
}

TEST(LocalAddressesTest, AWiredPodWithoutAnObjectExistsUnlabelled) {
  const auto merged = WithLocalAddresses({}, {Wired("a", "new", "u1", "10.0.0.5")});
  ASSERT_EQ(merged.pods.size(), 1u);
  EXPECT_EQ(merged.pods[0].ns, "a");
  EXPECT_TRUE(merged.pods[0].labels.empty());
}

TEST(LocalAddressesTest, AWiredAddressIsTakenFromEveryOtherPod) {
  model::ClusterState state = One("");
  state.pods.push_back(MakePod("b", "impostor", "10.0.0.5"));
  const auto merged = WithLocalAddresses(state, {Wired("a", "web", "u1", "10.0.0.5")});
  EXPECT_TRUE(merged.pods[1].ips.empty());
  EXPECT_EQ(merged.pods[0].ips, std::vector{Ip("10.0.0.5")});
}

TEST(LocalAddressesTest, AnObjectThatSaysHostNetworkOfAWiredPodIsWrong) {
  model::ClusterState state = One("");
  state.pods[0].host_network = true;
  EXPECT_FALSE(WithLocalAddresses(state, {Wired("a", "web", "u1", "10.0.0.5")}).pods[0].host_network);
}

}  // namespace
}  // namespace vsocket::policy
