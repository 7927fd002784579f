// Keeps the nftables table of every wired pod equal to its allow list.
//
// Thread safety: Sync may be called from any thread, one call runs at a time. It blocks for two `nft` runs per pod whose rules changed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "node-agent/enforce/ruleset.h"
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
  // Applies each of `texts` as a transaction of its own in the pod's network namespace, in this order, until one fails.
  virtual Result<Applied, ApplyError> Apply(const model::LocalPod& pod, const std::vector<std::string>& texts) = 0;
  // What nft(8) lists of chain `inet vsocket input` there; empty when there is none.
  virtual Result<std::string, ApplyError> ListHook(const model::LocalPod& pod) = 0;
};

struct WantedRules {
  model::LocalPod pod;
  model::Shared<model::AllowList> allow;  // the same object as before: the same rules as before
  model::Shared<ServiceRules> services;
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
  // Why refused flows are not told to anybody (ruleset.h, invariant 7); empty: they are. The kernel or nft(8) has refused the rules that
  // tell, and taken them without: from then on every pod's are without.
  [[nodiscard]] std::string Untold() const;
  [[nodiscard]] Counters GetCounters() const;

 private:
  struct Entry {
    model::LocalPod pod;
    std::string text;          // of what is in place, in slot A; empty: not known
    std::optional<Slot> slot;  // that is active; only with a text
    // What the text follows from.
    model::Shared<model::AllowList> allow;
    model::Shared<ServiceRules> services;
    bool tell = true;
  };
  void Update(const WantedRules& wanted, std::vector<EnforceError>& errors);
  Result<Applied, ApplyError> Replace(Entry& entry, const RulesetInput& input);
  // True when there is nothing left to do for the entry.
  bool Remove(const Entry& entry, std::vector<EnforceError>& errors);

  std::unique_ptr<RulesetApplier> applier_;
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;  // by sandbox: uid, container id and interface
  std::string untold_;
  Counters counters_;
};

}  // namespace vsocket::enforce
