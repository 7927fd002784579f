// Policies on the kernel's path: whether the agent enforces them there, the packet filters of the pods, and what those refuse.
//
// With `auto` the node is looked at when the agent starts and every kLookAgain: an enforcer that comes or goes changes the choice.
//
// Thread safety: every method from any thread. Sync blocks for one run of nft(8) a pod whose rules changed.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "node-agent/enforce/denial_log.h"
#include "node-agent/enforce/enforcement_choice.h"
#include "node-agent/enforce/enforcer.h"
#include "node-agent/enforce/service_rules.h"
#include "node-agent/model/node_api.h"
#include "node-agent/telemetry/log.h"

namespace vsocket {

class KernelPath {
 public:
  static constexpr std::chrono::seconds kLookAgain{60};

  // `denied` is called from a thread of its own for each refused flow that is told of.
  KernelPath(enforce::EnforcementMode mode, enforce::SurveyPlaces places, telemetry::Log& log,
             std::function<void(const enforce::Denial&)> denied);
  ~KernelPath();
  KernelPath(const KernelPath&) = delete;
  KernelPath& operator=(const KernelPath&) = delete;

  // From here on `changed` is called, without locks held, when the choice has become another one: Sync is due. Once.
  void Watch(std::function<void()> changed);
  // Neither `changed` nor `denied` is called any more. The rules stay in the pods.
  void Stop();

  // False: nothing is enforced here, and Sync takes away what an earlier choice left.
  [[nodiscard]] bool Enforces() const;
  // `wanted` is the complete list of wired pods; what they may do with Services is worked out here.
  void Sync(std::vector<enforce::WantedRules> wanted, const std::shared_ptr<const model::ServiceTable>& services);

  void CompleteStatus(model::AgentStatus* status) const;
  [[nodiscard]] enforce::Enforcer::Counters RuleCounters() const { return enforcer_.GetCounters(); }
  [[nodiscard]] enforce::DenialLog::Counters DenialCounters() const;

 private:
  bool Look();  // true: the choice is another one now
  void Run(const std::function<void()>& changed);

  const enforce::EnforcementMode mode_;
  const enforce::SurveyPlaces places_;
  telemetry::Log& log_;
  enforce::Enforcer enforcer_;
  std::unique_ptr<enforce::DenialLog> denials_;  // null: it could not be started, or was stopped

  // What a pod may do with Services follows from its list and the table: worked out again when one of them is another one.
  struct JudgedServices {
    model::Shared<model::AllowList> allow;
    std::shared_ptr<const model::ServiceTable> services;
    model::Shared<enforce::ServiceRules> rules;
    std::vector<std::string> mixed;
  };
  void AddServices(std::vector<enforce::WantedRules>& wanted, const std::shared_ptr<const model::ServiceTable>& services,
                   std::vector<model::Condition>& conditions);

  std::mutex syncing_;                            // one Sync at a time; guards the next
  std::map<std::string, JudgedServices> judged_;  // by the pod's uid

  mutable std::mutex mutex_;  // guards what follows; never held while others are called
  std::condition_variable stopping_;
  bool stop_ = false;
  enforce::EnforcementChoice choice_;
  std::vector<model::Condition> conditions_;  // of the last Sync
  std::string denials_trouble_;
  std::thread thread_;
};

}  // namespace vsocket
