#include "node-agent/broker/pending_table.h"

#include <utility>

namespace vsocket::broker {
namespace {

template <typename Key>
void Decrease(std::unordered_map<Key, std::size_t>* counts, const Key& key) {
  const auto found = counts->find(key);
  if (found != counts->end() && --found->second == 0) counts->erase(found);
}

}  // namespace

void PendingTable::Add(PendingEnd pending) {
  Remove(pending.end.cookie);
  const FlowKey key = FlowKey::Of(pending.end.tuple, pending.end.netns_cookie);
  if (const auto old = by_key_.find(key); old != by_key_.end()) Erase(old);
  ++of_session_[pending.end.session];
  ++of_pod_[pending.end.pod];
  by_cookie_[pending.end.cookie] = key;
  by_key_.emplace(key, std::move(pending));
}

std::optional<PendingEnd> PendingTable::TakeMirrorOf(const End& end) {
  const auto found = by_key_.find(FlowKey::Of(end.tuple.Mirror(), end.netns_cookie));
  // A connection of a socket to itself (simultaneous open on one port) mirrors itself: it has no second end.
  if (found == by_key_.end() || found->second.end.cookie == end.cookie) return std::nullopt;
  PendingEnd taken = found->second;
  Erase(found);
  return taken;
}

const PendingEnd* PendingTable::Find(std::uint64_t cookie) const {
  const auto key = by_cookie_.find(cookie);
  return key == by_cookie_.end() ? nullptr : &by_key_.at(key->second);
}

void PendingTable::Remove(std::uint64_t cookie) {
  const auto key = by_cookie_.find(cookie);
  if (key != by_cookie_.end()) Erase(by_key_.find(key->second));
}

void PendingTable::RemoveSession(SessionId session) {
  if (!of_session_.contains(session)) return;
  for (auto entry = by_key_.begin(); entry != by_key_.end();) {
    const auto next = std::next(entry);
    if (entry->second.end.session == session) Erase(entry);
    entry = next;
  }
}

std::size_t PendingTable::OfSession(SessionId session) const {
  const auto found = of_session_.find(session);
  return found == of_session_.end() ? 0 : found->second;
}

std::size_t PendingTable::OfPod(const std::string& pod) const {
  const auto found = of_pod_.find(pod);
  return found == of_pod_.end() ? 0 : found->second;
}

void PendingTable::Erase(ByKey::iterator entry) {
  const End& end = entry->second.end;
  Decrease(&of_session_, end.session);
  Decrease(&of_pod_, end.pod);
  by_cookie_.erase(end.cookie);
  by_key_.erase(entry);
}

}  // namespace vsocket::broker
