// The turn of a link's loop: completions, what pods have written and read, the lanes, and going to sleep.
#include <algorithm>
#include <string>

#include "node-agent/transport/mirror/link.h"

namespace vsocket::transport {

bool Link::Poll(std::uint64_t now_ns) {
  if (failed_ || !connected_) return false;
  context_.now_ns = now_ns;
  ++counters_.polls;
  bool worked = TakeCompletions();
  worked |= ServeConnections();
  if (now_ns >= lazy_at_ns_) ServeLazily();
  worked |= ServeLanes();
  for (const std::uint16_t number : closing_) ConsiderClosing(*Find(number));
  RepostReceives(false);
  ConsiderPing();
  worked |= SendControl();
  RingDoorbells();
  if (!failed_) FinishClosed();
  return worked && !failed_;
}

bool Link::TakeCompletions() {
  std::array<Completion, 32> some;
  bool any = false;
  // Bounded, so that a busy far side does not keep us from what pods have written.
  for (int turn = 0; turn < 16 && !failed_; ++turn) {
    const int count = completions_->Poll(some);
    if (count < 0) Fail("the device has gone");
    for (int i = 0; i < count && !failed_; ++i) OnCompletion(some[static_cast<std::size_t>(i)]);
    any |= count > 0;
    if (count < static_cast<int>(some.size())) break;
  }
  return any;
}

void Link::OnCompletion(const Completion& completion) {
  const CompletionId id = CompletionId::Of(completion.id);
  if (static_cast<std::size_t>(id.lane) >= kLanes) return;
  ++counters_.lanes[static_cast<std::size_t>(id.lane)].completions;
  if (completion.status != CompletionStatus::kSuccess) return Fail(StatusText(completion.status));
  if (id.receive) return OnReceived(completion, id);
  const bool known = Queue(id.lane).OnSent(id.number, [this, lane = id.lane](std::uint16_t number, std::uint32_t bytes) {
    Connection* connection = lane == Lane::kControl ? nullptr : Find(number);
    if (connection == nullptr) return;
    connection->out.OnSent(bytes);
    if (connection->out.IsReady(context_)) Enqueue(*connection);  // its window may have been full
  });
  // Who waits for requests to be done may have found no room to ask for a completion: each looks again.
  for (const std::uint16_t number : waiting_) {
    Connection* connection = Find(number);
    if (connection == nullptr) continue;
    connection->waiting = false;
    Activate(*connection);
  }
  waiting_.clear();
  if (!known) Fail("the device completed what was never posted");
}

void Link::OnReceived(const Completion& completion, CompletionId id) {
  if (id.number >= options_.lanes[static_cast<std::size_t>(id.lane)].receives) return Fail("the device completed a receive that is none");
  heard_ns_ = context_.now_ns;
  if (id.lane == Lane::kControl) {
    OnControl(completion, id.number);
    Queue(id.lane).Received(id.number);
    return;
  }
  Queue(id.lane).Received(id.number);
  if (completion.kind != Completion::Kind::kReceivedImmediate || completion.length > channel::kRingMax)
    return Fail("the far agent sent what is no immediate data");
  Connection* connection = Find(static_cast<std::uint16_t>(ConnectionOf(completion.immediate)));
  if (connection == nullptr || connection->lost || connection->closing) return;
  if (!connection->in.OnImmediate(context_, completion.immediate)) return Fail("the far agent wrote more than there is room for");
  Activate(*connection);
}

void Link::Activate(Connection& connection) {
  if (connection.active) return;
  connection.active = true;
  channel::Disarm(connection.words.far->data_waiter);
  channel::Disarm(connection.words.far->space_waiter);
  active_.push_back(connection.spec.number);
}

void Link::Enqueue(Connection& connection) {
  if (connection.queued) return;
  connection.queued = true;
  ready_[static_cast<std::size_t>(connection.out.ChosenLane())].push_back(connection.spec.number);
}

bool Link::ServeConnections() {
  const std::size_t records = records_.size();
  const std::uint64_t received = counters_.chunks_received;
  for (std::size_t i = 0; i < active_.size() && !failed_; ++i) {
    if (Connection* connection = Find(active_[i])) ServeConnection(*connection);
  }
  return records_.size() != records || counters_.chunks_received != received;
}

void Link::ServeConnection(Connection& connection) {
  if (connection.lost || connection.closing) return;
  if (!connection.out.Look(context_)) return LosePath(connection, "the pod wrote impossible values");
  if (connection.in.IsQuiet() && !connection.in.LookAtCell(context_, board_[connection.spec.number]))
    return Fail("the far agent wrote more than there is room for");
  connection.in.Look(context_, false);
  if (connection.in.OwesHead()) BecomeLazy(connection);
  if (options_.spin_ns != 0 && connection.in.ShouldQuieten()) connection.in.Quieten(context_);
  if (connection.out.IsReady(context_)) Enqueue(connection);
  if (connection.out.WaitsForDone() && !connection.waiting) {
    connection.waiting = true;
    waiting_.push_back(connection.spec.number);
  }
}

void Link::BecomeLazy(Connection& connection) {
  if (connection.lazy) return;
  connection.lazy = true;
  lazy_.push_back(connection.spec.number);
  lazy_at_ns_ = std::min(lazy_at_ns_, context_.now_ns + options_.lazy_credit_ns);
}

void Link::ServeLazily() {
  lazy_at_ns_ = kNoDeadline;
  for (const std::uint16_t number : lazy_) {
    Connection* connection = Find(number);
    if (connection == nullptr) continue;
    connection->lazy = false;
    if (!connection->lost && !connection->closing) connection->in.Look(context_, true);
  }
  lazy_.clear();
}

bool Link::ServeLanes() {
  bool posted = ServeLane(Lane::kSmall);
  posted |= ServeLane(Lane::kBulk);
  return posted;
}

// Round robin by bytes: a connection posts at most a quantum a turn. (Deficit round robin, where what is queued can be cut anywhere: nobody
// has a deficit to carry over.) Ends when the lane is full or nobody has anything that may be posted.
bool Link::ServeLane(Lane lane) {
  auto& ready = ready_[static_cast<std::size_t>(lane)];
  bool any = false;
  for (std::size_t refusals = 0; refusals < ready.size();) {
    const std::uint16_t number = ready.front();
    ready.pop_front();
    Connection* connection = Find(number);
    if (connection == nullptr) continue;
    connection->queued = false;
    if (connection->lost || connection->closing || !connection->out.IsReady(context_)) continue;
    if (connection->out.ChosenLane() != lane) {
      Enqueue(*connection);
      continue;
    }
    const Outbound::Posted posted = connection->out.Post(context_);
    if (posted == Outbound::Posted::kLaneIsFull) {
      connection->queued = true;  // its turn is still to come
      ready.push_front(number);
      break;
    }
    if (posted == Outbound::Posted::kSomething) {
      ++work_;
      any = true;
    }
    refusals = posted == Outbound::Posted::kSomething ? 0 : refusals + 1;
    if (connection->out.IsReady(context_)) Enqueue(*connection);
  }
  return any;
}

void Link::RepostReceives(bool all) {
  for (std::size_t i = 0; i < kLanes && !failed_; ++i) {
    if (!all && !lanes_[i]->ShouldRepost()) continue;
    const bool control = static_cast<Lane>(i) == Lane::kControl;
    const std::uint64_t base = reinterpret_cast<std::uint64_t>(control_memory_.data()) + options_.lanes[i].sends * kControlBytes;
    const auto posted = lanes_[i]->Repost(base, control_keys_.local, control ? kControlBytes : 0);
    if (!posted) Fail("posting receives: " + posted.Error().what);
  }
}

void Link::RingDoorbells() {
  for (std::size_t i = 0; i < kLanes && !failed_; ++i) {
    if (!lanes_[i]->HasBatch()) continue;
    const auto posted = lanes_[i]->RingDoorbell();
    if (!posted) Fail("posting requests: " + posted.Error().what);
  }
}

// Who has nothing to do is armed and polled no more.
bool Link::ArmConnections() {
  for (const std::uint16_t number : active_) {
    Connection* connection = Find(number);
    if (connection != nullptr && connection->in.IsQuiet()) connection->in.EndQuiet(context_);
  }
  if (!records_.empty() && MaySendControl()) return false;  // they go first
  for (std::size_t i = 0; i < active_.size();) {
    Connection* connection = Find(active_[i]);
    if (connection != nullptr && !connection->lost && !connection->closing) {
      if (connection->in.ExpectsHead()) connection->words.far->space_waiter.store(connection->spec.wake_target, std::memory_order_release);
      channel::Arm(connection->words.far->data_waiter, connection->spec.wake_target);
      if (connection->out.HasNews() || connection->in.HasNews()) {
        ++i;
        continue;
      }
    }
    if (connection != nullptr) connection->active = false;
    active_[i] = active_.back();
    active_.pop_back();
  }
  return active_.empty();
}

bool Link::PrepareToSleep(std::uint64_t now_ns) {
  if (failed_ || !connected_) return true;
  context_.now_ns = now_ns;
  if (!ArmConnections()) return false;
  const auto requested = completions_->RequestNotification();
  if (!requested) {
    Fail("asking for a notification: " + requested.Error().what);
    return true;
  }
  // What came before the request makes no notification.
  const bool more = TakeCompletions();
  if (!more && !failed_) ++counters_.agent_wakes;  // each sleep ends with one
  return !more || failed_;
}

void Link::Rung(const RingMemory& memory) {
  const auto found = by_memory_.find(&memory);
  if (found == by_memory_.end()) return;
  // Words stay armed over many sleeps, so what A0 of wake.h does before a sleep is done here, before the look at all of them: a pod that
  // took its word and found the object rung already has taken it before this fence, and is seen.
  auto& rung = memory.Header().rung[1 - memory.LocalSide()];
  channel::ExpectRing(rung.object[Find(found->second.front())->spec.wake_target - channel::kFirstWakeFd]);
  channel::SleepWakeFence();
  for (const std::uint16_t number : found->second) {
    Connection& connection = *Find(number);
    const bool data = connection.words.far->data_waiter.load(std::memory_order_acquire) == channel::kNobody;
    const bool space = connection.words.far->space_waiter.load(std::memory_order_acquire) == channel::kNobody;
    if (!connection.active && (data || space)) Activate(connection);
  }
}

std::uint64_t Link::NextDeadline() const {
  if (failed_ || !connected_) return kNoDeadline;
  std::uint64_t next = lazy_at_ns_;
  if (ping_ns_ != 0) {
    next = std::min(next, std::max(ping_ns_, heard_ns_) + options_.ping_timeout_ns);
  } else if (work_ != work_confirmed_) {
    next = std::min(next, std::max(unconfirmed_since_ns_, heard_ns_) + options_.ping_after_ns);
  } else {
    next = std::min(next, keepalive_at_ns_);
  }
  return next;
}

}  // namespace vsocket::transport
