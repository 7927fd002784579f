// Posts Events on pods to the API server (events.k8s.io/v1), behind model::EventSink: a bounded queue, one request at a time, on a thread
// of its own, so that neither the broker nor the watches ever wait for it.
//
// Limits: a pod has a burst of 5 and one more every 20 s, the node a burst of 50 and one more a second; what is beyond is counted, and
// the pod's next event says how many were left out. An event is tried again while the API server is not there, up to a minute.
//
// Thread safety: every method from any thread.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "node-agent/kube/api_access.h"
#include "node-agent/kube/event_limiter.h"
#include "node-agent/model/event_sink.h"

namespace vsocket::kube {

class EventPoster : public model::EventSink {
 public:
  // `node_name` is who reports. Fails when `access` makes no sense, or a thread or the HTTP library is refused.
  static Result<std::unique_ptr<EventPoster>, std::string> Start(const ApiAccess& access, std::string node_name, std::string user_agent);
  // Ends the thread; what is queued is dropped.
  ~EventPoster() override;
  EventPoster(const EventPoster&) = delete;
  EventPoster& operator=(const EventPoster&) = delete;

  void Post(model::PodEvent event) override;
  [[nodiscard]] Counters GetCounters() const override;

 private:
  class Impl;
  explicit EventPoster(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The JSON of one Event. `unique`: makes its name unlike every other's. `when`: microseconds since 1970.
std::string EventJson(const model::PodEvent& event, const std::string& node_name, std::uint64_t unique, std::uint64_t when_us);

}  // namespace vsocket::kube
