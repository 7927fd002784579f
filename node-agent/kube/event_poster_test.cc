#include "node-agent/kube/event_poster.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "node-agent/kube/event_limiter.h"

namespace vsocket::kube {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(EventLimiter, APodHasABurstAndThenOneEveryTwentySeconds) {
  EventLimiter limiter;
  auto now = std::chrono::steady_clock::now();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(limiter.Admit("a", now), 0u);
  for (int i = 0; i < 7; ++i) EXPECT_EQ(limiter.Admit("a", now), std::nullopt);
  EXPECT_EQ(limiter.Admit("b", now), 0u) << "another pod has its own";
  now += seconds(20);
  EXPECT_EQ(limiter.Admit("a", now), 7u) << "and says how many were left out";
  EXPECT_EQ(limiter.Admit("a", now), std::nullopt);
  now += seconds(20) + milliseconds(1);
  EXPECT_EQ(limiter.Admit("a", now), 1u);
}

TEST(EventLimiter, TheNodeHasALimitToo) {
  EventLimiter limiter;
  const auto now = std::chrono::steady_clock::now();
  int admitted = 0;
  for (int i = 0; i < 200; ++i) admitted += limiter.Admit("pod-" + std::to_string(i), now) ? 1 : 0;
  EXPECT_EQ(admitted, 50);
}

TEST(EventLimiter, RemembersABoundedNumberOfPods) {
  EventLimiter limiter;
  auto now = std::chrono::steady_clock::now();
  for (int i = 0; i < 10'000; ++i) {
    static_cast<void>(limiter.Admit("pod-" + std::to_string(i), now));
    now += seconds(1);
  }
  EXPECT_LE(limiter.Pods(), 1024u);
}

TEST(EventJson, IsAnEventOnThePod) {
  const auto json =
      nlohmann::json::parse(EventJson({"default", "web-0", "u1", "ConnectionCut", "CutConnection", "why", model::PodEvent::Type::kWarning},
                                      "n1", 0xabcdef, 1'700'000'000'123'456));
  EXPECT_EQ(json["apiVersion"], "events.k8s.io/v1");
  EXPECT_EQ(json["metadata"]["namespace"], "default");
  EXPECT_EQ(json["metadata"]["name"], "web-0.0000000000abcdef");
  EXPECT_EQ(json["eventTime"], "2023-11-14T22:13:20.123456Z");
  EXPECT_EQ(json["regarding"]["kind"], "Pod");
  EXPECT_EQ(json["regarding"]["uid"], "u1");
  EXPECT_EQ(json["type"], "Warning");
  EXPECT_EQ(json["reportingInstance"], "n1");
  EXPECT_EQ(json["note"], "why");
}

TEST(EventJson, HoldsWhatTheApiServerLimits) {
  model::PodEvent event{"default", std::string(253, 'p'), "", std::string(300, 'r'), "a", std::string(1023, 'n') + "\xc3\xa4", {}};
  const auto json = nlohmann::json::parse(EventJson(event, std::string(253, 'h'), 1, 0));
  EXPECT_EQ(json["note"].get<std::string>(), std::string(1023, 'n')) << "not cut within a character";
  EXPECT_EQ(json["reason"].get<std::string>().size(), 128u);
  EXPECT_EQ(json["reportingInstance"].get<std::string>().size(), 128u);
  EXPECT_LE(json["metadata"]["name"].get<std::string>().size(), 253u);
  EXPECT_FALSE(json["regarding"].contains("uid"));
  event.note = "\xff\xfe";
  EXPECT_TRUE(nlohmann::json::accept(EventJson(event, "n", 1, 0)));
}

TEST(EventPoster, RefusesAnAccessThatMakesNoSense) {
  EXPECT_FALSE(EventPoster::Start({"http://127.0.0.1:1", "", "", "", ""}, "n1", "test").Ok());
  EXPECT_FALSE(EventPoster::Start({"", "", "", "", ""}, "n1", "test").Ok());
}

TEST(EventPoster, NeverWaitsForAServerThatIsNotThere) {
  // Port 1 of loopback: nobody listens.
  auto poster = EventPoster::Start({"https://127.0.0.1:1", "", "", "", ""}, "n1", "test");
  ASSERT_TRUE(poster.Ok()) << poster.Error();
  for (int i = 0; i < 1000; ++i) {
    (*poster)->Post({"default", "pod-" + std::to_string(i), "", "ConnectionCut", "CutConnection", "x", {}});
  }
  (*poster)->Post({"../x", "a", "", "r", "a", "not a name", {}});
  const auto counters = (*poster)->GetCounters();
  EXPECT_EQ(counters.posted, 0u);
  EXPECT_GE(counters.limited, 900u);
}

}  // namespace
}  // namespace vsocket::kube
