// Runs nft(8) in a pod's network namespace: `nft -f -` from a thread that has entered the namespace (setns(2) is per thread, and the child
// inherits it), with the ruleset on standard input.
//
// Thread safety: both may be called from any thread; they need CAP_SYS_ADMIN and CAP_NET_ADMIN over the pod's namespace.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "node-agent/enforce/enforcer.h"

namespace vsocket::enforce {

class NftApplier : public RulesetApplier {
 public:
  // `timeout` bounds one nft run, which is killed when it takes longer.
  explicit NftApplier(std::string nft_path = "/usr/sbin/nft", std::chrono::milliseconds timeout = std::chrono::seconds(5));

  // Errors: the namespace cannot be opened or entered, is the agent's own, or is not the one the pod was wired in (netns_cookie differs);
  // nft cannot be started, runs too long, or refuses the text (its message is passed on).
  Result<Applied, ApplyError> Apply(const model::LocalPod& pod, const std::vector<std::string>& texts) override;
  Result<std::string, ApplyError> ListHook(const model::LocalPod& pod) override;

 private:
  std::string nft_path_;
  std::chrono::milliseconds timeout_;
};

}  // namespace vsocket::enforce
