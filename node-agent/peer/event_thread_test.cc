#include "node-agent/peer/event_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace vsocket::peer {
namespace {

constexpr std::uint64_t kMs = 1'000'000;

TEST(EventThreadTest, WhatOneThreadPostsIsDoneInOrder) {
  std::vector<int> done;
  EventThread thread([](std::uint64_t) { return UINT64_MAX; });
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(thread.Post([&done, i] { done.push_back(i); }));
  EXPECT_EQ(thread.Ask<std::size_t>([&] { return done.size(); }), 1000U);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(done[static_cast<std::size_t>(i)], i);
}

TEST(EventThreadTest, ManyPost) {
  int count = 0;  // of the thread's alone
  EventThread thread([](std::uint64_t) { return UINT64_MAX; });
  std::vector<std::thread> posters;
  for (int i = 0; i < 4; ++i) {
    posters.emplace_back([&] {
      for (int j = 0; j < 1000; ++j) thread.Post([&] { ++count; });
    });
  }
  for (auto& poster : posters) poster.join();
  EXPECT_EQ(thread.Ask<int>([&] { return count; }), 4000);
}

TEST(EventThreadTest, TicksWhenItSaidItWould) {
  std::atomic<int> ticks{0};
  std::promise<void> fifth;
  {
    EventThread thread([&](std::uint64_t now_ns) {
      if (++ticks == 5) fifth.set_value();
      return ticks < 5 ? now_ns + kMs : UINT64_MAX;
    });
    fifth.get_future().wait();
    thread.Ask<bool>([] { return true; });
  }
  EXPECT_GE(ticks, 5);
  EXPECT_LE(ticks, 6) << "once more for what was asked, and never by itself";
}

TEST(EventThreadTest, TicksAfterWhatWasDone) {
  bool posted = false;
  std::promise<bool> seen;
  EventThread thread([&, told = false](std::uint64_t) mutable {
    if (posted && !told) seen.set_value(told = true);
    return UINT64_MAX;
  });
  thread.Post([&] { posted = true; });
  EXPECT_TRUE(seen.get_future().get());
}

TEST(EventThreadTest, StoppingDoesWhatWasPostedAndNothingMore) {
  int done = 0;
  EventThread thread([](std::uint64_t) { return UINT64_MAX; });
  for (int i = 0; i < 100; ++i) thread.Post([&] { ++done; });
  thread.Stop();
  EXPECT_EQ(done, 100);
  EXPECT_FALSE(thread.Post([&] { ++done; }));
  EXPECT_EQ(thread.Ask<int>([] { return 7; }), 0);
  EXPECT_EQ(done, 100);
}

}  // namespace
}  // namespace vsocket::peer
