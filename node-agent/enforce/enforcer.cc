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

// What stands is exchanged without a gap (ruleset.h, invariant 1); what is not understood, in one transaction.
Result<Applied, ApplyError> Enforcer::Replace(Entry& entry, const RulesetInput& input) {
  if (!input.Isolated()) {
    auto removed = applier_->Apply(entry.pod, {RemovalText()});
    if (removed) entry.slot.reset();
    return removed;
  }
  bool understood = true;
  if (entry.text.empty()) {
    const auto listing = applier_->ListHook(entry.pod);
    if (!listing) return Failure<ApplyError>(listing.Error());
    entry.slot = ActiveSlot(listing.Value());
    understood = entry.slot.has_value() || listing.Value().empty();
  }
  const Slot slot = entry.slot ? Other(*entry.slot) : Slot::kA;
  auto applied = understood ? applier_->Apply(entry.pod, {PrepareText(input, slot), ActivateText(slot)})
                            : applier_->Apply(entry.pod, {RemovalText() + PrepareText(input, slot) + ActivateText(slot)});
  if (!applied && understood && !applied.Error().namespace_gone) {
    // A slot that an agent of another release has left may have sets of another type.
    applied = applier_->Apply(entry.pod, {RemovalText() + PrepareText(input, slot) + ActivateText(slot)});
  }
  if (applied) entry.slot = slot;
  return applied;
}

void Enforcer::Update(const WantedRules& wanted, std::vector<EnforceError>& errors) {
  Entry& entry = entries_[KeyOf(wanted.pod)];
  entry.pod = wanted.pod;
  const bool tell = untold_.empty();
  const bool same = entry.allow.Is(wanted.allow) && (entry.services.Is(wanted.services) || entry.services == wanted.services);
  if (!entry.text.empty() && same && entry.tell == tell) {
    ++counters_.unchanged;
    return;
  }
  RulesetInput input{wanted.allow, wanted.services, tell};
  const auto text_of = [](const RulesetInput& of) { return of.Isolated() ? PrepareText(of, Slot::kA) : RemovalText(); };
  std::string text = text_of(input);
  if (entry.text == text) {
    ++counters_.unchanged;
    return;
  }
  auto applied = Replace(entry, input);
  if (!applied && !applied.Error().namespace_gone && input.tell && input.Isolated()) {
    // Holding the pod to its policy comes before telling of it.
    const std::string why = applied.Error().what;
    input.tell = false;
    text = text_of(input);
    applied = Replace(entry, input);
    if (applied) untold_ = why;
  }
  if (applied) {
    ++counters_.applied;
    entry.text = std::move(text);
    entry.allow = wanted.allow;
    entry.services = wanted.services;
    entry.tell = untold_.empty();
    return;
  }
  // nft(8) applies all or nothing, so the old rules still stand; but after a timeout nobody knows. Forgetting is right for both.
  ++counters_.failed;
  entry.text.clear();
  errors.push_back({FullName(wanted.pod), applied.Error().what});
}

bool Enforcer::Remove(const Entry& entry, std::vector<EnforceError>& errors) {
  if (entry.text != RemovalText()) {
    const auto applied = applier_->Apply(entry.pod, {RemovalText()});
    if (!applied && !applied.Error().namespace_gone) {
      ++counters_.failed;
      errors.push_back({FullName(entry.pod), applied.Error().what});
      return false;
    }
  }
  ++counters_.removed;
  return true;
}

std::string Enforcer::Untold() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return untold_;
}

Enforcer::Counters Enforcer::GetCounters() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return counters_;
}

}  // namespace vsocket::enforce
