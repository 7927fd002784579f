#include "shim/epoll_set.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/random.h>

#include <cerrno>
#include <cstring>

#include "shim/agent_link.h"
#include "shim/grant.h"
#include "shim/own_fds.h"
#include "shim/stream.h"
#include "shim/sys.h"
#include "shim/upgrade.h"
#include "shim/wake_fds.h"

namespace vsocket::shim {
namespace {

constexpr std::uint32_t kQuietLooks = 4096;  // looks without news before a connection is left to the kernel
constexpr std::uint32_t kKernelEvents = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI;
constexpr std::uint32_t kEndEvents = EPOLLHUP | EPOLLERR | EPOLLRDHUP;
constexpr std::uint32_t kMaxWatches = (1U << kWatchIdBits) - 16;

std::atomic<std::uint64_t> ring_changes{1};

void* Pages(std::size_t size) {
  const long at = Sys(SYS_mmap, nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return at < 0 && at > -4096 ? nullptr : reinterpret_cast<void*>(at);
}

bool KernelSays(int fd, short events) {
  struct pollfd item = {fd, events, 0};
  const struct timespec now = {};
  return Sys(SYS_ppoll, &item, 1, &now, nullptr, 0) == 1 && (item.revents & events) != 0;
}

}  // namespace

void NoteRingChange() {
  // seq_cst, with ArmAll: either the sleeper sees the change, or we see the sleeper.
  ring_changes.fetch_add(1, std::memory_order_seq_cst);
  WakeSleepingSets();
}
std::uint64_t RingChanges() {
  return ring_changes.load(std::memory_order_seq_cst);
}

void EpollSet::Reset(int new_epfd) {
  epfd = new_epfd;
  hot_count_.store(0, std::memory_order_relaxed);
  rings_ = nested_ = 0;
  end_ = turn_ = 0;
  free_ = unseen_ = kNoWatch;
  in_family_ = false;
  by_others_ = 0;
  sleepers_ = 0;
  kick_fd_ = -1;
  seen_attaches_ = 0;
  static std::atomic<std::uint32_t> serial{0};
  waiter_ = 1ULL << 32 | serial.fetch_add(1, std::memory_order_relaxed);
  // Unguessable, so that no program's own data is ever taken for a tag.
  if (Sys(SYS_getrandom, &tag_, sizeof tag_, GRND_NONBLOCK) != sizeof tag_) tag_ = Ticks() * 0x9e3779b97f4a7c15ULL;
}

void EpollSet::Free() {
  for (std::uint32_t id = 0; id < end_; ++id) {
    Watch& watch = At(id);
    if (watch.fd < 0) continue;
    if (watch.armed && watch.ref) AfterSleep(watch.ref);
    NoteNoWatch(watch.fd);
  }
  GiveBackWakeFdsOf(waiter_);
  const int kick = kick_fd_.exchange(-1, std::memory_order_acq_rel);
  if (kick >= 0) DropOwnFd(kick);
  if (rings_fd_ >= 0) DropOwnFd(rings_fd_);
  rings_fd_ = -1;
  // The arrays stay, for the next set in this place: a thread may still be spinning on them.
  hot_count_.store(0, std::memory_order_relaxed);
  rings_ = nested_ = 0;
  end_ = 0;
  free_ = unseen_ = kNoWatch;
  epfd = -1;
}

std::uint32_t EpollSet::NewWatch() {
  if (free_ != kNoWatch) {
    const std::uint32_t id = free_;
    free_ = At(id).next_free;
    return id;
  }
  if (end_ == capacity_) {
    const std::uint32_t bigger = capacity_ == 0 ? 64 : capacity_ * 2;
    if (bigger > kMaxWatches) return kNoWatch;
    auto* watches = static_cast<Watch*>(Pages(bigger * sizeof(Watch)));
    auto* hot = static_cast<Relaxed<std::uint32_t>*>(Pages(bigger * sizeof(Relaxed<std::uint32_t>)));
    if (watches == nullptr || hot == nullptr) return kNoWatch;
    if (capacity_ != 0) {
      // The old arrays stay mapped: AnythingNew may be reading them. All of them together are no bigger than the new ones.
      std::memcpy(static_cast<void*>(watches), watches_.load(std::memory_order_relaxed), capacity_ * sizeof(Watch));
      std::memcpy(static_cast<void*>(hot), hot_.load(std::memory_order_relaxed), capacity_ * sizeof(*hot));
    }
    watches_.store(watches, std::memory_order_release);
    hot_.store(hot, std::memory_order_release);
    capacity_ = bigger;
  }
  At(end_) = {};  // another set may have been here
  return end_++;
}

void EpollSet::OnAdd(int fd, SockRef ref, bool nested, const struct epoll_event& event) {
  const std::uint32_t id = NewWatch();
  if (id == kNoWatch) return;
  Watch& watch = At(id);
  watch.fd = fd;
  watch.ref = ref;
  watch.sock = ref.sock;
  watch.events = event.events;
  watch.data = event.data.u64;
  watch.hot_at = kNotHot;
  watch.fresh = true;
  watch.nested = nested;
  NoteWatch(fd, id);
  if (nested) ++nested_;
  if (ref) ref.sock->watched.store(1, std::memory_order_relaxed);
  MakeUnseen(id);
}

std::uint32_t EpollSet::FindWatch(int fd) const {
  const std::uint32_t hint = WatchHint(fd);
  if (hint == kNoWatch) return kNoWatch;
  if (hint < end_ && At(hint).fd == fd) return hint;
  for (std::uint32_t id = 0; id < end_; ++id) {
    if (At(id).fd == fd) return id;
  }
  return kNoWatch;
}

void EpollSet::MakeUnseen(std::uint32_t id) {
  Watch& watch = At(id);
  if (watch.unseen) return;
  watch.unseen = true;
  watch.next_unseen = unseen_;
  unseen_ = id;
}

// Whatever is ready is news; and if there is no room now, room will be, as for the kernel after epoll_ctl.
void EpollSet::Renew(Watch& watch) {
  watch.fresh = true;
  if (watch.ref) watch.no_room = watch.ref.sock->nospace.load(std::memory_order_relaxed) - 1;
}

int EpollSet::ControlOnRing(int op, int fd, const struct epoll_event* event) {
  const std::uint32_t id = FindWatch(fd);
  if (id == kNoWatch || !At(id).on_ring) return 1;
  Watch& watch = At(id);
  const bool exclusive = (watch.events & EPOLLEXCLUSIVE) || (event != nullptr && (event->events & EPOLLEXCLUSIVE));
  if (!IsAttached(watch.ref) || exclusive || (event == nullptr && op != EPOLL_CTL_DEL)) {
    watch.dormant ? Drop(id, true) : ToKernel(id);
    return 1;
  }
  if (watch.dormant != (op == EPOLL_CTL_ADD)) return op == EPOLL_CTL_ADD ? -EEXIST : -ENOENT;
  if (op == EPOLL_CTL_DEL) {
    watch.dormant = true;
    if (watch.hot_at != kNotHot) Cool(id);
    if (watch.armed) {
      watch.armed = false;
      AfterSleep(watch.ref);
    }
    return 0;
  }
  watch.events = event->events;
  watch.data = event->data.u64;
  watch.disabled = watch.dormant = false;
  Renew(watch);
  if (op == EPOLL_CTL_ADD)
    watch.sticky |= watch.ref.sock->dead.load(std::memory_order_relaxed) != 0 ? static_cast<std::uint32_t>(EPOLLHUP) : 0u;
  Heat(id);
  // A thread that sleeps on this set has not armed for what is asked now.
  const auto is_to_look = [&] { return WantsRoom(watch, watch.ref.sock) && AwaitsGrant(watch.ref.sock); };  // by time, that is
  if (sleepers_ != 0 && (IsReady(watch) || !Arm(watch, WakeTargetOf(watch.ref.sock, waiter_)) || is_to_look())) Kick();
  return 0;
}

void EpollSet::OnModify(int fd, const struct epoll_event& event) {
  const std::uint32_t id = FindWatch(fd);
  if (id == kNoWatch) return;
  Watch& watch = At(id);
  watch.events = event.events;
  watch.data = event.data.u64;
  watch.disabled = false;
  Renew(watch);
  MakeUnseen(id);
}

void EpollSet::Drop(std::uint32_t id, bool closing) {
  Watch& watch = At(id);
  if (watch.on_ring) {
    --rings_;
    // A duplicate may keep the file, and so our registration, alive after this descriptor is gone.
    // (Not while another process shares both: there the registration goes on, as the kernel has it.)
    const bool shared = !watch.ref.Stale() && watch.ref.sock->processes.load(std::memory_order_relaxed) > 1;
    if (closing && !shared) Sys(SYS_epoll_ctl, rings_fd_, EPOLL_CTL_DEL, watch.fd, nullptr);
  }
  if (watch.nested) --nested_;
  if (watch.hot_at != kNotHot) Cool(id);
  if (watch.armed && watch.ref) AfterSleep(watch.ref);
  NoteNoWatch(watch.fd);
  const bool unseen = watch.unseen;
  const std::uint32_t next_unseen = watch.next_unseen;
  watch = {};
  watch.fd = -1;
  watch.hot_at = kNotHot;
  watch.unseen = unseen;
  watch.next_unseen = next_unseen;
  watch.next_free = free_;
  free_ = id;
}

void EpollSet::OnDelete(int fd, bool closing) {
  const std::uint32_t id = FindWatch(fd);
  if (id != kNoWatch) Drop(id, closing);
}

void EpollSet::Heat(std::uint32_t id) {
  Watch& watch = At(id);
  watch.quiet = 0;
  if (watch.armed && sleepers_ == 0) {
    watch.armed = false;
    AfterSleep(watch.ref);
  }
  if (watch.hot_at != kNotHot) return;
  watch.hot_at = HotCount();
  Hot(watch.hot_at) = id;
  hot_count_.store(watch.hot_at + 1, std::memory_order_release);
}

void EpollSet::Cool(std::uint32_t id) {
  const std::uint32_t at = At(id).hot_at;
  const std::uint32_t last = HotCount() - 1;
  Hot(at) = Hot(last);
  At(Hot(at)).hot_at = at;
  hot_count_.store(last, std::memory_order_release);
  At(id).hot_at = kNotHot;
}

// Our set within the program's: readable by the kernel's word when one of ours has news, and until they are taken.
bool EpollSet::MakeRings() {
  if (rings_fd_ >= 0) return true;
  const long made = Sys(SYS_epoll_create1, EPOLL_CLOEXEC);
  if (made < 0) return false;
  const int fd = KeepOwnFd(static_cast<int>(made));
  struct epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = tag_;
  if (Sys(SYS_epoll_ctl, epfd, EPOLL_CTL_ADD, fd, &event) != 0) {
    DropOwnFd(fd);
    return false;
  }
  rings_fd_ = fd;
  return true;
}

bool EpollSet::AddToRings(int fd, std::uint32_t events, std::uint32_t id) {
  struct epoll_event event = {};
  event.events = events | EPOLLET;
  event.data.u64 = id;
  return MakeRings() && Sys(SYS_epoll_ctl, rings_fd_, EPOLL_CTL_ADD, fd, &event) == 0;
}

// Without a set of ours the connection stays the kernel's to tell of: whoever waits there is rung by TCP.
void EpollSet::ToRing(std::uint32_t id) {
  Watch& watch = At(id);
  if (!AddToRings(watch.fd, kKernelEvents, id)) return;
  Sys(SYS_epoll_ctl, epfd, EPOLL_CTL_DEL, watch.fd, nullptr);
  watch.on_ring = true;
  watch.sticky = watch.told = 0;
  Renew(watch);
  watch.ref.sock->shim_waits.store(1, std::memory_order_relaxed);
  ++rings_;
  Heat(id);
  const WakeFd wake = OwnWakeFd(watch.ref.sock, waiter_);
  if (!wake.fresh) return;
  if (!AddToRings(wake.fd, EPOLLIN, kWakeId)) RetireWakeFd(wake.fd);
}

void EpollSet::ToKernel(std::uint32_t id) {
  Watch& watch = At(id);
  struct epoll_event event = {};
  event.events = watch.events;
  if (watch.disabled) event.events = EPOLLONESHOT;
  event.data.u64 = watch.data;
  Sys(SYS_epoll_ctl, epfd, EPOLL_CTL_ADD, watch.fd, &event);
  Sys(SYS_epoll_ctl, rings_fd_, EPOLL_CTL_DEL, watch.fd, nullptr);
  watch.on_ring = false;
  --rings_;
  if (watch.hot_at != kNotHot) Cool(id);
  if (watch.armed) AfterSleep(watch.ref);
  watch.armed = false;
}

// Takes the kernel's news of rings, whole: for connections it is noted, to be looked at by Collect.
void EpollSet::Harvest() {
  if (rings_fd_ < 0) return;
  struct epoll_event batch[32];
  long got;
  do {
    got = Sys(SYS_epoll_pwait, rings_fd_, batch, 32, 0, nullptr, 8);
    for (long i = 0; i < got; ++i) {
      const auto id = static_cast<std::uint32_t>(batch[i].data.u64);
      told_.store(true, std::memory_order_relaxed);
      if (id == kWakeId) {
        DrainWakesOf(waiter_);
        continue;
      }
      if (id >= end_ || At(id).fd < 0 || !At(id).on_ring) continue;
      Watch& watch = At(id);
      if (!IsAttached(watch.ref)) {
        watch.dormant ? Drop(id, true) : ToKernel(id);
        continue;
      }
      watch.told |= batch[i].events;
      if (watch.dormant) continue;
      Heat(id);
    }
  } while (got == 32);
}

void EpollSet::See(std::uint32_t id) {
  Watch& watch = At(id);
  if (watch.fd < 0 || !watch.ref) return;
  if (watch.ref.sock->phase.load(std::memory_order_acquire) == Phase::kGranted) ConsiderAttach(watch.ref, watch.fd);
  const bool attached = IsAttached(watch.ref);
  if (attached && !watch.on_ring) ToRing(id);
  if (!attached && watch.on_ring) watch.dormant ? Drop(id, true) : ToKernel(id);
}

void EpollSet::Refresh() {
  while (unseen_ != kNoWatch) {
    const std::uint32_t id = unseen_;
    unseen_ = At(id).next_unseen;
    At(id).unseen = false;
    See(id);
  }
  const std::uint64_t changes = RingChanges();
  if (changes == seen_attaches_) return;
  seen_attaches_ = changes;
  for (std::uint32_t id = 0; id < end_; ++id) See(id);
}

std::uint32_t EpollSet::Ready(Watch& watch, bool kernel_ready, std::uint32_t kernel_events) {
  const std::uint32_t no_room = watch.ref.sock->nospace.load(std::memory_order_relaxed);  // before the look: later ones are later edges
  Readiness now = Look(watch.ref, watch.fd, kernel_ready);
  if (now.in_by_kernel && (watch.events & kInEvents)) now = Look(watch.ref, watch.fd, true);
  watch.sticky |= kernel_events & kEndEvents;
  if (now.only_fin) watch.sticky &= ~static_cast<std::uint32_t>(EPOLLERR);
  // A FIN alone hangs up only a connection that this side has ended, too (poll(2)).
  if (now.only_fin && watch.ref.sock->shut_wr.load(std::memory_order_relaxed) == 0) watch.sticky &= ~static_cast<std::uint32_t>(EPOLLHUP);
  if (watch.ref.sock->fin_seen.load(std::memory_order_relaxed) != 0) watch.sticky |= EPOLLRDHUP;  // a cut leaves the kernel none
  if (now.out_by_kernel) now.out = (watch.events & kOutEvents) != 0 && KernelSays(watch.fd, POLLOUT);
  std::uint32_t ready = (now.in ? kInEvents : 0) | (now.out ? kOutEvents : 0) | watch.sticky | (kernel_events & EPOLLPRI);
  ready &= watch.events | EPOLLHUP | EPOLLERR;
  if (ready == 0 || !(watch.events & EPOLLET)) return ready;
  // An edge: bytes that were not there at the last report, room after a send that found none, or what the kernel has just told.
  const bool in_edge = now.in && now.in_mark != watch.in_mark;
  const bool out_edge = now.out && no_room != watch.no_room;
  const bool end_edge = (kernel_events & kEndEvents) != 0;
  if (!watch.fresh && !in_edge && !out_edge && !end_edge) return 0;
  watch.in_mark = now.in_mark;
  if (now.out) watch.no_room = no_room;
  return ready;
}

void EpollSet::Fire(Watch& watch) {
  watch.fresh = false;
  watch.quiet = 0;
  if (watch.events & EPOLLONESHOT) watch.disabled = true;
}

int EpollSet::Collect(struct epoll_event* out, int room) {
  int count = 0;
  const std::uint32_t all = HotCount();
  told_.store(false, std::memory_order_relaxed);
  HeatTold();
  for (std::uint32_t i = 0; i < all && count < room; ++i) {
    if (turn_ >= HotCount()) turn_ = 0;
    if (HotCount() == 0) break;
    const std::uint32_t id = Hot(turn_++);
    Watch& watch = At(id);
    if (watch.disabled) continue;
    // Nothing changed by the ring since an empty look: do not take locks to find out. Ends and TCP come by the kernel.
    const bool news = watch.fresh || watch.told != 0 || watch.sticky != 0 || ((watch.events & kInEvents) && RingHasData(watch.ref.sock)) ||
                      (watch.events & kOutEvents) != 0 || watch.ref.sock->framed.load(std::memory_order_relaxed) == 0;
    const std::uint32_t told = watch.told & ~static_cast<std::uint32_t>(EPOLLOUT);
    const std::uint32_t ready = news ? Ready(watch, watch.told != 0, told) : 0;
    watch.fresh = false;
    watch.told = 0;
    if (ready != 0) {
      out[count].events = ready;
      out[count++].data.u64 = watch.data;
      Fire(watch);
    } else if (++watch.quiet > kQuietLooks && Park(id)) {
      --turn_;
    }
  }
  if (count == room) told_.store(true, std::memory_order_relaxed);  // there may be more
  for (std::uint32_t id = 0; nested_ != 0 && id < end_ && count < room; ++id) {
    Watch& watch = At(id);
    if (!watch.nested || watch.disabled || watch.fd < 0) continue;
    EpollSet* inner = FindSet(watch.fd);
    if (inner == nullptr || inner == this || !(watch.events & kInEvents)) continue;
    Holding hold(inner->lock);
    if (!hold.Held() || !inner->IsReady()) continue;
    out[count].events = kInEvents & watch.events;
    out[count++].data.u64 = watch.data;
    Fire(watch);
  }
  return count;
}

int EpollSet::Translate(struct epoll_event* all, int collected, int from_kernel) {
  int kept = collected;
  bool rings = false;
  for (int i = collected; i < collected + from_kernel; ++i) {
    const struct epoll_event event = all[i];
    if (event.data.u64 == tag_) {
      rings = true;
      continue;
    }
    bool already = false;  // an inner set, which we have looked into as well
    for (int c = 0; nested_ != 0 && c < collected && !already; ++c) {
      already = all[c].data.u64 == event.data.u64;
      if (already) all[c].events |= event.events;
    }
    if (!already) all[kept++] = event;
  }
  if (rings) Harvest();
  return kept;
}

}  // namespace vsocket::shim
