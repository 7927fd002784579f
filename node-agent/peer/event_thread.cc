#include "node-agent/peer/event_thread.h"

#include <chrono>
#include <utility>

namespace vsocket::peer {

EventThread::EventThread(std::function<std::uint64_t(std::uint64_t)> tick) : tick_(std::move(tick)), thread_([this] { Run(); }) {}

EventThread::~EventThread() {
  Stop();
}

std::uint64_t EventThread::Now() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count());
}

bool EventThread::Post(std::function<void()> what) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    posted_.push_back(std::move(what));
  }
  changed_.notify_one();
  return true;
}

void EventThread::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void EventThread::Run() {
  std::uint64_t next_ns = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    const auto ready = [this] { return stopping_ || !posted_.empty(); };
    if (next_ns == UINT64_MAX) {
      changed_.wait(lock, ready);
    } else {
      changed_.wait_until(lock, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(next_ns)), ready);
    }
    std::deque<std::function<void()>> now;
    now.swap(posted_);
    const bool last = stopping_;
    lock.unlock();
    for (auto& what : now) what();
    now.clear();  // what they hold may have a destructor that posts
    if (last) return;
    next_ns = tick_(Now());
    lock.lock();
  }
}

}  // namespace vsocket::peer
