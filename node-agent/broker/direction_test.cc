#include "node-agent/broker/direction.h"

#include <gtest/gtest.h>

namespace vsocket::broker {
namespace {

Tuple Between(std::uint16_t local, std::uint16_t remote) {
  return {{*model::IpAddress::Parse("10.0.0.1"), local}, {*model::IpAddress::Parse("10.0.0.2"), remote}};
}

TEST(Direction, ListenerIsTheServer) {
  EndEvidence listens;
  listens.listens = true;
  EXPECT_TRUE(FirstEndOpened(Between(80, 40000), {}, listens)) << "against what the ports suggest";
  EXPECT_FALSE(FirstEndOpened(Between(40000, 80), listens, {}));
}

TEST(Direction, TheSynCountsOneByteMore) {
  EndEvidence a;
  EndEvidence b;
  a.counted = b.counted = true;
  a.bytes_acked = 101;
  b.bytes_received = 100;
  EXPECT_TRUE(FirstEndOpened(Between(80, 40000), a, b));
  b.bytes_received = 101;
  EXPECT_FALSE(FirstEndOpened(Between(80, 40000), a, b)) << "says nothing: the ports decide";
}

TEST(Direction, PortsDecideWhenNothingElseDoes) {
  EXPECT_TRUE(FirstEndOpened(Between(40000, 80), {}, {}));
  EXPECT_FALSE(FirstEndOpened(Between(80, 40000), {}, {}));
  EXPECT_TRUE(FirstEndOpened(Between(50000, 40000), {}, {}));
  EndEvidence both;
  both.listens = true;
  EXPECT_FALSE(FirstEndOpened(Between(80, 8080), both, both));
}

TEST(Direction, FlowGoesFromClientToServer) {
  const model::Flow flow = FlowOf(Between(80, 40000), false);
  EXPECT_EQ(flow.source.ToString(), "10.0.0.2");
  EXPECT_EQ(flow.destination.ToString(), "10.0.0.1");
  EXPECT_EQ(flow.destination_port, 80);
}

}  // namespace
}  // namespace vsocket::broker
