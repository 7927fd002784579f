#include "node-agent/broker/foreign_fds.h"

#include <unistd.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

namespace vsocket::broker {
namespace {

struct Job {
  UniqueFd close;
  std::shared_ptr<const UniqueFd> ring;
};

}  // namespace

struct ForeignFds::Shared {
  std::mutex mutex;
  std::condition_variable more;
  std::deque<Job> jobs;
  std::size_t unfinished = 0;
  bool started = false;
  bool over = false;

  void Work() {
    std::unique_lock lock(mutex);
    for (;;) {
      more.wait(lock, [this] { return over || !jobs.empty(); });
      if (jobs.empty()) return;
      {
        Job job = std::move(jobs.front());
        jobs.pop_front();
        lock.unlock();
        const std::uint64_t one = 1;
        if (job.ring) [[maybe_unused]] const auto ignored = ::write(job.ring->Get(), &one, sizeof one);
      }  // closes, still unlocked
      lock.lock();
      --unfinished;
    }
  }
};

ForeignFds::ForeignFds() : shared_(std::make_shared<Shared>()) {}

ForeignFds::~ForeignFds() {
  const std::lock_guard lock(shared_->mutex);
  shared_->over = true;
  shared_->more.notify_one();
}

void ForeignFds::Close(UniqueFd fd) {
  if (fd.Valid()) Push(std::move(fd), nullptr);
}

void ForeignFds::Ring(std::shared_ptr<const UniqueFd> eventfd) { Push(UniqueFd(), std::move(eventfd)); }

void ForeignFds::Push(UniqueFd close, std::shared_ptr<const UniqueFd> ring) {
  const std::lock_guard lock(shared_->mutex);
  shared_->jobs.push_back({std::move(close), std::move(ring)});
  ++shared_->unfinished;
  if (!shared_->started) {
    shared_->started = true;
    std::thread([shared = shared_] { shared->Work(); }).detach();
  }
  shared_->more.notify_one();
}

std::size_t ForeignFds::Backlog() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->unfinished;
}

}  // namespace vsocket::broker
