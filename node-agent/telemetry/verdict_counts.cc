#include "node-agent/telemetry/verdict_counts.h"

namespace vsocket::telemetry {

void VerdictCounts::CountDirection(bool ingress, model::FlowPath path, const model::DirectionVerdict& verdict) {
  if (verdict.pod.empty()) return;
  std::string policy = verdict.policy;
  if (policy.empty() && !verdict.allowed && !verdict.isolated_by.empty()) policy = verdict.isolated_by.front();
  if (policy.empty()) {
    policy = kNone;
  } else if (!policies_.contains(policy)) {
    if (policies_.size() < kMostPolicies) {
      policies_.insert(policy);
    } else {
      policy = kOther;
    }
  }
  ++counts_.verdicts[{ingress, verdict.allowed, path, std::move(policy)}];
}

void VerdictCounts::Count(const model::FlowEvent& event) {
  const std::lock_guard lock(mutex_);
  CountDirection(false, event.path, event.egress);
  CountDirection(true, event.path, event.ingress);
  const auto path = static_cast<std::size_t>(event.path);
  if (event.action == model::FlowAction::kDenied) ++counts_.denied[path];
  if (event.action == model::FlowAction::kCut) ++counts_.cut[path];
}

VerdictCounts::Snapshot VerdictCounts::Take() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

}  // namespace vsocket::telemetry
