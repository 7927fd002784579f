#include "node-agent/broker/pending_table.h"

#include <gtest/gtest.h>

namespace vsocket::broker {
namespace {

PendingEnd Asker(std::uint64_t cookie, SessionId session, const char* local, std::uint16_t local_port, const char* remote,
                 std::uint16_t remote_port, std::uint64_t netns = 1) {
  PendingEnd pending;
  pending.end.cookie = cookie;
  pending.end.session = session;
  pending.end.pod = "pod";
  pending.end.netns_cookie = netns;
  pending.end.tuple = {{*model::IpAddress::Parse(local), local_port}, {*model::IpAddress::Parse(remote), remote_port}};
  return pending;
}

TEST(PendingTable, MatchesMirroredTuplesOnce) {
  PendingTable table;
  table.Add(Asker(1, 10, "10.0.0.1", 40000, "10.0.0.2", 80));
  EXPECT_FALSE(table.TakeMirrorOf(Asker(2, 11, "10.0.0.2", 81, "10.0.0.1", 40000).end));
  const auto other = Asker(2, 11, "10.0.0.2", 80, "10.0.0.1", 40000, 2);  // another namespace: pod addresses are the node's own
  const auto taken = table.TakeMirrorOf(other.end);
  ASSERT_TRUE(taken);
  EXPECT_EQ(taken->end.cookie, 1U);
  EXPECT_FALSE(table.TakeMirrorOf(other.end));
  EXPECT_EQ(table.Size(), 0U);
  EXPECT_EQ(table.OfSession(10), 0U);
}

TEST(PendingTable, LoopbackStaysInItsNamespace) {
  PendingTable table;
  table.Add(Asker(1, 10, "127.0.0.1", 40000, "127.0.0.1", 80, 1));
  EXPECT_FALSE(table.TakeMirrorOf(Asker(2, 11, "127.0.0.1", 80, "127.0.0.1", 40000, 2).end));
  EXPECT_TRUE(table.TakeMirrorOf(Asker(3, 11, "127.0.0.1", 80, "127.0.0.1", 40000, 1).end));
}

TEST(PendingTable, MappedIPv6IsIPv4) {
  PendingTable table;
  table.Add(Asker(1, 10, "::ffff:10.0.0.1", 40000, "::ffff:10.0.0.2", 80));
  EXPECT_TRUE(table.TakeMirrorOf(Asker(2, 11, "10.0.0.2", 80, "10.0.0.1", 40000).end));
}

TEST(PendingTable, ASocketConnectedToItselfHasNoSecondEnd) {
  PendingTable table;
  const auto self = Asker(1, 10, "127.0.0.1", 5000, "127.0.0.1", 5000);
  table.Add(self);
  EXPECT_FALSE(table.TakeMirrorOf(self.end));
}

TEST(PendingTable, ReplacesWhatMustBeDead) {
  PendingTable table;
  table.Add(Asker(1, 10, "10.0.0.1", 40000, "10.0.0.2", 80));
  table.Add(Asker(1, 10, "10.0.0.1", 40000, "10.0.0.2", 80));
  EXPECT_EQ(table.OfSession(10), 1U);
  table.Add(Asker(2, 11, "10.0.0.1", 40000, "10.0.0.2", 80));
  EXPECT_EQ(table.Size(), 1U);
  EXPECT_EQ(table.Find(1), nullptr);
  ASSERT_NE(table.Find(2), nullptr);
  EXPECT_EQ(table.OfPod("pod"), 1U);
}

TEST(PendingTable, ForgetsASession) {
  PendingTable table;
  table.Add(Asker(1, 10, "10.0.0.1", 1, "10.0.0.2", 80));
  table.Add(Asker(2, 11, "10.0.0.1", 2, "10.0.0.2", 80));
  table.Add(Asker(3, 10, "10.0.0.1", 3, "10.0.0.2", 80));
  table.RemoveSession(10);
  EXPECT_EQ(table.Size(), 1U);
  EXPECT_NE(table.Find(2), nullptr);
  EXPECT_EQ(table.OfPod("pod"), 1U);
}

}  // namespace
}  // namespace vsocket::broker
