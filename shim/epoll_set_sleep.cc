// An epoll set going to sleep: arming its rings for one thread or several, and waking one that sleeps when its set changes.
#include <poll.h>
#include <sys/eventfd.h>

#include "shim/config.h"
#include "shim/epoll_set.h"
#include "shim/family.h"
#include "shim/grant.h"
#include "shim/own_fds.h"
#include "shim/stream.h"
#include "shim/sys.h"
#include "shim/wake_fds.h"

namespace vsocket::shim {

// For EPOLLET room is news only after a send that found none.
bool EpollSet::WantsRoom(const Watch& watch, const Sock* sock) {
  if ((watch.events & kOutEvents) == 0) return false;
  return (watch.events & EPOLLET) == 0 || sock->nospace.load(std::memory_order_relaxed) != watch.no_room;
}

bool EpollSet::AnythingNew() const {
  if (told_.load(std::memory_order_relaxed) || by_others_.load(std::memory_order_relaxed) != 0) return true;
  const std::uint32_t count = hot_count_.load(std::memory_order_acquire);
  const Relaxed<std::uint32_t>* hot = hot_.load(std::memory_order_acquire);
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t id = hot[i];
    const Watch& watch = watches_.load(std::memory_order_acquire)[id];
    const Sock* sock = watch.sock;
    if (sock == nullptr || watch.disabled) continue;  // none: another thread has just taken it out
    if ((watch.events & kInEvents) && RingHasData(sock) && (!(watch.events & EPOLLET) || watch.in_mark < RingTail(sock))) return true;
    if (WantsRoom(watch, sock) && RingHasRoom(sock)) return true;
  }
  return false;
}

// Leaves a quiet connection to the kernel: from now on its bell wakes the set.
bool EpollSet::Park(std::uint32_t id) {
  Watch& watch = At(id);
  if (WantsRoom(watch, watch.ref.sock) && AwaitsGrant(watch.ref.sock)) {  // nobody rings for a grant
    watch.quiet = 0;
    return false;
  }
  if (!Arm(watch, channel::kTcpBell)) {
    watch.armed = false;
    watch.quiet = 0;
    AfterSleep(watch.ref);
    return false;
  }
  Cool(id);
  return true;
}

// Prepares the connection for a sleep of whoever sleeps on this set. False: it is ready. `armed` either way.
bool EpollSet::Arm(Watch& watch, std::uint32_t target) {
  if (watch.armed) AfterSleep(watch.ref);  // one count a set, however many threads sleep
  watch.armed = true;
  const bool want_out = WantsRoom(watch, watch.ref.sock);
  short events = 0;
  if (PrepareToSleep(watch.ref, watch.fd, watch.events & kInEvents, want_out, target, &events)) return true;
  // For an edge already reported there is nothing to do, but the waiter word must stay armed for what comes after it.
  return (watch.events & EPOLLET) && watch.in_mark >= RingTail(watch.ref.sock) && !(want_out && RingHasRoom(watch.ref.sock)) &&
         IsAttached(watch.ref) && watch.ref.sock->dead.load(std::memory_order_relaxed) == 0;
}

bool EpollSet::ArmHot() {
  bool quiet = true;
  std::uint64_t region = 0;  // whose wake object `target` is: that of the connection before, mostly
  std::uint32_t side = 0;
  std::uint32_t target = channel::kTcpBell;
  for (std::uint32_t i = 0; i < HotCount() && quiet; ++i) {
    Watch& watch = At(Hot(i));
    if (watch.disabled) continue;
    const Sock* sock = watch.ref.sock;
    if (region != sock->region_id || side != sock->side) target = WakeTargetOf(sock, waiter_);
    region = sock->region_id;
    side = sock->side;
    quiet = Arm(watch, target);
  }
  for (std::uint32_t id = 0; nested_ != 0 && id < end_; ++id) {
    Watch& watch = At(id);
    EpollSet* inner = watch.nested ? FindSet(watch.fd) : nullptr;
    if (inner == nullptr || inner == this) continue;
    Holding hold(inner->lock);
    if (!hold.Held()) continue;
    const bool inner_quiet = watch.armed ? inner->ArmHot() : inner->ArmAll();
    watch.armed = true;
    if (!inner_quiet || inner->IsReady()) quiet = false;
  }
  return quiet;
}

bool EpollSet::ArmAll() {
  if (GetConfig().upgrade && SeenOtherThreads()) (void)MakeKick();
  if (!in_family_ && rings_ != 0 && FamilyFd() >= 0) in_family_ = AddToRings(FamilyFd(), EPOLLIN, kWakeId);
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  return RingChanges() == seen_attaches_ && by_others_.load(std::memory_order_seq_cst) == 0 && ArmHot();
}

void EpollSet::Tell(const Sock* sock) {
  if (rings_ == 0) return;
  std::uint32_t told = 0;
  const std::uint32_t index = IndexOf(sock);
  // seq_cst, with ArmAll: either the sleeper sees it, or we see the sleeper.
  if (!by_others_.compare_exchange_strong(told, index, std::memory_order_seq_cst) && told != index)
    by_others_.store(kNotHot, std::memory_order_seq_cst);
  WakeForChange();
}

// The kernel has nothing to tell of a bell that is off the socket: a connection that was left to it is looked at again.
void EpollSet::HeatTold() {
  if (by_others_.load(std::memory_order_relaxed) == 0) return;
  const std::uint32_t told = by_others_.exchange(0, std::memory_order_seq_cst);
  for (std::uint32_t id = 0; id < end_; ++id) {
    const Watch& watch = At(id);
    if (watch.fd < 0 || !watch.on_ring || watch.dormant || watch.hot_at != kNotHot) continue;
    if (told == kNotHot || told == IndexOf(watch.ref.sock)) Heat(id);
  }
}

void EpollSet::WakeForChange() {
  if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
  const int fd = kick_fd_.load(std::memory_order_acquire);
  const std::uint64_t one = 1;
  if (fd >= 0) Sys(SYS_write, fd, &one, sizeof one);
}

void EpollSet::RelaxAll() {
  if (sleepers_ == 0 || --sleepers_ != 0) return;
  for (std::uint32_t i = 0; i < HotCount(); ++i) {
    Watch& watch = At(Hot(i));
    if (!watch.armed) continue;
    watch.armed = false;
    AfterSleep(watch.ref);
  }
  for (std::uint32_t id = 0; nested_ != 0 && id < end_; ++id) {
    Watch& watch = At(id);
    EpollSet* inner = watch.nested && watch.armed ? FindSet(watch.fd) : nullptr;
    if (inner == nullptr || inner == this) continue;
    watch.armed = false;
    Holding hold(inner->lock);
    if (hold.Held()) inner->RelaxAll();
  }
}

void EpollSet::WakeOthers() {
  if (sleepers_ != 0 && !ArmHot()) Kick();
}

// The sleeps that the copied words tell of are the parent's, and its to end. And another thread may have been at the counts and lists: they
// are made again from the watches.
void EpollSet::Inherit() {
  sleepers_ = 0;
  hot_count_.store(0, std::memory_order_relaxed);
  rings_ = nested_ = 0;
  free_ = unseen_ = kNoWatch;
  seen_attaches_ = 0;
  for (std::uint32_t id = 0; id < end_; ++id) {
    Watch& watch = At(id);
    watch.armed = watch.unseen = false;
    watch.hot_at = kNotHot;
    if (watch.fd < 0) {
      watch.next_free = free_;
      free_ = id;
      continue;
    }
    DoubtWatchHint(watch.fd);
    if (watch.nested) ++nested_;
    if (!watch.on_ring) continue;
    ++rings_;
    if (!watch.dormant) Heat(id);
  }
}

bool EpollSet::MakeKick() {
  if (kick_fd_.load(std::memory_order_relaxed) >= 0) return true;
  const long made = Sys(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (made < 0) return false;
  const int fd = KeepOwnFd(static_cast<int>(made));
  if (!AddToRings(fd, EPOLLIN, kWakeId)) {
    DropOwnFd(fd);
    return false;
  }
  kick_fd_.store(fd, std::memory_order_release);
  return true;
}

// An edge in the kernel's set: one thread that sleeps there, or is about to, finds it and looks around.
void EpollSet::Kick() {
  const std::uint64_t one = 1;
  if (MakeKick()) Sys(SYS_write, kick_fd_.load(std::memory_order_relaxed), &one, sizeof one);
}

bool EpollSet::IsReady(Watch& watch) {
  if (watch.disabled) return false;
  const Watch before = watch;
  const std::uint32_t ready = Ready(watch, true, watch.told & ~static_cast<std::uint32_t>(EPOLLOUT));
  watch.in_mark = before.in_mark;  // looked at, not reported
  watch.no_room = before.no_room;
  watch.fresh = before.fresh;
  return ready != 0;
}

bool EpollSet::NeedsUs() const {
  return rings_ != 0 || nested_ != 0 || unseen_ != kNoWatch || seen_attaches_ != RingChanges() ||
         (GetConfig().upgrade && SeenOtherThreads());
}

bool EpollSet::IsReady() {
  Refresh();
  Harvest();
  HeatTold();
  for (std::uint32_t i = 0; i < HotCount(); ++i) {
    if (IsReady(At(Hot(i)))) return true;
  }
  for (std::uint32_t id = 0; nested_ != 0 && id < end_; ++id) {
    EpollSet* inner = At(id).nested && !At(id).disabled ? FindSet(At(id).fd) : nullptr;
    if (inner == nullptr || inner == this || (At(id).events & kInEvents) == 0) continue;
    Holding hold(inner->lock);
    if (hold.Held() && inner->IsReady()) return true;
  }
  // Our news are taken: what is still ready is none of ours.
  struct pollfd item = {epfd, POLLIN, 0};
  const struct timespec now = {};
  return Sys(SYS_ppoll, &item, 1, &now, nullptr, 0) == 1 && (item.revents & POLLIN) != 0;
}

}  // namespace vsocket::shim
