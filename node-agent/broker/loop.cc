#include "node-agent/broker/loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

namespace vsocket::broker {
namespace {

constexpr std::uint64_t kWakeToken = 1;
constexpr std::uint64_t kTimerToken = 2;
constexpr std::uint64_t kSecond = 1'000'000'000;

void Drain(int fd) {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto ignored = ::read(fd, &count, sizeof count);  // non-blocking: empty is fine
}

}  // namespace

std::uint64_t MonotonicNow() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * kSecond + static_cast<std::uint64_t>(now.tv_nsec);
}

Result<std::unique_ptr<Loop>, std::string> Loop::Make() {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  UniqueFd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!epoll.Valid() || !wake.Valid() || !timer.Valid()) return Failure(std::string("cannot make an event loop: ") + std::strerror(errno));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWakeToken;
  if (::epoll_ctl(epoll.Get(), EPOLL_CTL_ADD, wake.Get(), &event) != 0) return Failure(std::string("epoll_ctl: ") + std::strerror(errno));
  event.data.u64 = kTimerToken;
  if (::epoll_ctl(epoll.Get(), EPOLL_CTL_ADD, timer.Get(), &event) != 0) return Failure(std::string("epoll_ctl: ") + std::strerror(errno));
  return std::unique_ptr<Loop>(new Loop(std::move(epoll), std::move(wake), std::move(timer)));
}

Loop::Loop(UniqueFd epoll, UniqueFd wake, UniqueFd timer) : epoll_(std::move(epoll)), wake_(std::move(wake)), timer_(std::move(timer)) {}

Loop::~Loop() {
  Stop();
}

bool Loop::Add(int fd, std::uint32_t events, Ready ready) {
  const std::uint64_t token = next_token_++;
  epoll_event event{};
  event.events = events;
  event.data.u64 = token;
  if (::epoll_ctl(epoll_.Get(), EPOLL_CTL_ADD, fd, &event) != 0) return false;
  handlers_[token] = std::make_shared<Ready>(std::move(ready));
  tokens_[fd] = token;
  return true;
}

void Loop::Modify(int fd, std::uint32_t events) {
  const auto token = tokens_.find(fd);
  if (token == tokens_.end()) return;
  epoll_event event{};
  event.events = events;
  event.data.u64 = token->second;
  ::epoll_ctl(epoll_.Get(), EPOLL_CTL_MOD, fd, &event);
}

void Loop::Remove(int fd) {
  const auto token = tokens_.find(fd);
  if (token == tokens_.end()) return;
  ::epoll_ctl(epoll_.Get(), EPOLL_CTL_DEL, fd, nullptr);
  handlers_.erase(token->second);
  tokens_.erase(token);
}

void Loop::Start() {
  const std::lock_guard lock(mutex_);
  running_ = true;
  thread_ = std::thread([this] { Run(); });
}

void Loop::Stop() {
  std::thread thread;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    thread = std::move(thread_);
  }
  if (!thread.joinable()) return;
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto ignored = ::write(wake_.Get(), &one, sizeof one);
  thread.join();
}

void Loop::Post(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    if (running_) {
      posted_.push_back(std::move(work));
      work = nullptr;
    }
  }
  if (work) return work();  // nobody will take it: run it here, before the start or after the end
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto ignored = ::write(wake_.Get(), &one, sizeof one);
}

bool Loop::RunsHere() const {
  const std::lock_guard lock(mutex_);
  return !running_ || thread_.get_id() == std::this_thread::get_id();
}

void Loop::RunPosted() {
  std::vector<std::function<void()>> work;
  {
    const std::lock_guard lock(mutex_);
    work.swap(posted_);
  }
  for (auto& item : work) item();
}

void Loop::ArmTimer() {
  const std::uint64_t deadline = deadline_ ? deadline_() : 0;
  if (deadline == armed_) return;
  itimerspec when{};
  when.it_value.tv_sec = static_cast<time_t>(deadline / kSecond);
  when.it_value.tv_nsec = static_cast<long>(deadline % kSecond);
  ::timerfd_settime(timer_.Get(), TFD_TIMER_ABSTIME, &when, nullptr);
  armed_ = deadline;
}

void Loop::Run() {
  std::array<epoll_event, 64> events{};
  for (;;) {
    ArmTimer();
    const int ready = ::epoll_wait(epoll_.Get(), events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < ready; ++i) {
      const auto& event = events[static_cast<std::size_t>(i)];
      if (event.data.u64 == kWakeToken) {
        Drain(wake_.Get());
      } else if (event.data.u64 == kTimerToken) {
        Drain(timer_.Get());
        armed_ = 0;
        if (tick_) tick_();
      } else if (const auto handler = handlers_.find(event.data.u64); handler != handlers_.end()) {
        const auto keep = handler->second;  // a handler may remove itself
        (*keep)(event.events);
      }
    }
    RunPosted();
    const std::lock_guard lock(mutex_);
    if (stop_ && posted_.empty()) {
      running_ = false;
      return;
    }
  }
}

}  // namespace vsocket::broker
