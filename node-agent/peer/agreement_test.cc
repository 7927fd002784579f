#include "node-agent/peer/agreement.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>

#include "node-agent/peer/testing/fake_host.h"

namespace vsocket::peer {
namespace {

using channel::Reason;
using testing::ClientEnd;
using testing::EndOf;
using testing::Ip;
using testing::ServerEnd;

constexpr std::uint64_t kSecond = 1'000'000'000;

// An agent of the test's: Agreement, its host, and what it has sent and nobody has received yet.
class Agent : public Outgoing {
 public:
  Agent(std::string name, const testing::FakeCluster& cluster, AgreementLimits limits = {})
      : agreement(std::move(name), limits, cluster, host, *this) {}
  void SendTo(const std::string&, const Message& message) override { sent.push_back(message); }

  testing::FakeHost host;
  std::deque<Message> sent;
  Agreement agreement;
};

class AgreementTest : public ::testing::Test {
 protected:
  void SetUp() override { Connect(); }

  void Connect() {
    Terms terms{1, 11, "", "verbs"};
    a.agreement.SessionOpened("b", terms);
    terms.far_instance = 10;
    b.agreement.SessionOpened("a", terms);
  }
  void Disconnect() {
    a.agreement.SessionLost("b", "broken", now);
    b.agreement.SessionLost("a", "broken", now);
    a.sent.clear();
    b.sent.clear();
  }
  bool DeliverOne(Agent& from, Agent& to, const std::string& node) {
    if (from.sent.empty()) return false;
    const Message message = from.sent.front();
    from.sent.pop_front();
    std::string why;
    EXPECT_TRUE(to.agreement.Receive(node, message, now, &why)) << why;
    return true;
  }
  // Until nobody has anything to say.
  void Talk() {
    while (DeliverOne(a, b, "a") || DeliverOne(b, a, "b")) {
    }
  }
  // What the far agent "b" must not say to "a".
  std::string Breach(const Message& message) {
    std::string why;
    EXPECT_FALSE(a.agreement.Receive("b", message, now, &why)) << "message " << message.index();
    return why;
  }
  void Say(const Message& message) {
    std::string why;
    EXPECT_TRUE(a.agreement.Receive("b", message, now, &why)) << why;
  }
  template <typename Kind>
  std::vector<Kind> SentByA() {
    std::vector<Kind> found;
    for (const Message& message : a.sent) {
      if (const auto* one = std::get_if<Kind>(&message)) found.push_back(*one);
    }
    return found;
  }
  void Grant(std::uint16_t port = 40000) {
    EXPECT_FALSE(a.agreement.Ask(ClientEnd(port), now));
    EXPECT_FALSE(b.agreement.Ask(ServerEnd(port), now));
    Talk();
  }

  testing::FakeCluster cluster = testing::TwoNodes();
  Agent a{"a", cluster}, b{"b", cluster};
  std::uint64_t now = 1;
};

TEST_F(AgreementTest, TwoEndsBecomeAChannelInWhicheverOrderTheyAsk) {
  for (const bool leader_first : {true, false}) {
    const std::uint16_t port = leader_first ? 40001 : 40002;
    const auto before = a.host.granted.size();
    EXPECT_FALSE(leader_first ? a.agreement.Ask(ClientEnd(port), now) : b.agreement.Ask(ServerEnd(port), now));
    Talk();
    EXPECT_EQ(a.host.granted.size(), before);
    EXPECT_FALSE(leader_first ? b.agreement.Ask(ServerEnd(port), now) : a.agreement.Ask(ClientEnd(port), now));
    Talk();
    const std::uint64_t number = leader_first ? 1 : 2;
    EXPECT_TRUE(a.host.granted.contains({"b", number}));
    EXPECT_TRUE(b.host.granted.contains({"a", number}));
    EXPECT_EQ((a.host.far_setups[{"b", number}]), "verbs of shop/b1");
    EXPECT_EQ((b.host.far_setups[{"a", number}]), "verbs of shop/a1");
  }
  EXPECT_EQ(a.agreement.Waiting() + b.agreement.Waiting(), 0U);
  EXPECT_EQ(a.agreement.OffersOf("b") + b.agreement.OffersOf("a"), 0U);
}

TEST_F(AgreementTest, EachSideJudgesBeforeAnythingIsMade) {
  Grant();
  EXPECT_TRUE(a.host.Heard("judge shop/a1 with shop/b1"));
  EXPECT_TRUE(b.host.Heard("judge shop/b1 with shop/a1"));
}

TEST_F(AgreementTest, TheLeadersPolicyIsEnoughToRefuse) {
  a.host.judgement = model::PeerRefusal{Reason::kPolicy, "policy shop/none", 5000};
  Grant();
  EXPECT_TRUE(a.host.prepared.empty() && b.host.prepared.empty());
  EXPECT_TRUE(a.host.Heard("refused shop/a1: policy shop/none"));
  EXPECT_TRUE(b.host.Heard("refused shop/b1: node a: policy shop/none"));
  EXPECT_EQ(b.host.refusals.at(0).retry_after_ms, 5000U);
  EXPECT_EQ(a.agreement.OffersOf("b") + b.agreement.OffersOf("a") + a.agreement.Waiting() + b.agreement.Waiting(), 0U);
}

TEST_F(AgreementTest, TheOthersPolicyIsEnoughToRefuse) {
  b.host.judgement = model::PeerRefusal{Reason::kPolicy, "policy shop/none", 5000};
  Grant();
  EXPECT_TRUE(a.host.prepared.empty() && b.host.prepared.empty());
  EXPECT_TRUE(a.host.Heard("closed b/1: node b: policy shop/none"));
  EXPECT_TRUE(b.host.Heard("refused shop/b1: policy shop/none"));
  EXPECT_EQ(a.agreement.ChannelsOf("b") + b.agreement.ChannelsOf("a"), 0U);
}

TEST_F(AgreementTest, MemoryThatCannotBeHadRefusesBoth) {
  b.host.can_prepare = false;
  Grant(40001);
  EXPECT_TRUE(a.host.prepared.empty());
  EXPECT_TRUE(b.host.Heard("refused shop/b1: no memory"));
  b.host.can_prepare = true;
  a.host.can_complete = false;
  Grant(40002);
  EXPECT_TRUE(a.host.prepared.empty() && b.host.prepared.empty());
  EXPECT_TRUE(b.host.granted.empty());
}

TEST_F(AgreementTest, AServicesAddressIsMatchedByWhatTheWireHas) {
  model::PeerEnd client = EndOf("a1", "10.1.0.1", 40000, "172.20.0.10", 8080);
  client.wire.remote = {Ip("10.2.0.1"), 80};
  EXPECT_FALSE(a.agreement.Ask(client, now));
  EXPECT_FALSE(b.agreement.Ask(ServerEnd(), now));
  Talk();
  EXPECT_EQ(a.host.granted.size(), 1U);
}

TEST_F(AgreementTest, ASourceThatIsMasqueradedMustBeTheNodesOwn) {
  model::PeerEnd client = ClientEnd();
  client.wire.local = {Ip("192.168.0.1"), 50000};
  model::PeerEnd server = EndOf("b1", "10.2.0.1", 80, "192.168.0.1", 50000);
  EXPECT_FALSE(a.agreement.Ask(client, now));
  // The server's own cluster state knows the address as a node's, no pod's: whoever calls Ask gives the wire as that node has it.
  server.wire.remote = {Ip("192.168.0.1"), 50000};
  EXPECT_TRUE(b.agreement.Ask(server, now)) << "no pod is known behind a node's address";
  client.wire.local = {Ip("9.9.9.9"), 50000};
  EXPECT_FALSE(a.agreement.Ask(client, now));
  Talk();
  EXPECT_EQ(b.agreement.Counters().refused_foreign, 1U);
  EXPECT_TRUE(a.host.Heard("9.9.9.9 is not an address of node a"));
}

TEST_F(AgreementTest, AnEndWhoseOtherEndIsNoPodOfAnotherNodeIsRefusedAtOnce) {
  EXPECT_EQ(a.agreement.Ask(EndOf("a1", "10.1.0.1", 1, "8.8.8.8", 53), now)->reason, Reason::kPeerSilent);
  EXPECT_EQ(a.agreement.Ask(EndOf("a1", "10.1.0.1", 1, "10.1.0.2", 53), now)->reason, Reason::kNotPodAddress);
  EXPECT_TRUE(a.sent.size() == 1 && std::holds_alternative<Resume>(a.sent[0]));
}

TEST_F(AgreementTest, NothingInCommonIsARefusalWithThatReason) {
  Agent c{"a", cluster};
  EXPECT_FALSE(c.agreement.Ask(ClientEnd(1), now)) << "it waits for the other agent to come";
  c.agreement.SessionOpened("b", Terms{1, 5, "", ""});
  EXPECT_EQ(c.host.refusals.at(0).reason, Reason::kNoPeer);
  EXPECT_EQ(c.agreement.Ask(ClientEnd(2), now)->reason, Reason::kNoPeer);
}

TEST_F(AgreementTest, WhatIsWithdrawnIsNotMatched) {
  EXPECT_FALSE(b.agreement.Ask(ServerEnd(), now));
  Talk();
  EXPECT_EQ(a.agreement.OffersOf("b"), 1U);
  b.agreement.TakeBack(7, 140000);
  Talk();
  EXPECT_EQ(a.agreement.OffersOf("b"), 0U);
  EXPECT_FALSE(a.agreement.Ask(ClientEnd(), now));
  Talk();
  EXPECT_TRUE(a.host.granted.empty());
}

TEST_F(AgreementTest, AWithdrawalThatCrossesTheAcceptanceEndsIt) {
  EXPECT_FALSE(b.agreement.Ask(ServerEnd(), now));
  Talk();
  EXPECT_FALSE(a.agreement.Ask(ClientEnd(), now));  // accepts
  b.agreement.TakeBack(7, 140000);                  // before that has arrived
  Talk();
  EXPECT_TRUE(a.host.granted.empty() && b.host.granted.empty() && a.host.prepared.empty() && b.host.prepared.empty());
  EXPECT_TRUE(a.host.Heard("the other end has been withdrawn"));
}

TEST_F(AgreementTest, EitherSideCloses) {
  Grant(40001);
  Grant(40002);
  a.agreement.CloseChannel({"b", 1}, Reason::kClosing);
  b.agreement.CloseChannel({"a", 2}, Reason::kRevoked);
  Talk();
  EXPECT_TRUE(a.host.prepared.empty() && b.host.prepared.empty());
  EXPECT_EQ(a.agreement.ChannelsOf("b") + b.agreement.ChannelsOf("a"), 0U);
  Grant(40001);
  EXPECT_TRUE(a.host.granted.contains({"b", 3})) << "and the same connection goes up again";
}

TEST_F(AgreementTest, TwoClosesThatCrossAreNoBreach) {
  Grant();
  a.agreement.CloseChannel({"b", 1}, Reason::kClosing);
  b.agreement.CloseChannel({"a", 1}, Reason::kClosing);
  Talk();
  EXPECT_TRUE(a.host.prepared.empty() && b.host.prepared.empty());
}

TEST_F(AgreementTest, NotesPassOnChannelsInUse) {
  Grant();
  const model::PeerNote note{model::PeerNote::Kind::kEofAnswer, 3, 1234567, 2};
  b.agreement.Send({"a", 1}, note);
  Talk();
  EXPECT_EQ(a.host.notes, std::vector{note});
  a.agreement.CloseChannel({"b", 1}, Reason::kClosing);
  b.agreement.Send({"a", 1}, note);
  Talk();
  EXPECT_EQ(a.host.notes.size(), 1U) << "one that crosses the close is forgotten";
}

TEST_F(AgreementTest, AChangeOfPolicyClosesWhatItForbids) {
  Grant();
  b.host.judgement = model::PeerRefusal{Reason::kPolicy, "changed", 5000};
  b.agreement.Reconsider();
  Talk();
  EXPECT_TRUE(a.host.prepared.empty() && b.host.prepared.empty());
}

TEST_F(AgreementTest, APodThatHasMovedIsNotTheFarNodesAnyMore) {
  Grant();
  cluster.pods[Ip("10.2.0.1")].node = "c";
  a.agreement.Reconsider();
  EXPECT_TRUE(a.host.prepared.empty());
}

// --- the stream goes ---

TEST_F(AgreementTest, ChannelsInUseOutliveTheStreamAndAreResumed) {
  Grant();
  Disconnect();
  EXPECT_EQ(a.host.prepared.size(), 1U);
  now += 2 * kSecond;
  Connect();
  Talk();
  a.agreement.Tick(now + 60 * kSecond);
  EXPECT_EQ(a.host.granted.size(), 1U);
  Grant(40001);
  EXPECT_EQ(b.host.granted.size(), 2U);
}

TEST_F(AgreementTest, WithoutAStreamForTooLongTheyEnd) {
  Grant();
  Disconnect();
  EXPECT_EQ(a.agreement.NextTick(), now + 10 * kSecond);
  now += 10 * kSecond;
  a.agreement.Tick(now);
  EXPECT_TRUE(a.host.prepared.empty());
  Connect();
  Talk();
  EXPECT_TRUE(b.host.prepared.empty()) << "the other side hears that it is alone with it";
}

TEST_F(AgreementTest, ARestartedAgentKnowsNoChannels) {
  Grant();
  Disconnect();
  Agent fresh{"b", cluster};
  a.agreement.SessionOpened("b", Terms{1, 12, "", "verbs"});
  fresh.agreement.SessionOpened("a", Terms{1, 10, "", "verbs"});
  EXPECT_TRUE(a.host.Heard("closed b/1: the agent of node b has been restarted"));
  EXPECT_FALSE(fresh.agreement.Ask(ServerEnd(), now));
  EXPECT_FALSE(a.agreement.Ask(ClientEnd(), now));
  while (DeliverOne(a, fresh, "a") || DeliverOne(fresh, a, "b")) {
  }
  EXPECT_EQ(fresh.host.granted.size(), 1U);
}

TEST_F(AgreementTest, ARestartedLeaderCountsAnew) {
  Grant();
  Disconnect();
  Agent fresh{"a", cluster};
  fresh.agreement.SessionOpened("b", Terms{1, 11, "", "verbs"});
  b.agreement.SessionOpened("a", Terms{1, 77, "", "verbs"});
  EXPECT_FALSE(fresh.agreement.Ask(ClientEnd(), now));
  EXPECT_FALSE(b.agreement.Ask(ServerEnd(), now));
  while (DeliverOne(fresh, b, "a") || DeliverOne(b, fresh, "b")) {
  }
  EXPECT_TRUE(b.host.granted.contains({"a", 1}));
}

TEST_F(AgreementTest, EndsThatWaitAreOfferedAgain) {
  EXPECT_FALSE(a.agreement.Ask(ClientEnd(), now));
  Talk();
  Disconnect();
  EXPECT_EQ(b.agreement.OffersOf("a"), 0U);
  EXPECT_FALSE(b.agreement.Ask(ServerEnd(), now));
  Connect();
  Talk();
  EXPECT_EQ(a.host.granted.size(), 1U);
}

TEST_F(AgreementTest, AStreamThatBreaksAtAnyMomentLeavesNothingBehind) {
  for (int cut = 0; cut < 12; ++cut) {
    const auto port = static_cast<std::uint16_t>(41000 + cut);
    EXPECT_FALSE(a.agreement.Ask(ClientEnd(port), now));
    EXPECT_FALSE(b.agreement.Ask(ServerEnd(port), now));
    for (int i = 0; i < cut; ++i) DeliverOne(i % 2 == 0 ? a : b, i % 2 == 0 ? b : a, i % 2 == 0 ? "a" : "b");
    Disconnect();
    Connect();
    Talk();
    a.agreement.TakeBack(7, port);
    b.agreement.TakeBack(7, 100000U + port);
    Talk();
    EXPECT_TRUE(a.host.prepared.empty() && b.host.prepared.empty()) << cut;
    EXPECT_EQ(a.agreement.Waiting() + b.agreement.Waiting() + a.agreement.OffersOf("b") + b.agreement.OffersOf("a"), 0U) << cut;
  }
}

TEST_F(AgreementTest, AnAnswerThatDoesNotComeIsNotWaitedForForEver) {
  EXPECT_FALSE(a.agreement.Ask(ClientEnd(), now));
  EXPECT_FALSE(b.agreement.Ask(ServerEnd(), now));
  while (a.host.prepared.empty()) ASSERT_TRUE(DeliverOne(b, a, "b"));
  EXPECT_EQ(a.agreement.NextTick(), now + 5 * kSecond);
  now += 5 * kSecond;
  a.agreement.Tick(now);
  EXPECT_TRUE(a.host.Heard("closed b/1: the agent of node b does not answer"));
  Talk();  // what was on its way crosses the abort
  EXPECT_TRUE(a.host.prepared.empty() && b.host.prepared.empty());
}

// --- a far agent that does as it likes ---

class HostileTest : public AgreementTest {
 protected:
  void SetUp() override {
    AgreementTest::SetUp();
    Talk();
  }
  std::string RefusalOf(const Offer& offer) {
    a.sent.clear();
    Say(offer);
    const auto refusals = SentByA<Refuse>();
    return refusals.empty() ? "" : refusals[0].text;
  }
};

TEST_F(HostileTest, OffersOfPodsThatAreNotItsOwn) {
  EXPECT_NE(RefusalOf({1, EndOf("a2", "10.1.0.2", 80, "10.1.0.1", 40000)}).find("is not known to be pod shop/a2 on node b"),
            std::string::npos);
  EXPECT_NE(RefusalOf({2, EndOf("b2", "10.2.0.1", 80, "10.1.0.1", 40000)}).find("is not known to be pod shop/b2"), std::string::npos);
  EXPECT_NE(RefusalOf({3, EndOf("x", "7.7.7.7", 80, "10.1.0.1", 40000)}).find("is not known"), std::string::npos);
  EXPECT_EQ(a.agreement.Counters().refused_foreign, 3U);
  EXPECT_EQ(a.agreement.OffersOf("b"), 0U);
}

TEST_F(HostileTest, OffersToPodsOfOtherNodes) {
  cluster.pods[Ip("10.3.0.1")] = {"c", "shop/c1"};
  EXPECT_NE(RefusalOf({1, EndOf("b1", "10.2.0.1", 80, "10.3.0.1", 40000)}).find("10.3.0.1 is not on node a"), std::string::npos);
  EXPECT_NE(RefusalOf({2, EndOf("b1", "10.2.0.1", 80, "8.8.8.8", 40000)}).find("8.8.8.8 is not on node a"), std::string::npos);
}

TEST_F(HostileTest, AnEndOrASocketThatIsTaken) {
  Say(Offer{1, ServerEnd(40000, 500)});
  EXPECT_NE(RefusalOf({2, ServerEnd(40000, 501)}), "") << "the same connection with another socket";
  EXPECT_NE(RefusalOf({3, ServerEnd(40001, 500)}), "") << "another connection with the same socket";
  EXPECT_EQ(a.agreement.Counters().refused_double, 2U);
  EXPECT_EQ(RefusalOf({4, ServerEnd(40001, 501)}), "");
}

TEST_F(HostileTest, ASocketOfAChannelInUseIsTaken) {
  Grant();
  EXPECT_NE(RefusalOf({900, ServerEnd(40000, 777)}), "");
  EXPECT_NE(RefusalOf({901, ServerEnd(40009, 140000)}), "") << "the channel's cookie for another connection";
}

TEST_F(HostileTest, AClaimToAConnectionThatItsPodHasNot) {
  // Pod a1 is connected to b1. The far agent offers b2 as the other end: the addresses do not match, whatever cookie it writes.
  EXPECT_FALSE(a.agreement.Ask(ClientEnd(), now));
  Say(Offer{1, EndOf("b2", "10.2.0.2", 80, "10.1.0.1", 40000)});
  EXPECT_TRUE(a.host.prepared.empty());
  // With b1's addresses on the wire, but b2's pod behind them.
  model::PeerEnd end = EndOf("b2", "10.2.0.2", 80, "10.1.0.1", 40000, 9);
  end.wire.local = {Ip("10.2.0.1"), 80};
  EXPECT_NE(RefusalOf({2, end}), "");
  EXPECT_TRUE(a.host.prepared.empty());
}

TEST_F(HostileTest, AFloodIsRefusedAndCostsNoMemory) {
  AgreementLimits limits;
  limits.offers_per_peer = 100;
  Agent small{"a", cluster, limits};
  small.agreement.SessionOpened("b", Terms{1, 1, "", "verbs"});
  std::string why;
  ASSERT_TRUE(small.agreement.Receive("b", Resume{}, now, &why));
  for (std::uint16_t i = 1; i <= 10'000; ++i) {
    ASSERT_TRUE(small.agreement.Receive("b", Offer{i, ServerEnd(i)}, now, &why));
  }
  EXPECT_EQ(small.agreement.OffersOf("b"), 100U);
  EXPECT_EQ(small.agreement.Counters().refused_flood, 9900U);
}

TEST_F(HostileTest, TooManyChannelsAreRefused) {
  AgreementLimits limits;
  limits.channels_per_peer = 3;
  Agent small{"a", cluster, limits};
  small.agreement.SessionOpened("b", Terms{1, 11, "", "verbs"});
  Disconnect();
  b.agreement.SessionOpened("a", Terms{1, 99, "", "verbs"});
  for (std::uint16_t port = 1; port <= 5; ++port) {
    EXPECT_FALSE(small.agreement.Ask(ClientEnd(port), now));
    EXPECT_FALSE(b.agreement.Ask(ServerEnd(port), now));
  }
  while (DeliverOne(small, b, "a") || DeliverOne(b, small, "b")) {
  }
  EXPECT_EQ(small.host.granted.size(), 3U);
  EXPECT_EQ(small.host.refusals.size(), 2U);
  EXPECT_EQ(b.host.refusals.size(), 2U);
}

TEST_F(HostileTest, WhatBreaksTheProtocolEndsTheStream) {
  Grant();
  EXPECT_NE(Breach(Resume{}), "");
  EXPECT_NE(Breach(Offer{1, ServerEnd(5)}), "") << "an old number";
  EXPECT_NE(Breach(Withdraw{1000}), "");
  EXPECT_NE(Breach(Refuse{1000, Reason::kQuota, "", 0}), "");
  EXPECT_NE(Breach(Accept{99, 1, 1, "verbs", ""}), "") << "a channel that never was";
  EXPECT_NE(Breach(Accept{1, 1, 1, "verbs", ""}), "") << "a second answer";
  EXPECT_NE(Breach(Accept{1, 1, 1, "carrier pigeon", ""}), "");
  EXPECT_NE(Breach(Commit{1}), "") << "the leader commits";
  EXPECT_NE(Breach(Abort{50, Reason::kPolicy, ""}), "");
  EXPECT_NE(Breach(Close{50, Reason::kClosing}), "");
  EXPECT_NE(Breach(Note{50, {}}), "");
  EXPECT_NE(Breach(LinkSetup{"carrier pigeon", ""}), "");
  EXPECT_NE(Breach(Hello{}), "");
  EXPECT_TRUE(a.host.granted.contains({"b", 1})) << "and the channel that the honest have made is untouched";
}

TEST_F(HostileTest, AnAnswerToAnotherAcceptance) {
  EXPECT_FALSE(a.agreement.Ask(ClientEnd(1), now));
  EXPECT_FALSE(a.agreement.Ask(ClientEnd(2), now));
  Say(Offer{1, ServerEnd(1)});
  Say(Offer{2, ServerEnd(2)});
  const auto accepts = SentByA<Accept>();
  ASSERT_EQ(accepts.size(), 2U);
  EXPECT_NE(Breach(Accept{accepts[0].channel, accepts[1].other_offer, accepts[1].own_offer, "verbs", ""}), "");
}

TEST_F(HostileTest, ALeaderThatAcceptsWhatIsNotOneConnection) {
  // Here "a" is hostile and leads, and b is honest.
  EXPECT_FALSE(b.agreement.Ask(ServerEnd(1), now));
  EXPECT_FALSE(b.agreement.Ask(ServerEnd(2), now));
  const auto first = std::get<Offer>(b.sent[0]).offer;
  std::string why;
  ASSERT_TRUE(b.agreement.Receive("a", Offer{1, ClientEnd(1)}, now, &why)) << why;
  EXPECT_FALSE(b.agreement.Receive("a", Accept{1, 1, first + 1, "verbs", ""}, now, &why));
  EXPECT_TRUE(b.host.prepared.empty());
}

// Two honest agents, at random, with streams that break: at the end they agree about everything.
TEST_F(AgreementTest, RandomLivesEndInAgreement) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    Agent left{"a", cluster}, right{"b", cluster};
    a.sent.clear();
    std::uint64_t clock = 1;
    const auto connect = [&] {
      left.agreement.SessionOpened("b", Terms{1, 11, "", "verbs"});
      right.agreement.SessionOpened("a", Terms{1, 10, "", "verbs"});
    };
    const auto deliver = [&](Agent& from, Agent& to, const std::string& node) {
      if (from.sent.empty()) return false;
      const Message message = from.sent.front();
      from.sent.pop_front();
      std::string why;
      EXPECT_TRUE(to.agreement.Receive(node, message, clock, &why)) << why;
      return true;
    };
    connect();
    for (int step = 0; step < 200; ++step) {
      clock += kSecond / 20;
      const auto port = static_cast<std::uint16_t>(1 + random() % 4);
      switch (random() % 10) {
        case 0:
          EXPECT_FALSE(left.agreement.Ask(ClientEnd(port), clock));
          break;
        case 1:
          EXPECT_FALSE(right.agreement.Ask(ServerEnd(port), clock));
          break;
        case 2:
          if (random() % 2 == 0) left.agreement.TakeBack(7, port);
          break;
        case 3:
          if (random() % 2 == 0) right.agreement.TakeBack(7, 100000U + port);
          break;
        case 4:
          if (random() % 6 == 0) {
            left.agreement.SessionLost("b", "broken", clock);
            right.agreement.SessionLost("a", "broken", clock);
            left.sent.clear();
            right.sent.clear();
            connect();
          }
          break;
        case 5:
          left.agreement.Tick(clock);
          right.agreement.Tick(clock);
          break;
        default:
          random() % 2 == 0 ? deliver(left, right, "a") : deliver(right, left, "b");
      }
    }
    while (deliver(left, right, "a") || deliver(right, left, "b")) {
    }
    std::set<std::uint64_t> of_left, of_right;
    for (const auto& channel : left.host.granted) of_left.insert(channel.number);
    for (const auto& channel : right.host.granted) of_right.insert(channel.number);
    EXPECT_EQ(of_left, of_right);
    EXPECT_EQ(left.host.prepared.size(), left.host.granted.size());
    EXPECT_EQ(right.host.prepared.size(), right.host.granted.size());
    EXPECT_EQ(left.agreement.Waiting(), right.agreement.OffersOf("a"));
    EXPECT_EQ(right.agreement.Waiting(), left.agreement.OffersOf("b"));
  }
}

}  // namespace
}  // namespace vsocket::peer
