// One thread that waits in epoll(7): descriptors, a timer, and work handed in by other threads.
//
// Thread safety: Post, Call and Stop may be called from any thread; everything else only from the loop's own, or before Run.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace vsocket::broker {

// CLOCK_MONOTONIC, nanoseconds: the clock of the leases in shared memory.
std::uint64_t MonotonicNow();

class Loop {
 public:
  using Ready = std::function<void(std::uint32_t events)>;

  static Result<std::unique_ptr<Loop>, std::string> Make();
  ~Loop();

  // `ready` is called with the EPOLL* bits that are set, level-triggered. The caller keeps the descriptor open until Remove. False when
  // the kernel refuses (out of memory or watches).
  [[nodiscard]] bool Add(int fd, std::uint32_t events, Ready ready);
  void Modify(int fd, std::uint32_t events);
  // No call of its handler follows, not even of one that is already due.
  void Remove(int fd);

  // `tick` is called when MonotonicNow() has reached what SetDeadline said; once. Deadline 0: never (the timer is off, no wake-ups).
  void OnTick(std::function<void()> tick) { tick_ = std::move(tick); }
  // Asked after every round: the next deadline in MonotonicNow() terms, or 0.
  void DeadlineFrom(std::function<std::uint64_t()> deadline) { deadline_ = std::move(deadline); }

  void Start();  // runs the loop on a thread of its own
  void Stop();   // and joins it. Work posted before is done; idempotent

  void Post(std::function<void()> work);

  // Runs `work` on the loop's thread and waits for its value. When the loop does not run (before Start, after Stop), it runs here.
  template <typename Work>
  auto Call(Work work) -> decltype(work()) {
    using Value = decltype(work());
    if (RunsHere()) return work();
    std::mutex mutex;
    std::condition_variable done;
    std::unique_ptr<Value> value;
    Post([&] {
      auto result = std::make_unique<Value>(work());
      const std::lock_guard lock(mutex);
      value = std::move(result);
      done.notify_one();  // under the lock: the waiter's frame holds the condition
    });
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return value != nullptr; });
    return std::move(*value);
  }

 private:
  Loop(UniqueFd epoll, UniqueFd wake, UniqueFd timer);
  void Run();
  void RunPosted();
  void ArmTimer();
  [[nodiscard]] bool RunsHere() const;

  UniqueFd epoll_, wake_, timer_;
  // Events carry a token, not the fd: a number closed and reused within one round must not get the old one's event.
  std::uint64_t next_token_ = 16;
  std::unordered_map<std::uint64_t, std::shared_ptr<Ready>> handlers_;
  std::unordered_map<int, std::uint64_t> tokens_;
  std::function<void()> tick_;
  std::function<std::uint64_t()> deadline_;
  std::uint64_t armed_ = 0;

  mutable std::mutex mutex_;  // guards what follows
  std::vector<std::function<void()>> posted_;
  bool running_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace vsocket::broker
