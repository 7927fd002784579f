// Keeps the nftables table of every wired pod equal to its allow list.
//
// Thread safety: Sync may be called from any thread, one call runs at a time. It blocks for one `nft` run per pod whose rules changed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "node-agent/model/allow_list.h"
#include "node-agent/model/local_pod.h"
#include "node-agent/model/shared.h"

namespace vsocket::enforce {

struct Applied {};

struct ApplyError {
  bool namespace_gone = false;  // the pod's network namespace is no more (or is another's now): nothing to enforce there
  std::string what;             // a sentence for people
};

// The seam to the kernel: NftApplier in the agent, a fake in tests.
class RulesetApplier {
 public:
  virtual ~RulesetApplier() = default;
  // Applies `text` as one transaction in the pod's network namespace.
  virtual Result<Applied, ApplyError> Apply(const model::LocalPod& pod, const std::string& text) = 0;
};

struct WantedRules {
  model::LocalPod pod;
  model::Shared<model::AllowList> allow;  // the same object as before: the same rules as before
};

struct EnforceError {
  std::string pod;  // "ns/name"
  std::string what;
};

class Enforcer {
 public:
  explicit Enforcer(std::unique_ptr<RulesetApplier> applier);

  // `wanted` is the complete list of wired pods. Each pod whose ruleset text differs from what was last applied is updated, so is a pod
  // seen for the first time or in a new sandbox (an earlier agent may have left a table behind); the table of a pod that is no longer in
  // the list is removed, unless its namespace is gone. Returns what failed; what failed is tried again by the next call.
  std::vector<EnforceError> Sync(const std::vector<WantedRules>& wanted);

  struct Counters {
    std::uint64_t applied = 0, unchanged = 0, removed = 0, failed = 0;
  };
  [[nodiscard]] Counters GetCounters() const;

 private:
  struct Entry {
    model::LocalPod pod;
    std::string text;                       // last applied; empty: not known what is in place
    model::Shared<model::AllowList> allow;  // what `text` says
  };
  void Update(const WantedRules& wanted, std::vector<EnforceError>& errors);
  // True when there is nothing left to do for the entry.
  bool Remove(const Entry& entry, std::vector<EnforceError>& errors);

  std::unique_ptr<RulesetApplier> applier_;
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;  // by sandbox: uid, container id and interface
  Counters counters_;
};

}  // namespace vsocket::enforce
