#include "node-agent/kube/kube_source.h"

#include <atomic>
#include <chrono>
#include <deque>
#include <mutex>
#include <random>
#include <system_error>
#include <thread>
#include <utility>

#include "node-agent/kube/field_reader.h"
#include "node-agent/kube/replica.h"

namespace vsocket::kube {
namespace {

// As with a directory: a burst ends when nothing has happened for this long,
constexpr std::chrono::milliseconds kQuiet{5};
// and is cut off when it goes on.
constexpr std::chrono::milliseconds kLongestBurst{50};
constexpr std::chrono::hours kIdle{1};

}  // namespace

class KubeSource::Impl {
 public:
  Impl(KubeSourceOptions options, SnapshotCallback callback, InfoLog info, std::unique_ptr<HttpsClient> client)
      : options_(std::move(options)), callback_(std::move(callback)), info_(std::move(info)), client_(std::move(client)) {
    std::random_device seed;
    for (const Kind kind : kKinds) {
      reflectors_.emplace_back(kind, options_.node_name, *client_, replica_, options_.reflector, (std::uint64_t{seed()} << 32) + seed());
    }
  }

  void StartThread() {
    thread_ = std::thread([this] { Run(); });
  }

  ~Impl() {
    if (!thread_.joinable()) return;
    stop_.store(true);
    client_->Wake();
    thread_.join();
  }

  Counters GetCounters() const {
    const std::lock_guard lock(mutex_);
    return counters_;
  }

 private:
  void Run() {
    while (!stop_.load()) {
      Clock::time_point until = Clock::now() + kIdle;
      for (Reflector& reflector : reflectors_) {
        reflector.Tick();
        until = std::min(until, reflector.Due());
      }
      if (publish_by_) until = std::min(until, *publish_by_);
      client_->Run(until);
      NoteChanges();
      if (publish_by_ && Clock::now() >= *publish_by_) Publish();
    }
  }

  void NoteChanges() {
    Counters counters;
    std::vector<std::string> troubles;
    for (const Reflector& reflector : reflectors_) {
      counters.requests.lists += reflector.Counters().lists;
      counters.requests.watches += reflector.Counters().watches;
      counters.requests.events += reflector.Counters().events;
      counters.requests.failures += reflector.Counters().failures;
      if (reflector.Trouble().empty()) continue;
      ++counters.stale;
      troubles.push_back(reflector.Trouble());
    }
    {
      const std::lock_guard lock(mutex_);
      counters_ = counters;
    }
    const bool first = !complete_ && replica_.Complete();
    const bool changed = complete_ && replica_.Version() != seen_version_;
    if (!first && !changed && troubles == troubles_) return;
    complete_ = complete_ || first;
    seen_version_ = replica_.Version();
    troubles_ = std::move(troubles);
    const auto now = Clock::now();
    if (!publish_by_) burst_ends_ = now + kLongestBurst;
    publish_by_ = std::min(now + kQuiet, burst_ends_);
  }

  void Publish() {
    publish_by_.reset();
    if (complete_ && (last_ == nullptr || published_version_ != replica_.Version())) {
      Replica::View view = replica_.Assemble();
      published_version_ = replica_.Version();
      view.state.revision = last_ == nullptr ? 1 : last_->revision + 1;
      object_problems_ = std::move(view.problems);
      if (view.state.node == std::nullopt) {
        object_problems_.push_back({options_.access.server, "there is no Node named \"" + options_.node_name + "\""});
      }
      const bool is_first = last_ == nullptr;
      last_ = std::make_shared<const model::ClusterState>(std::move(view.state));
      if (is_first && info_) {
        info_(options_.access.server + ": " + std::to_string(last_->pods.size()) + " pods, " + std::to_string(last_->policies.size()) +
              " policies");
      }
    }
    std::vector<model::SourceProblem> problems;
    for (const std::string& trouble : troubles_) {
      problems.push_back(
          {options_.access.server, trouble + (last_ != nullptr ? "; the last known state stays in force" : "; nothing is allowed yet")});
    }
    problems.insert(problems.end(), object_problems_.begin(), object_problems_.end());
    callback_(last_, std::move(problems));
  }

  const KubeSourceOptions options_;
  const SnapshotCallback callback_;
  const InfoLog info_;
  const std::unique_ptr<HttpsClient> client_;
  Replica replica_;
  std::deque<Reflector> reflectors_;  // where they are they stay: requests hold their addresses
  bool complete_ = false;
  std::uint64_t seen_version_ = 0, published_version_ = 0;
  std::vector<std::string> troubles_;
  std::optional<Clock::time_point> publish_by_;
  Clock::time_point burst_ends_;
  std::shared_ptr<const model::ClusterState> last_;  // null until one is complete
  std::vector<model::SourceProblem> object_problems_;

  mutable std::mutex mutex_;
  Counters counters_;  // guarded by mutex_

  std::atomic<bool> stop_{false};
  std::thread thread_;
};

KubeSource::KubeSource(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
KubeSource::~KubeSource() = default;

KubeSource::Counters KubeSource::GetCounters() const {
  return impl_->GetCounters();
}

Result<std::unique_ptr<KubeSource>, std::string> KubeSource::Start(KubeSourceOptions options, SnapshotCallback callback, InfoLog info) {
  if (const std::string why = WhyUnusable(options.access); !why.empty()) return Failure(why);
  if (!IsDnsSubdomain(options.node_name)) return Failure("\"" + options.node_name + "\" cannot be the name of a Node");
  auto client = HttpsClient::Make(options.access, options.user_agent);
  if (!client) return Failure(client.Error());
  auto impl = std::make_unique<Impl>(std::move(options), std::move(callback), std::move(info), std::move(client.Value()));
  try {
    impl->StartThread();
  } catch (const std::system_error& error) {
    return Failure<std::string>(std::string("cannot start a thread: ") + error.what());
  }
  return std::unique_ptr<KubeSource>(new KubeSource(std::move(impl)));
}

}  // namespace vsocket::kube
