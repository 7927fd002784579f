#include "node-agent/enforce/enforcer.h"

#include <set>
#include <utility>

#include "node-agent/enforce/ruleset.h"

namespace vsocket::enforce {
namespace {

// A pod that gets a new sandbox keeps its uid; the tables in the two namespaces are two things.
std::string KeyOf(const model::LocalPod& pod) {
  return pod.uid + "\n" + pod.container_id + "\n" + pod.ifname + "\n" + pod.netns_path;
}

std::string FullName(const model::LocalPod& pod) {
  return pod.ns + "/" + pod.name;
}

}  // namespace

Enforcer::Enforcer(std::unique_ptr<RulesetApplier> applier) : applier_(std::move(applier)) {}

std::vector<EnforceError> Enforcer::Sync(const std::vector<WantedRules>& wanted) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<EnforceError> errors;
  std::set<std::string> present;
  for (const WantedRules& rules : wanted) {
    present.insert(KeyOf(rules.pod));
    Update(rules, errors);
  }
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    const bool done = !present.contains(entry->first) && Remove(entry->second, errors);
    entry = done ? entries_.erase(entry) : std::next(entry);
  }
  return errors;
}

void Enforcer::Update(const WantedRules& wanted, std::vector<EnforceError>& errors) {
  Entry& entry = entries_[KeyOf(wanted.pod)];
  entry.pod = wanted.pod;
  if (!entry.text.empty() && entry.allow.Is(wanted.allow)) {
    ++counters_.unchanged;
    return;
  }
  std::string text = RulesetText(wanted.allow);
  if (entry.text == text) {
    ++counters_.unchanged;
    return;
  }
  const auto applied = applier_->Apply(wanted.pod, text);
  if (applied) {
    ++counters_.applied;
    entry.text = std::move(text);
    entry.allow = wanted.allow;
    return;
  }
  // nft(8) applies all or nothing, so the old table still stands; but after a timeout nobody knows. Forgetting is right for both.
  ++counters_.failed;
  entry.text.clear();
  errors.push_back({FullName(wanted.pod), applied.Error().what});
}

bool Enforcer::Remove(const Entry& entry, std::vector<EnforceError>& errors) {
  if (entry.text != RemovalText()) {
    const auto applied = applier_->Apply(entry.pod, RemovalText());
    if (!applied && !applied.Error().namespace_gone) {
      ++counters_.failed;
      errors.push_back({FullName(entry.pod), applied.Error().what});
      return false;
    }
  }
  ++counters_.removed;
  return true;
}

Enforcer::Counters Enforcer::GetCounters() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return counters_;
}

}  // namespace vsocket::enforce
