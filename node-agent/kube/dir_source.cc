#include "node-agent/kube/dir_source.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "base/unique_fd.h"
#include "node-agent/kube/dir_watch.h"
#include "node-agent/kube/directory_state.h"

namespace vsocket::kube {
namespace {

// A burst (kubectl-like tools, rsync, editors) ends when nothing has happened for this long,
constexpr std::chrono::milliseconds kQuiet{5};
// and is cut off when it goes on: what a policy forbids must be in force well within 200 ms.
constexpr std::chrono::milliseconds kLongestBurst{50};

}  // namespace

class DirSource::Impl {
 public:
  Impl(std::string directory, SnapshotCallback callback, InfoLog info, DirWatch watch, UniqueFd stop)
      : state_(std::move(directory), std::move(info)), callback_(std::move(callback)), watch_(std::move(watch)), stop_(std::move(stop)) {
    // The watch is already in place, so whatever changes during this first reading is seen afterwards.
    state_.ReadAll();
    Publish();
  }

  void StartThread() {
    thread_ = std::thread([this] { Run(); });
  }

  ~Impl() {
    if (!thread_.joinable()) return;
    const std::uint64_t one = 1;
    // Cannot fail: the counter is far from its maximum.
    while (::write(stop_.Get(), &one, sizeof(one)) < 0 && errno == EINTR) {
    }
    thread_.join();
  }

 private:
  enum class Wake { kEvent, kTimeout, kStop };

  Wake Wait(std::optional<std::chrono::milliseconds> timeout) {
    pollfd fds[2] = {{watch_.Fd(), POLLIN, 0}, {stop_.Get(), POLLIN, 0}};
    while (true) {
      const int ready = ::poll(fds, 2, timeout ? static_cast<int>(timeout->count()) : -1);
      if (ready < 0 && errno == EINTR) continue;
      if (fds[1].revents != 0) return Wake::kStop;
      return ready == 0 ? Wake::kTimeout : Wake::kEvent;
    }
  }

  void Run() {
    while (Wait(std::nullopt) != Wake::kStop) {
      DirWatch::Changes changes;
      watch_.Drain(changes);
      const auto latest = std::chrono::steady_clock::now() + kLongestBurst;
      while (changes.Any() && std::chrono::steady_clock::now() < latest) {
        const Wake wake = Wait(kQuiet);
        if (wake == Wake::kStop) return;
        if (wake == Wake::kTimeout) break;
        watch_.Drain(changes);
      }
      if (!changes.Any()) continue;
      if (changes.everything) {
        state_.ReadAll();
      } else {
        for (const std::string& name : changes.names) state_.ReadOne(name);
      }
      Publish();
    }
  }

  void Publish() {
    DirectoryState::View view = state_.Assemble();
    const bool same = published_ && last_problems_ == view.problems && view.complete == (last_ != nullptr) &&
                      (last_ == nullptr || (last_->pods == view.state.pods && last_->namespaces == view.state.namespaces &&
                                            last_->policies == view.state.policies));
    if (same) return;
    published_ = true;
    last_problems_ = view.problems;
    if (!view.complete) return callback_(nullptr, std::move(view.problems));
    view.state.revision = last_ == nullptr ? 1 : last_->revision + 1;
    last_ = std::make_shared<const model::ClusterState>(std::move(view.state));
    callback_(last_, std::move(view.problems));
  }

  DirectoryState state_;
  SnapshotCallback callback_;
  DirWatch watch_;
  UniqueFd stop_;  // an eventfd
  bool published_ = false;
  std::shared_ptr<const model::ClusterState> last_;  // null until one is complete
  std::vector<model::SourceProblem> last_problems_;
  std::thread thread_;
};

DirSource::DirSource(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DirSource::~DirSource() = default;

Result<std::unique_ptr<DirSource>, std::string> DirSource::Start(std::string directory, SnapshotCallback callback, InfoLog info) {
  auto watch = DirWatch::Make(directory);
  if (!watch) return Failure<std::string>(watch.Error());
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop.Valid()) return Failure<std::string>(std::string("eventfd: ") + std::strerror(errno));
  auto impl = std::make_unique<Impl>(std::move(directory), std::move(callback), std::move(info), std::move(watch.Value()), std::move(stop));
  try {
    impl->StartThread();
  } catch (const std::system_error& error) {
    return Failure<std::string>(std::string("cannot start a thread: ") + error.what());
  }
  return std::unique_ptr<DirSource>(new DirSource(std::move(impl)));
}

}  // namespace vsocket::kube
