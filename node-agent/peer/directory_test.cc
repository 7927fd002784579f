#include "node-agent/peer/directory.h"

#include <gtest/gtest.h>

namespace vsocket::peer {
namespace {

model::IpAddress Ip(const char* text) {
  return *model::IpAddress::Parse(text);
}

model::Pod PodOf(const std::string& name, const std::string& node, const char* ip) {
  model::Pod pod;
  pod.ns = "shop";
  pod.name = name;
  pod.node = node;
  pod.ips = {Ip(ip)};
  return pod;
}

TEST(DirectoryTest, PodsAreWhereTheyAre) {
  model::ClusterState state;
  state.pods.emplace_back(PodOf("a", "n1", "10.1.0.1"));
  model::Pod finished = PodOf("done", "n1", "10.1.0.2"), host = PodOf("host", "n1", "10.1.0.3");
  finished.finished = true;
  host.host_network = true;
  state.pods.emplace_back(finished);
  state.pods.emplace_back(host);
  state.pods.emplace_back(PodOf("nowhere", "", "10.1.0.4"));
  const Directory directory(state);
  EXPECT_EQ(directory.PodAt(Ip("10.1.0.1")), (model::PodPlace{"n1", "shop/a"}));
  for (const char* nobody : {"10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5"}) EXPECT_FALSE(directory.PodAt(Ip(nobody))) << nobody;
}

TEST(DirectoryTest, AnAddressOfTwoPodsIsNobodys) {
  model::ClusterState state;
  state.pods.emplace_back(PodOf("old", "n1", "10.1.0.1"));
  state.pods.emplace_back(PodOf("new", "n2", "10.1.0.1"));
  EXPECT_FALSE(Directory(state).PodAt(Ip("10.1.0.1")));
}

TEST(DirectoryTest, AgentsAreWhereTheNodesSay) {
  model::ClusterState state;
  state.nodes = {{"n1", {Ip("10.77.0.1"), Ip("10.77.0.9")}, {}, ""},
                 {"n2", {Ip("fd00::2")}, {}, ""},
                 {"n3", {Ip("10.77.0.3")}, {}, "10.88.0.3:1234"},
                 {"n4", {}, {}, ""}};
  const Directory directory(state);
  ASSERT_EQ(directory.Nodes().size(), 3U) << "one without an address has no agent that could be called";
  EXPECT_EQ(directory.Find("n1")->endpoint, "10.77.0.1:9810");
  EXPECT_EQ(directory.Find("n2")->endpoint, "[fd00::2]:9810");
  EXPECT_EQ(directory.Find("n3")->endpoint, "10.88.0.3:1234");
  EXPECT_EQ(directory.Find("n4"), nullptr);
  EXPECT_TRUE(directory.IsAddressOf("n1", Ip("10.77.0.9")));
  EXPECT_FALSE(directory.IsAddressOf("n2", Ip("10.77.0.9")));
  EXPECT_FALSE(directory.IsAddressOf("n5", Ip("10.77.0.9")));
}

}  // namespace
}  // namespace vsocket::peer
