// One thread that does what it is given, in order, and what is due at a time.
//
// Thread safety: Post and Ask from any thread; the functions run on this one's.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

namespace vsocket::peer {

class EventThread {
 public:
  // `tick` runs after whatever has been done and whenever the time that it gave (CLOCK_MONOTONIC nanoseconds, UINT64_MAX: never) has come.
  explicit EventThread(std::function<std::uint64_t(std::uint64_t now_ns)> tick);
  // Stop().
  ~EventThread();
  EventThread(const EventThread&) = delete;
  EventThread& operator=(const EventThread&) = delete;

  // False: it has stopped, and nothing will be done.
  bool Post(std::function<void()> what);
  // Post, and its value. Not from this thread. A default value when it has stopped.
  template <typename T>
  T Ask(std::function<T()> what) {
    std::promise<T> promise;
    auto future = promise.get_future();
    if (!Post([&] { promise.set_value(what()); })) return T();
    return future.get();
  }
  // What was posted before is still done. Idempotent; not from this thread.
  void Stop();

  static std::uint64_t Now();

 private:
  void Run();

  const std::function<std::uint64_t(std::uint64_t)> tick_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<std::function<void()>> posted_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace vsocket::peer
