// Refused flows of the kernel's path: what the rules in the pods tell (ruleset.h, invariant 7), read from nfnetlink_log inside each pod's
// network namespace (linux/netfilter/nfnetlink_log.h; libmnl).
//
// The rules bound how much there is to read. What is not read in time the kernel drops, and says that it did: Counters::overruns.
//
// Thread safety: Watch and GetCounters from any thread. `tell` is called from one thread of the log's own.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "node-agent/enforce/enforcer.h"
#include "node-agent/model/local_pod.h"
#include "node-agent/model/verdict.h"

namespace vsocket::enforce {

struct Denial {
  model::LocalPod pod;
  bool ingress = false;  // which of the pod's directions refused it
  model::Flow flow;      // from the end that opened it
  std::uint16_t source_port = 0;
};

class DenialLog {
 public:
  // The error is a sentence: no epoll, no thread.
  static Result<std::unique_ptr<DenialLog>, std::string> Start(std::function<void(const Denial&)> tell);
  ~DenialLog();  // `tell` is not called any more
  DenialLog(const DenialLog&) = delete;
  DenialLog& operator=(const DenialLog&) = delete;

  // `pods` is the complete list of those to listen to. Returns what cannot be listened to; it is tried again by the next call.
  std::vector<EnforceError> Watch(const std::vector<model::LocalPod>& pods);

  struct Counters {
    std::uint64_t told = 0;
    std::uint64_t not_understood = 0;  // packets that ReadHeads cannot make anything of
    std::uint64_t overruns = 0;        // times that the kernel had to drop some
  };
  [[nodiscard]] Counters GetCounters() const;

 private:
  struct Listener {
    std::uint64_t id = 0;
    model::LocalPod pod;
    UniqueFd netlink;
  };

  DenialLog(UniqueFd epoll, UniqueFd stop, std::function<void(const Denial&)> tell);
  void Run();
  void Read(const Listener& listener);
  [[nodiscard]] std::shared_ptr<Listener> ById(std::uint64_t id) const;

  const UniqueFd epoll_, stop_;
  const std::function<void(const Denial&)> tell_;
  mutable std::mutex mutex_;                                    // guards what follows; not held while `tell` is called
  std::map<std::string, std::shared_ptr<Listener>> listeners_;  // by sandbox
  std::uint64_t next_id_ = 1;
  Counters counters_;
  std::thread thread_;
};

}  // namespace vsocket::enforce
