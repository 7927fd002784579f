#include "node-agent/kernel_path.h"

#include <algorithm>
#include <utility>

#include "node-agent/enforce/nft_applier.h"

namespace vsocket {
namespace {

using telemetry::LogLevel;

const char* InForce(const enforce::EnforcementChoice& choice) {
  return choice.kernel ? "both" : "ring-only";
}

}  // namespace

KernelPath::KernelPath(enforce::EnforcementMode mode, enforce::SurveyPlaces places, telemetry::Log& log,
                       std::function<void(const enforce::Denial&)> denied)
    : mode_(mode), places_(std::move(places)), log_(log), enforcer_(std::make_unique<enforce::NftApplier>()) {
  auto denials = enforce::DenialLog::Start(std::move(denied));
  if (denials) {
    denials_ = std::move(denials.Value());
  } else {
    denials_trouble_ = denials.Error();
  }
  Look();
}

KernelPath::~KernelPath() {
  Stop();
}

void KernelPath::Watch(std::function<void()> changed) {
  if (mode_ != enforce::EnforcementMode::kAuto) return;
  thread_ = std::thread([this, changed = std::move(changed)] { Run(changed); });
}

void KernelPath::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stopping_.notify_all();
  if (thread_.joinable()) thread_.join();
  const std::lock_guard syncing(syncing_);
  denials_.reset();
}

void KernelPath::Run(const std::function<void()>& changed) {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      if (stopping_.wait_for(lock, kLookAgain, [this] { return stop_; })) return;
    }
    if (Look()) changed();
  }
}

bool KernelPath::Look() {
  const bool looks = mode_ == enforce::EnforcementMode::kAuto;
  enforce::EnforcementChoice choice = enforce::Choose(mode_, looks ? enforce::Survey(places_) : enforce::Surroundings());
  bool other = false;
  {
    const std::lock_guard lock(mutex_);
    if (choice == choice_) return false;
    other = choice.kernel != choice_.kernel;
    choice_ = choice;
  }
  log_.Write(LogLevel::kInfo, "enforcement chosen",
             {{"asked", enforce::NameOf(mode_)}, {"in_force", InForce(choice)}, {"why", choice.why}});
  return other;
}

bool KernelPath::Enforces() const {
  const std::lock_guard lock(mutex_);
  return choice_.kernel;
}

void KernelPath::AddServices(std::vector<enforce::WantedRules>& wanted, const std::shared_ptr<const model::ServiceTable>& services,
                             std::vector<model::Condition>& conditions) {
  std::map<std::string, JudgedServices> judged;
  for (enforce::WantedRules& rules : wanted) {
    if (!rules.allow->egress.isolated || services == nullptr) continue;
    const auto before = judged_.find(rules.pod.uid);
    JudgedServices& now = judged[rules.pod.uid];
    if (before != judged_.end() && before->second.services == services && before->second.allow.Is(rules.allow)) {
      now = before->second;
    } else {
      enforce::ServiceVerdicts verdicts = enforce::JudgeServices(rules.allow, *services);
      now = {rules.allow, services, std::move(verdicts.rules), std::move(verdicts.mixed)};
    }
    rules.services = now.rules;
    for (const std::string& mixed : now.mixed) {
      conditions.push_back({"ServicePartlyAllowed", "pod " + rules.pod.ns + "/" + rules.pod.name,
                            "may not reach Service " + mixed + ": which one the node will choose cannot be seen"});
    }
  }
  judged_ = std::move(judged);
}

void KernelPath::Sync(std::vector<enforce::WantedRules> wanted, const std::shared_ptr<const model::ServiceTable>& services) {
  const std::lock_guard syncing(syncing_);
  std::vector<model::Condition> conditions;
  if (!Enforces()) {
    const model::Shared<model::AllowList> open;
    for (enforce::WantedRules& rules : wanted) rules.allow = open;
  }
  AddServices(wanted, services, conditions);
  std::vector<model::LocalPod> isolated;
  for (const enforce::WantedRules& rules : wanted) {
    if (rules.allow->ingress.isolated || rules.allow->egress.isolated) isolated.push_back(rules.pod);
  }
  // Who listens first misses nothing.
  if (denials_ != nullptr) {
    for (const auto& error : denials_->Watch(isolated)) conditions.push_back({"DeniedFlowsNotHeard", "pod " + error.pod, error.what});
  }
  for (const auto& error : enforcer_.Sync(wanted)) conditions.push_back({"PacketFilterNotSet", "pod " + error.pod, error.what});
  if (const std::string why = enforcer_.Untold(); !why.empty()) {
    conditions.push_back({"DeniedFlowsNotTold", "node", "packet filters are set without the rules that tell of refused flows: " + why});
  }
  const std::lock_guard lock(mutex_);
  for (const model::Condition& condition : conditions) {
    if (std::find(conditions_.begin(), conditions_.end(), condition) != conditions_.end()) continue;
    log_.Write(condition.type == "PacketFilterNotSet" ? LogLevel::kError : LogLevel::kWarning, "kernel path",
               {{"condition", condition.type}, {"subject", condition.subject}, {"what", condition.what}});
  }
  conditions_ = std::move(conditions);
}

void KernelPath::CompleteStatus(model::AgentStatus* status) const {
  const std::lock_guard lock(mutex_);
  status->enforcement = {enforce::NameOf(mode_), InForce(choice_), choice_.why};
  status->conditions.insert(status->conditions.end(), conditions_.begin(), conditions_.end());
  if (!denials_trouble_.empty()) status->conditions.push_back({"DeniedFlowsNotHeard", "node", denials_trouble_});
}

enforce::DenialLog::Counters KernelPath::DenialCounters() const {
  return denials_ == nullptr ? enforce::DenialLog::Counters{} : denials_->GetCounters();
}

}  // namespace vsocket
