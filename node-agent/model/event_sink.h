// Kubernetes Events on pods, as those emit them who act on a pod, and kube/ posts them. Without an API server there is no sink.
//
// Thread safety: every method from any thread. None blocks on the network or throws; Post takes a lock for the time of a copy.
#pragma once

#include <cstdint>
#include <string>

namespace vsocket::model {

// One thing that happened to a pod (events.k8s.io/v1 Event,
// https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/).
struct PodEvent {
  enum class Type : std::uint8_t { kNormal, kWarning };
  std::string ns;      // of the pod
  std::string pod;     // its name
  std::string uid;     // may be empty: unknown
  std::string reason;  // why, for machines: CamelCase, at most 128 bytes, "ConnectionCut"
  std::string action;  // what was done, for machines: CamelCase, at most 128 bytes, "CutConnection"
  std::string note;    // for people; what is beyond 1,024 bytes is left off
  Type type = Type::kWarning;
};

class EventSink {
 public:
  struct Counters {
    std::uint64_t posted = 0;   // the API server has taken it
    std::uint64_t limited = 0;  // left out, because the pod or the node has had many lately; the pod's next event says how many
    std::uint64_t dropped = 0;  // left out, because the queue was full, or the API server refused it or could not be reached for long
  };

  virtual ~EventSink() = default;
  // Takes it, or counts it as limited or dropped. An event that was taken is posted soon, or dropped later.
  virtual void Post(PodEvent event) = 0;
  [[nodiscard]] virtual Counters GetCounters() const = 0;
};

}  // namespace vsocket::model
