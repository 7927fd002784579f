#include "node-agent/policy/evaluator.h"

#include <algorithm>
#include <utility>

#include "node-agent/policy/allow_list.h"
#include "node-agent/policy/cluster_diff.h"
#include "node-agent/policy/judge.h"

namespace vsocket::policy {
namespace {

constexpr std::size_t kShownContests = 50;

std::string Listed(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts) all += (all.empty() ? "" : ", ") + text;
  return all;
}

}  // namespace

Evaluator::Evaluator(std::shared_ptr<const model::ClusterState> state, std::vector<model::IpAddress> node_addresses) {
  static_cast<void>(Apply(std::move(state), {}, std::move(node_addresses)));
}

Delta Evaluator::Apply(std::shared_ptr<const model::ClusterState> state, const std::vector<model::LocalPod>& wired,
                       std::vector<model::IpAddress> node_addresses) {
  std::sort(node_addresses.begin(), node_addresses.end());
  node_addresses.erase(std::unique(node_addresses.begin(), node_addresses.end()), node_addresses.end());
  static const model::ClusterState kNothing;
  Delta delta;
  Tables::Effect effect;
  {
    const std::lock_guard lock(mutex_);
    delta.affected.everything = state_ == nullptr || node_addresses != node_addresses_;
    effect = tables_.Apply(state_ == nullptr ? kNothing : *state_, *state, wired);
    state_ = std::move(state);
    node_addresses_ = std::move(node_addresses);
  }
  // Nobody else changes the tables, so they may be read here while others read them.
  delta.lists = lists_.Update(tables_, effect, wired, node_addresses_);
  if (!delta.affected.everything) delta.affected.addresses.assign(effect.addresses.begin(), effect.addresses.end());
  return delta;
}

model::Verdict Evaluator::Evaluate(const model::Flow& flow) const {
  const std::lock_guard lock(mutex_);
  return Judge(tables_, node_addresses_, flow);
}

Result<model::Verdict, model::ApiError> Evaluator::Trace(const std::string& source_pod, const std::string& destination_pod,
                                                         const std::string& port) const {
  const std::lock_guard lock(mutex_);
  return TraceByName(tables_, node_addresses_, source_pod, destination_pod, port);
}

PodIsolation Evaluator::Isolation(const std::string& pod) const {
  const std::lock_guard lock(mutex_);
  PodIsolation isolation;
  const PodId id = tables_.Pods().Named(Qualified(pod));
  if (id == kNone || !tables_.InPodNetwork(id)) return isolation;
  for (const PolicyId policy : tables_.Isolating(id, Direction::kIngress)) {
    isolation.ingress_by.push_back(tables_.Policies().At(policy).name);
  }
  for (const PolicyId policy : tables_.Isolating(id, Direction::kEgress)) {
    isolation.egress_by.push_back(tables_.Policies().At(policy).name);
  }
  isolation.ingress = !isolation.ingress_by.empty();
  isolation.egress = !isolation.egress_by.empty();
  return isolation;
}

model::AllowList Evaluator::AllowListFor(const std::string& pod) const {
  const std::lock_guard lock(mutex_);
  model::AllowList list = FlattenFor(tables_, tables_.Pods().Named(Qualified(pod)));
  list.pod = Qualified(pod);
  list.node_addresses = node_addresses_;
  return list;
}

std::vector<model::SourceProblem> Evaluator::Problems() const {
  const std::lock_guard lock(mutex_);
  std::vector<model::SourceProblem> problems;
  for (const auto& [name, sentences] : tables_.Policies().Problems()) {
    for (const std::string& sentence : sentences) problems.push_back({"NetworkPolicy " + name, sentence});
  }
  for (const auto& [name, ports] : tables_.Pods().AmbiguousPorts()) {
    problems.push_back(
        {"Pod " + name, "several of its ports have one name (" + Listed(ports) + "): a rule that names it matches none of them"});
  }
  std::size_t shown = 0;
  for (const model::IpAddress& address : tables_.Pods().Contested()) {
    if (++shown > kShownContests) {
      problems.push_back(
          {"Pods", "and " + std::to_string(tables_.Pods().Contested().size() - kShownContests) + " more addresses that several have"});
      break;
    }
    std::vector<std::string> names;
    for (const PodId pod : tables_.PodsAt(address)) names.push_back(FullName(tables_.PodAt(pod)));
    problems.push_back(
        {"Pods " + Listed(names), "all have the address " + address.ToString() + ": it may exchange only what all of them may"});
  }
  return problems;
}

std::shared_ptr<const model::ClusterState> Evaluator::State() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

EvaluatorSize Evaluator::Size() const {
  const std::lock_guard lock(mutex_);
  return {tables_.Pods().Count(), tables_.Members().Identities(), tables_.Members().Groups(), tables_.Policies().Count()};
}

}  // namespace vsocket::policy
