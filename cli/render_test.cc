// What people read and what programs parse.
#include "cli/render.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace vsocket::cli {
namespace {

using nlohmann::json;

v1::Connection Connection(const std::string& pod, std::uint32_t port) {
  v1::Connection c;
  c.set_pod(pod);
  c.set_program("redis-server");
  c.set_pid(42);
  c.set_local_ip("10.1.0.2");
  c.set_local_port(port);
  c.set_remote_ip("fd00::3");
  c.set_remote_port(50000);
  c.set_cookie(18446744073709551615U);
  return c;
}

TEST(RenderConnections, StatesBytesAndReasons) {
  v1::Connection ring = Connection("default/redis", 6379);
  ring.set_state(v1::CONNECTION_STATE_RING);
  ring.set_remote_pod("default/client");
  ring.set_tcp_sent(100);
  ring.set_tcp_received(2048);
  ring.set_ring_sent(5U << 20U);
  v1::Connection tcp = Connection("default/redis", 6378);
  tcp.set_state(v1::CONNECTION_STATE_TCP);
  tcp.set_reason(5);
  tcp.set_reason_text("a NetworkPolicy does not allow this connection");
  EXPECT_EQ(
      RenderConnections({ring, tcp}, Format::kTable),
      "POD            PROGRAM           LOCAL          REMOTE           REMOTE POD      STATE  TCP OUT / IN     RING OUT / IN  WHY NOT "
      "ACCELERATED\n"
      "default/redis  redis-server[42]  10.1.0.2:6378  [fd00::3]:50000  -               tcp    -                -              a "
      "NetworkPolicy does not allow this connection\n"
      "default/redis  redis-server[42]  10.1.0.2:6379  [fd00::3]:50000  default/client  ring   100 B / 2.0 KiB  5.0 MiB / 0 B  -\n");

  const json list = json::parse(RenderConnections({ring, tcp}, Format::kJson))["connections"];
  ASSERT_EQ(list.size(), 2U);
  EXPECT_EQ(list[0]["state"], "tcp");
  EXPECT_EQ(list[0]["reason"], 5);
  EXPECT_EQ(list[0]["reason_text"], "a NetworkPolicy does not allow this connection");
  EXPECT_EQ(list[1]["state"], "ring");
  EXPECT_EQ(list[1]["ring_sent"], 5 << 20);
  EXPECT_EQ(list[1]["remote_pod"], "default/client");
  EXPECT_EQ(list[1]["cookie"], 18446744073709551615U);
}

TEST(RenderConnections, NoneIsSaidInWordsAndAnEmptyList) {
  EXPECT_EQ(RenderConnections({}, Format::kTable), "no connections\n");
  EXPECT_EQ(json::parse(RenderConnections({}, Format::kJson)), json::parse(R"({"connections": []})"));
}

TEST(RenderConnections, WatchedJsonIsALineEachTime) {
  const std::string text = RenderConnections({Connection("a/b", 1), Connection("a/b", 2)}, Format::kJson, true);
  EXPECT_EQ(text.find('\n'), text.size() - 1);
  EXPECT_EQ(json::parse(text)["connections"].size(), 2U);
}

TEST(RenderConnections, AProgramsNameCannotDriveTheTerminalOrBreakTheJson) {
  v1::Connection c = Connection("a/b", 1);
  c.set_program("x\033[2J\n");
  EXPECT_EQ(RenderConnections({c}, Format::kTable).find('\033'), std::string::npos);
  EXPECT_EQ(json::parse(RenderConnections({c}, Format::kJson))["connections"][0]["program"], "x\033[2J\n");
}

TEST(RenderConnections, ALimitIsShown) {
  v1::Connection c;
  c.set_state(v1::CONNECTION_STATE_RING);
  c.set_limited_by("egress-bandwidth 10M");
  EXPECT_NE(RenderConnections({c}, Format::kTable).find("(limited by egress-bandwidth 10M)"), std::string::npos);
  EXPECT_EQ(json::parse(RenderConnections({c}, Format::kJson))["connections"][0]["limited_by"], "egress-bandwidth 10M");
}

TEST(RenderPods, TableAndJson) {
  v1::PodStatus status;
  status.mutable_pod()->set_namespace_("shop");
  status.mutable_pod()->set_name("web");
  status.mutable_pod()->add_ips("10.1.0.2");
  status.mutable_pod()->add_ips("fd00::2");
  status.set_socket_dir("/run/vsocket/pods/u");
  status.set_processes(3);
  status.set_channels(12);
  status.set_channel_bytes(1U << 20U);
  status.set_isolated_ingress(true);
  status.set_ingress_bandwidth("10M");
  status.set_egress_bandwidth("1G");
  EXPECT_EQ(RenderPods({status}, Format::kTable),
            "NAMESPACE  NAME  ADDRESSES          PROCESSES  CHANNELS   MEMORY  ISOLATED  BANDWIDTH       SOCKET DIRECTORY\n"
            "shop       web   10.1.0.2, fd00::2          3        12  1.0 MiB  ingress   in 10M, out 1G  /run/vsocket/pods/u\n");
  const json list = json::parse(RenderPods({status}, Format::kJson))["pods"];
  EXPECT_EQ(list[0]["ips"], json({"10.1.0.2", "fd00::2"}));
  EXPECT_EQ(list[0]["isolated"]["egress"], false);
  EXPECT_EQ(list[0]["bandwidth"]["egress"], "1G");
  status.set_bandwidth_problem("\"fast\" is not a quantity");
  EXPECT_NE(RenderPods({status}, Format::kTable).find("NOT UNDERSTOOD"), std::string::npos);
  EXPECT_EQ(RenderPods({}, Format::kTable), "no pods on this node\n");
}

TEST(RenderStatus, ProblemsAreShownWithTheirPlace) {
  v1::StatusResponse status;
  status.set_ready(true);
  status.set_version("0.1.0");
  status.set_uptime_seconds(192);
  status.set_source("dir:/etc/vsocket");
  status.set_revision(7);
  status.set_pods(2);
  status.set_processes(3);
  status.set_channels(4);
  status.set_regions(1);
  status.set_upgrades(9);
  v1::SourceProblem* problem = status.add_problems();
  problem->set_where("policies.yaml:12");
  problem->set_what("unknown field");
  status.mutable_enforcement()->set_asked("auto");
  status.mutable_enforcement()->set_in_force("both");
  status.mutable_enforcement()->set_why("no policy agent runs here");
  v1::Condition* condition = status.add_conditions();
  condition->set_type("PacketFilterNotSet");
  condition->set_subject("pod shop/web");
  condition->set_what("nft refused");
  EXPECT_EQ(RenderStatus(status, Format::kTable),
            "agent:     ready, version 0.1.0, up 3m12s\n"
            "source:    dir:/etc/vsocket, revision 7\n"
            "policies:  enforced on rings and, with nftables, on the kernel's path (auto: no policy agent runs here)\n"
            "pods:      2, with 3 connected processes\n"
            "channels:  4 in 1 regions\n"
            "since start: 9 upgrades, 0 denials, 0 revocations\n"
            "problems:\n"
            "  policies.yaml:12: unknown field\n"
            "conditions:\n"
            "  PacketFilterNotSet, pod shop/web: nft refused\n");
  const json object = json::parse(RenderStatus(status, Format::kJson));
  EXPECT_EQ(object["upgrades"], 9);
  EXPECT_EQ(object["problems"][0]["where"], "policies.yaml:12");
  EXPECT_EQ(object["enforcement"]["in_force"], "both");
  EXPECT_EQ(object["conditions"][0]["subject"], "pod shop/web");
  status.set_ready(false);
  EXPECT_NE(RenderStatus(status, Format::kTable).find("NOT READY"), std::string::npos);
}

}  // namespace
}  // namespace vsocket::cli
