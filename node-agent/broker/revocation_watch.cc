#include "node-agent/broker/revocation_watch.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

namespace vsocket::broker {
namespace {

using model::MappingHolder;
using model::SealOutcome;

constexpr std::uint64_t kMillisecond = 1'000'000;
// What was left is looked at soon: as a rule its processes have gone, or unmap it right after they say so.
constexpr std::uint64_t kFirstLook = 100 * kMillisecond;
// After the deadline: a killed process lets go in a moment.
constexpr std::uint64_t kFirstRetry = 100 * kMillisecond;
constexpr std::uint64_t kLongestPause = 60'000 * kMillisecond;

std::string NamesOf(const std::vector<MappingHolder>& holders) {
  std::string names;
  for (const MappingHolder& holder : holders) {
    if (!names.empty()) names += ", ";
    names += std::to_string(holder.pid) + " (" + holder.program + ")";
  }
  return names;
}

}  // namespace

RevocationWatch::RevocationWatch(RevocationOptions options, std::shared_ptr<model::MappingProbe> probe, EventSink events,
                                 std::function<std::uint64_t()> clock)
    : options_(options), probe_(std::move(probe)), events_(std::move(events)), clock_(std::move(clock)) {}

RevocationWatch::~RevocationWatch() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void RevocationWatch::Start() {
  const std::lock_guard lock(mutex_);
  started_ = true;
  if (!entries_.empty() && !thread_.joinable()) thread_ = std::thread([this] { Run(); });
}

void RevocationWatch::AddRevoked(ForsakenMemory memory, std::string why) {
  Entry entry;
  entry.memory = std::move(memory);
  entry.revoked = true;
  entry.why = std::move(why);
  entry.due_ns = entry.deadline_ns = clock_() + options_.deadline_ns;
  entry.pause_ns = kFirstRetry;
  Add(std::move(entry));
}

void RevocationWatch::AddLeft(ForsakenMemory memory) {
  Entry entry;
  entry.memory = std::move(memory);
  entry.due_ns = clock_() + kFirstLook;
  entry.pause_ns = 2 * kFirstLook;
  Add(std::move(entry));
}

void RevocationWatch::Add(Entry entry) {
  std::shared_ptr<Entry> given_up;
  {
    const std::lock_guard lock(mutex_);
    if (entry.revoked) ++stats_.watched;
    entries_.push_back(std::make_shared<Entry>(std::move(entry)));
    if (entries_.size() > kMaxEntries) {
      given_up = std::move(entries_.front());
      entries_.pop_front();
      if (given_up->revoked) --stats_.watched;
    }
    if (started_ && !thread_.joinable()) thread_ = std::thread([this] { Run(); });
    changed_.notify_all();
  }
  if (given_up) Say(Event::Level::kError, "memory not watched any more", *given_up, {{"why", "too many regions that nobody unmaps"}});
}

void RevocationWatch::Judge(const std::function<std::optional<std::string>(const Tuple&, const model::Flow&)>& forbids) {
  const std::lock_guard lock(mutex_);
  for (const auto& entry : entries_) {
    if (entry->revoked) continue;
    auto why = forbids(entry->memory.tuple, entry->memory.flow);
    if (!why) continue;
    entry->revoked = true;
    entry->why = std::move(*why);
    entry->due_ns = entry->deadline_ns = clock_() + options_.deadline_ns;
    entry->pause_ns = kFirstRetry;
    ++stats_.watched;
  }
  changed_.notify_all();
}

void RevocationWatch::ForgetLeftBy(const std::string& pod) {
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_,
                [&](const auto& entry) { return !entry->revoked && (entry->memory.pod[0] == pod || entry->memory.pod[1] == pod); });
}

RevocationStats RevocationWatch::Stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

std::uint64_t RevocationWatch::NextDue() const {
  std::uint64_t next = 0;
  for (const auto& entry : entries_) next = next == 0 ? entry->due_ns : std::min(next, entry->due_ns);
  return next;
}

std::uint64_t RevocationWatch::CheckDue() {
  std::vector<std::shared_ptr<Entry>> due;
  {
    const std::lock_guard lock(mutex_);
    const std::uint64_t now = clock_();
    for (const auto& entry : entries_) {
      if (entry->due_ns <= now) due.push_back(entry);
    }
  }
  // The memory's descriptor is the one member that never changes: it may be used unlocked.
  for (const auto& entry : due) Settle(entry, probe_->Seal(entry->memory.memory->Get()));
  const std::lock_guard lock(mutex_);
  return NextDue();
}

void RevocationWatch::Settle(const std::shared_ptr<Entry>& entry, SealOutcome outcome) {
  Entry seen;
  {
    const std::lock_guard lock(mutex_);
    const auto place = std::find(entries_.begin(), entries_.end(), entry);
    if (place == entries_.end()) return;  // given up or forgotten meanwhile
    const std::uint64_t now = clock_();
    if (outcome == SealOutcome::kSealed) {
      if (entry->revoked) --stats_.watched;
      entries_.erase(place);
    } else {
      // Judge may have set a deadline during the check: it stands.
      if (entry->due_ns <= now) {
        entry->due_ns = now + entry->pause_ns;
        entry->pause_ns = std::min(2 * entry->pause_ns, kLongestPause);
      }
      if (!entry->revoked || now < entry->deadline_ns || (entry->reported && !options_.strict)) return;
      if (!entry->reported) ++stats_.unheeded;
    }
    seen = *entry;
    entry->reported = true;
  }
  if (outcome != SealOutcome::kSealed) return Report(seen, outcome);
  if (seen.reported) Say(Event::Level::kInfo, "revoked memory let go", seen, {});
}

void RevocationWatch::Report(const Entry& entry, SealOutcome outcome) {
  const int memfd = entry.memory.memory->Get();
  const std::vector<MappingHolder> holders = probe_->Holders(memfd);
  if (!entry.reported) {
    std::string names = NamesOf(holders);
    if (outcome == SealOutcome::kBlocked) names += " (one of them sealed the seals)";
    if (holders.empty()) {
      names = "not found: pinned pages or a hidden process; it was granted to " + std::to_string(entry.memory.pid[0]) + " and " +
              std::to_string(entry.memory.pid[1]);
    }
    Say(Event::Level::kError, "revoked memory still mapped", entry, {{"why", entry.why}, {"holders", std::move(names)}});
  }
  if (!options_.strict) return;
  for (const MappingHolder& holder : holders) {
    if (!probe_->Kill(holder, memfd)) continue;
    {
      const std::lock_guard lock(mutex_);
      ++stats_.killed;
    }
    Say(Event::Level::kError, "holder of revoked memory killed", entry,
        {{"pid", std::to_string(holder.pid)}, {"program", holder.program}, {"why", entry.why}});
  }
}

void RevocationWatch::Say(Event::Level level, const char* what, const Entry& entry, Event::Fields more) const {
  if (!events_) return;
  Event::Fields fields{{"connection", entry.memory.tuple.ToString()}, {"pod", entry.memory.pod[0]}, {"peer_pod", entry.memory.pod[1]}};
  fields.insert(fields.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  events_({level, what, std::move(fields)});
}

void RevocationWatch::Run() {
  for (;;) {
    CheckDue();
    std::unique_lock lock(mutex_);
    if (over_) return;
    // Whoever adds or judges between the check and this lock changes what is due: it is looked at again here.
    const std::uint64_t due = NextDue();
    const std::uint64_t now = clock_();
    if (due == 0) {
      changed_.wait(lock, [this] { return over_ || !entries_.empty(); });
    } else if (due > now) {
      changed_.wait_for(lock, std::chrono::nanoseconds(due - now), [&] { return over_ || NextDue() != due; });
    }
    if (over_) return;
  }
}

}  // namespace vsocket::broker
