// Cluster state from an API server: Pods, Namespaces, NetworkPolicies, Services, EndpointSlices and the agent's own Node, listed and
// watched over HTTPS.
//
// Invariants:
// 1. There is no state before every kind has been listed once. Then there always is one: while the API server is gone, refuses us, or
//    speaks nonsense, the last known state stays in force, with a SourceProblem for each kind that is not being followed.
// 2. An object that the API server lets through and that is not valid here closes what it concerns, and is a SourceProblem (resource.h).
// 3. A change is published a few milliseconds after it has come, so that a burst of changes is one snapshot.
// 4. Memory is bounded: by the number of objects of a kind and by the size of each, whatever is sent (replica.cc, json_stream.h).
//
// Thread safety: the callback and the log run on the source's own thread, never two at a time. They must not destroy the source. Start
// does not wait: the first call comes when something is known, or when something is wrong.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "node-agent/kube/api_access.h"
#include "node-agent/kube/reflector.h"
#include "node-agent/kube/snapshot_callback.h"

namespace vsocket::kube {

struct KubeSourceOptions {
  ApiAccess access;
  std::string node_name;   // a DNS name
  std::string user_agent;  // as the API server's audit log shows it
  ReflectorOptions reflector;
};

class KubeSource {
 public:
  // Fails when `options` make no sense, or when the kernel or the HTTP library refuses something; the error says which.
  static Result<std::unique_ptr<KubeSource>, std::string> Start(KubeSourceOptions options, SnapshotCallback callback, InfoLog info);
  // Ends the thread; no callback runs after it.
  ~KubeSource();
  KubeSource(const KubeSource&) = delete;
  KubeSource& operator=(const KubeSource&) = delete;

  struct Counters {
    ReflectorCounters requests;  // over all kinds
    std::uint64_t stale = 0;     // kinds that are not being followed at present
  };
  // Any thread.
  [[nodiscard]] Counters GetCounters() const;

 private:
  class Impl;
  explicit KubeSource(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vsocket::kube
