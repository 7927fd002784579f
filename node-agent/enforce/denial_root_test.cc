// What the rules tell of refused flows, in real network namespaces with real traffic. Needs root.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "node-agent/enforce/denial_log.h"
#include "node-agent/enforce/ruleset.h"
#include "node-agent/enforce/testing/traffic.h"

namespace vsocket::enforce {
namespace {

using model::AllowList;
using model::Protocol;
using namespace testing;  // NOLINT: the fixture's words
using namespace std::chrono_literals;

class DenialLogTest : public TrafficTest {
 protected:
  DenialLogTest() {
    auto log = DenialLog::Start([this](const Denial& denial) {
      const std::lock_guard lock(mutex_);
      told_.push_back(Text(denial));
      grown_.notify_all();
    });
    log_ = std::move(log.Value());
    const auto errors = log_->Watch({node_.Pod(kServer)});
    EXPECT_TRUE(errors.empty()) << errors[0].what;
  }

  static std::string Text(const Denial& denial) {
    const char* protocol = denial.flow.protocol == Protocol::kTcp ? "tcp" : denial.flow.protocol == Protocol::kUdp ? "udp" : "sctp";
    return denial.pod.name + (denial.ingress ? " ingress " : " egress ") + denial.flow.source.ToString() + " -> " +
           denial.flow.destination.ToString() + ":" + std::to_string(denial.flow.destination_port) + "/" + protocol;
  }
  // The texts so far, when there are so many, or after a while.
  std::vector<std::string> Told(std::size_t count) {
    std::unique_lock lock(mutex_);
    grown_.wait_for(lock, 5s, [&] { return told_.size() >= count; });
    return told_;
  }

  std::mutex mutex_;
  std::condition_variable grown_;
  std::vector<std::string> told_;
  std::unique_ptr<DenialLog> log_;
};

TEST_F(DenialLogTest, TellsBothDirectionsBothFamiliesAndBothProtocols) {
  AllowList list = FriendOnly();
  list.egress.isolated = true;
  Enforce(list);
  const UniqueFd datagrams = Socket(kStranger, "10.77.0.12", SOCK_DGRAM, 5000), own = Socket(kServer, "fd77::10", SOCK_DGRAM, 5001);
  EXPECT_EQ(Connect(kStranger, "10.77.0.10", 6379), ECONNREFUSED);
  EXPECT_EQ(Told(1).back(), "pod0 ingress 10.77.0.12 -> 10.77.0.10:6379/tcp");
  EXPECT_EQ(Connect(kStranger, "fd77::10", 7000), ECONNREFUSED);
  EXPECT_EQ(Told(2).back(), "pod0 ingress fd77::12 -> fd77::10:7000/tcp");
  SendTo(datagrams.Get(), "10.77.0.10", 53);
  EXPECT_EQ(Told(3).back(), "pod0 ingress 10.77.0.12 -> 10.77.0.10:53/udp");
  EXPECT_EQ(Connect(kServer, "10.77.0.11", 80), ECONNREFUSED);
  EXPECT_EQ(Told(4).back(), "pod0 egress 10.77.0.10 -> 10.77.0.11:80/tcp");
  SendTo(own.Get(), "fd77::11", 53);
  EXPECT_EQ(Told(5).back(), "pod0 egress fd77::10 -> fd77::11:53/udp");
  EXPECT_EQ(log_->GetCounters().told, 5U);
  EXPECT_EQ(log_->GetCounters().not_understood, 0U);
}

TEST_F(DenialLogTest, AnAnswerThatIsNotAllowedAnyMoreIsToldAsTheFlowThatItAnswers) {
  Enforce(FriendOnly());
  const UniqueFd server = Socket(kServer, "10.77.0.10", SOCK_DGRAM, 53), ally = Socket(kFriend, "10.77.0.11", SOCK_DGRAM, 5000);
  SendTo(ally.Get(), "10.77.0.10", 53);
  ASSERT_TRUE(Receives(server.Get(), kPatienceMs));
  AllowList nobody = FriendOnly();
  nobody.ingress.entries.clear();
  Enforce(nobody);
  SendTo(server.Get(), "10.77.0.11", 5000);
  EXPECT_EQ(Told(1), std::vector<std::string>{"pod0 ingress 10.77.0.11 -> 10.77.0.10:53/udp"});
}

TEST_F(DenialLogTest, WhatIsAllowedIsNotTold) {
  Enforce(FriendOnly());
  const UniqueFd listener = Listen(kServer, "10.77.0.10", 6379);
  EXPECT_EQ(Connect(kFriend, "10.77.0.10", 6379), 0);
  EXPECT_EQ(Connect(kStranger, "10.77.0.10", 1), ECONNREFUSED);  // the only one
  EXPECT_EQ(Told(1), std::vector<std::string>{"pod0 ingress 10.77.0.12 -> 10.77.0.10:1/tcp"});
}

TEST_F(DenialLogTest, AFloodIsToldOnceAPortAndSoOftenASecond) {
  Enforce(FriendOnly());
  const UniqueFd stranger = Socket(kStranger, "10.77.0.12", SOCK_DGRAM, 5000);
  constexpr std::uint16_t kPorts = 3000;
  const auto begin = std::chrono::steady_clock::now();
  for (int round = 0; round < 3; ++round) SendTo(stranger.Get(), "10.77.0.10", 7);
  for (std::uint16_t port = 10000; port < 10000 + kPorts; ++port) SendTo(stranger.Get(), "10.77.0.10", port);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const auto told = Told(2U * kToldASecond);
  EXPECT_EQ(std::count(told.begin(), told.end(), "pod0 ingress 10.77.0.12 -> 10.77.0.10:7/udp"), 1);
  EXPECT_GE(told.size(), 2U * kToldASecond);  // the burst
  EXPECT_LE(static_cast<double>(told.size()), (2 + seconds + 1) * kToldASecond) << seconds;
  EXPECT_EQ(log_->GetCounters().overruns, 0U);
}

TEST_F(DenialLogTest, APodThatIsNotWatchedAnyMoreIsSilent) {
  Enforce(FriendOnly());
  EXPECT_TRUE(log_->Watch({}).empty());
  EXPECT_EQ(Connect(kStranger, "10.77.0.10", 1), ECONNREFUSED);
  EXPECT_TRUE(log_->Watch({node_.Pod(kServer)}).empty());  // and may come back: the group is free again
  EXPECT_EQ(Connect(kStranger, "10.77.0.10", 2), ECONNREFUSED);
  EXPECT_EQ(Told(1), std::vector<std::string>{"pod0 ingress 10.77.0.12 -> 10.77.0.10:2/tcp"});
}

TEST_F(DenialLogTest, SaysWhatItCannotListenTo) {
  model::LocalPod gone = node_.Pod(kFriend);
  gone.netns_path = "/nonexistent/netns";
  const auto errors = log_->Watch({node_.Pod(kServer), gone});
  ASSERT_EQ(errors.size(), 1U);
  EXPECT_EQ(errors[0].pod, "test/pod1");
  EXPECT_NE(errors[0].what.find("/nonexistent/netns"), std::string::npos);
  EXPECT_EQ(log_->Watch({node_.Pod(kServer), gone}).size(), 1U);
  EXPECT_TRUE(log_->Watch({node_.Pod(kServer)}).empty());
}

}  // namespace
}  // namespace vsocket::enforce
