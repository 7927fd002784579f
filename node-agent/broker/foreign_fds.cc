#include "node-agent/broker/foreign_fds.h"

#include <sys/socket.h>

#include <condition_variable>
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

struct ForeignFds::Shared : std::enable_shared_from_this<ForeignFds::Shared> {
  mutable std::mutex mutex;
  std::condition_variable more;
  std::deque<Job> jobs;
  std::size_t unfinished = 0;
  bool working = false;  // a worker runs
  bool over = false;     // it shall end when nothing is left

  void Push(Job job) {
    const std::lock_guard lock(mutex);
    jobs.push_back(std::move(job));
    ++unfinished;
    if (!working) {
      working = true;
      std::thread([self = shared_from_this()] { self->Work(); }).detach();
    }
    more.notify_one();
  }

  void Work() {
    std::unique_lock lock(mutex);
    for (;;) {
      more.wait(lock, [this] { return over || !jobs.empty(); });
      if (jobs.empty()) {
        working = false;
        return;
      }
      {
        Job job = std::move(jobs.front());
        jobs.pop_front();
        lock.unlock();
        const char byte = 1;  // a full or closed wake object has been rung enough
        if (job.ring) [[maybe_unused]]
          const auto ignored = ::send(job.ring->Get(), &byte, sizeof byte, MSG_DONTWAIT | MSG_NOSIGNAL);
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
  if (fd.Valid()) shared_->Push({std::move(fd), nullptr});
}

std::shared_ptr<const UniqueFd> ForeignFds::Hold(UniqueFd fd) {
  return {new UniqueFd(std::move(fd)), [shared = shared_](UniqueFd* held) {
            const std::unique_ptr<UniqueFd> owned(held);
            shared->Push({std::move(*owned), nullptr});
          }};
}

void ForeignFds::Ring(std::shared_ptr<const UniqueFd> wake_fd) {
  shared_->Push({UniqueFd(), std::move(wake_fd)});
}

std::size_t ForeignFds::Backlog() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->unfinished;
}

}  // namespace vsocket::broker
