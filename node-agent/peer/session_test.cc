#include "node-agent/peer/session.h"

#include <gtest/gtest.h>

#include <memory>

#include "node-agent/peer/backoff.h"

namespace vsocket::peer {
namespace {

constexpr std::uint64_t kMs = 1'000'000;

class Sink : public SessionSink {
 public:
  void Send(const Message& message) override { sent.push_back(message); }
  void Opened(const Terms& settled) override {
    ++opened;
    terms = settled;
  }
  bool Deliver(const Message& message, std::string* why) override {
    delivered.push_back(message);
    *why = "refused";
    return accepts;
  }
  void Ended(Farewell reason, const std::string& what) override {
    ++ended;
    farewell = reason;
    text = what;
  }
  [[nodiscard]] const Goodbye* LastGoodbye() const { return sent.empty() ? nullptr : std::get_if<Goodbye>(&sent.back()); }

  std::vector<Message> sent, delivered;
  Terms terms;
  int opened = 0, ended = 0;
  bool accepts = true;
  Farewell farewell = Farewell::kNone;
  std::string text;
};

SessionOptions OptionsOf(const std::string& node) {
  SessionOptions options;
  options.node = node;
  options.instance = node == "a" ? 1 : 2;
  options.agent_version = "1.0";
  options.transports = {"verbs", "relay"};
  return options;
}

// Two sessions, each other's counterpart.
class SessionTest : public ::testing::Test {
 protected:
  void Greet() {
    caller = std::make_unique<Session>(Session::Role::kCaller, a, "b", at_a, 0);
    listener = std::make_unique<Session>(Session::Role::kListener, b, "a", at_b, 0);
    EXPECT_TRUE(at_b.sent.empty()) << "the listener lets the caller speak first";
    listener->Receive(at_a.sent.at(0), 1);
    if (!at_b.sent.empty()) caller->Receive(at_b.sent.at(0), 2);
  }

  SessionOptions a = OptionsOf("a"), b = OptionsOf("b");
  Sink at_a, at_b;
  std::unique_ptr<Session> caller, listener;
};

TEST_F(SessionTest, BothLearnTheTerms) {
  a.max_version = 3;
  b.max_version = 2;
  a.transports = {"new", "relay", "verbs"};
  Greet();
  EXPECT_EQ(at_a.opened + at_b.opened, 2);
  EXPECT_EQ(at_a.terms.version, 2U);
  EXPECT_EQ(at_b.terms.version, 2U);
  EXPECT_EQ(at_a.terms.far_instance, 2U);
  EXPECT_EQ(at_b.terms.far_instance, 1U);
  EXPECT_EQ(at_a.terms.transport, "relay") << "the caller's order decides";
  EXPECT_EQ(at_b.terms.transport, "relay");
}

TEST_F(SessionTest, WithoutATransportInCommonTheyStillTalk) {
  a.transports = {"x"};
  Greet();
  EXPECT_EQ(at_a.terms.transport + at_b.terms.transport, "");
  EXPECT_EQ(listener->GetState(), Session::State::kOpen);
}

TEST_F(SessionTest, VersionsThatDoNotOverlapAreNamedInTheRefusal) {
  a.min_version = 2;
  a.max_version = 4;
  Greet();
  EXPECT_EQ(at_b.farewell, Farewell::kVersion);
  EXPECT_EQ(at_b.text, "node b speaks version 1 of the protocol, node a 2 to 4");
  ASSERT_NE(at_b.LastGoodbye(), nullptr);
  EXPECT_EQ(at_a.farewell, Farewell::kVersion) << "and the caller hears it";
  EXPECT_NE(at_a.text.find("node a 2 to 4"), std::string::npos);
  EXPECT_EQ(at_a.opened + at_b.opened, 0);
}

TEST_F(SessionTest, AHelloOfAnotherNodeThanTheCertificates) {
  a.node = "c";
  Greet();
  EXPECT_EQ(at_b.farewell, Farewell::kWrongNode);
  EXPECT_EQ(at_b.opened, 0);
}

TEST_F(SessionTest, NothingPassesBeforeHello) {
  listener = std::make_unique<Session>(Session::Role::kListener, b, "a", at_b, 0);
  listener->Receive(Heartbeat{1}, 1);
  EXPECT_EQ(at_b.farewell, Farewell::kBrokeProtocol);
  EXPECT_EQ(at_b.ended, 1);
}

TEST_F(SessionTest, ASecondHelloIsABreach) {
  Greet();
  listener->Receive(at_a.sent.at(0), 3);
  EXPECT_EQ(at_b.farewell, Farewell::kBrokeProtocol);
}

TEST_F(SessionTest, WhatIsRefusedEndsItAndTheOtherHearsWhy) {
  Greet();
  at_b.accepts = false;
  listener->Receive(Withdraw{1}, 3);
  EXPECT_EQ(at_b.farewell, Farewell::kBrokeProtocol);
  caller->Receive(at_b.sent.back(), 4);
  EXPECT_EQ(at_a.text, "the other agent says: refused");
  listener->Receive(Withdraw{2}, 5);
  EXPECT_EQ(at_b.delivered.size(), 1U) << "nothing passes after the end";
  EXPECT_EQ(at_b.ended, 1);
}

TEST_F(SessionTest, GarbageIsABreach) {
  Greet();
  listener->ReceivedGarbage("offer.end is out of its bounds");
  EXPECT_EQ(at_b.farewell, Farewell::kBrokeProtocol);
  EXPECT_EQ(at_b.text, "offer.end is out of its bounds");
}

TEST_F(SessionTest, AHelloThatDoesNotComeIsNotWaitedForForEver) {
  listener = std::make_unique<Session>(Session::Role::kListener, b, "a", at_b, 0);
  EXPECT_EQ(listener->NextTick(), 5000 * kMs);
  listener->Tick(4999 * kMs);
  EXPECT_EQ(at_b.ended, 0);
  listener->Tick(5000 * kMs);
  EXPECT_EQ(at_b.farewell, Farewell::kSilent);
}

TEST_F(SessionTest, HeartbeatsKeepItAliveAndSilenceEndsIt) {
  Greet();
  const std::size_t before = at_a.sent.size();
  EXPECT_EQ(caller->NextTick(), 2 + 500 * kMs);
  for (std::uint64_t ms = 500; ms <= 10'000; ms += 500) {
    caller->Tick(ms * kMs + 2);
    listener->Tick(ms * kMs + 2);
    listener->Receive(at_a.sent.back(), ms * kMs + 3);
    caller->Receive(at_b.sent.back(), ms * kMs + 3);
  }
  EXPECT_EQ(at_a.sent.size() - before, 20U);
  EXPECT_EQ(at_a.ended + at_b.ended, 0);
  // The other is stopped.
  caller->Tick(12'999 * kMs);
  EXPECT_EQ(at_a.ended, 0);
  caller->Tick(13'001 * kMs);
  EXPECT_EQ(at_a.farewell, Farewell::kSilent);
}

TEST_F(SessionTest, ASlowHeartbeatIsAllowedForButOnlySoFar) {
  a.heartbeat_ms = 2000;
  Greet();
  listener->Tick(7'900 * kMs);
  EXPECT_EQ(at_b.ended, 0) << "four of the caller's heartbeats are eight seconds";
  Sink other;
  Session patient(Session::Role::kListener, b, "a", other, 0);
  Hello hello = std::get<Hello>(at_a.sent.at(0));
  hello.heartbeat_ms = 60'000;
  patient.Receive(hello, 1);
  patient.Tick(15'001 * kMs);
  EXPECT_EQ(other.farewell, Farewell::kSilent);
}

TEST_F(SessionTest, ABrokenStreamSaysNothingMore) {
  Greet();
  const std::size_t before = at_b.sent.size();
  listener->Broken("connection reset");
  EXPECT_EQ(at_b.text, "connection reset");
  EXPECT_EQ(at_b.sent.size(), before);
  listener->End(Farewell::kEnding, "");
  EXPECT_EQ(at_b.ended, 1);
}

TEST(BackoffTest, GrowsWithinItsBoundsAndStartsAnew) {
  Backoff backoff(100, 1000, 42);
  std::uint64_t step = 100;
  for (int i = 0; i < 8; ++i) {
    const std::uint64_t wait = backoff.Next();
    EXPECT_GE(wait, step / 2);
    EXPECT_LE(wait, step);
    step = std::min<std::uint64_t>(1000, step * 2);
  }
  backoff.Reset();
  EXPECT_LE(backoff.Next(), 100U);
  Backoff one(1000, 1000, 1), other(1000, 1000, 2);
  EXPECT_NE(one.Next(), other.Next()) << "two nodes do not come back at the same moment";
}

}  // namespace
}  // namespace vsocket::peer
