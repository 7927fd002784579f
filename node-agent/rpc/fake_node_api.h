// A NodeApi for tests: a real registry of pods in memory, everything else as the test sets it.
// Thread safety: every method may be called from any thread; the members that a test sets are set before the server starts.
#pragma once

#include <algorithm>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/model/node_api.h"

namespace vsocket::rpc {

class FakeNodeApi : public model::NodeApi {
 public:
  template <typename T>
  using Answer = Result<T, model::ApiError>;

  std::function<void()> on_add = [] {};  // runs in each AddPod, before anything else, without the lock
  model::AgentStatus status;
  std::vector<model::ConnectionInfo> connections;
  std::vector<model::PolicyInfo> policies;
  Answer<model::Verdict> verdict = model::Verdict{};
  std::vector<std::string> traced;  // the arguments of the last TracePolicy

  void FailWith(model::ApiErrorKind kind, std::string message) {
    const std::lock_guard<std::mutex> lock(mutex_);
    failing_ = true;
    error_ = {kind, std::move(message)};
  }

  Answer<model::LocalPodStatus> AddPod(model::LocalPod pod) override {
    on_add();
    const std::lock_guard<std::mutex> lock(mutex_);
    calls_.push_back("add " + pod.container_id);
    if (failing_) return Failure<model::ApiError>(error_);
    std::erase_if(pods_, [&](const auto& other) { return other.pod.uid == pod.uid; });
    model::LocalPodStatus added;
    added.socket_dir = "/run/vsocket/pods/" + pod.uid;
    added.pod = std::move(pod);
    pods_.push_back(added);
    return added;
  }

  Answer<model::Done> RemovePod(const std::string& container_id, const std::string& ifname) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    calls_.push_back("remove " + container_id);
    if (failing_) return Failure<model::ApiError>(error_);
    std::erase_if(pods_, [&](const auto& other) { return other.pod.container_id == container_id && other.pod.ifname == ifname; });
    return model::Done{};
  }

  Answer<model::LocalPodStatus> CheckPod(const model::LocalPod& pod) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (failing_) return Failure<model::ApiError>(error_);
    for (const auto& known : pods_) {
      if (known.pod.container_id != pod.container_id || known.pod.ifname != pod.ifname) continue;
      if (known.pod == pod) return known;
      return Failure<model::ApiError>({model::ApiErrorKind::kConflict, "pod " + pod.ns + "/" + pod.name + " is wired differently"});
    }
    return Failure<model::ApiError>({model::ApiErrorKind::kNotFound, "container " + pod.container_id + " is not wired"});
  }

  Answer<std::uint32_t> CollectPods(const std::vector<std::pair<std::string, std::string>>& keep) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (failing_) return Failure<model::ApiError>(error_);
    return static_cast<std::uint32_t>(std::erase_if(pods_, [&](const auto& known) {
      return std::find(keep.begin(), keep.end(), std::make_pair(known.pod.container_id, known.pod.ifname)) == keep.end();
    }));
  }

  std::vector<model::LocalPodStatus> Pods() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return pods_;
  }

  std::vector<model::ConnectionInfo> Connections() override { return connections; }

  Answer<model::Verdict> TracePolicy(const std::string& source_pod, const std::string& destination_pod, const std::string& port) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    traced = {source_pod, destination_pod, port};
    return verdict;
  }

  std::vector<model::PolicyInfo> Policies() override { return policies; }

  model::AgentStatus Status() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    model::AgentStatus now = status;
    now.pods = static_cast<std::uint32_t>(pods_.size());
    return now;
  }

  // "add CONTAINER" and "remove CONTAINER", in the order of arrival.
  std::vector<std::string> Calls() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return calls_;
  }

 private:
  std::mutex mutex_;
  std::vector<model::LocalPodStatus> pods_;
  std::vector<std::string> calls_;
  bool failing_ = false;
  model::ApiError error_;
};

}  // namespace vsocket::rpc
