// What the shim knows of an epoll set: the connections in it, and which of them are on a channel.
//
// The kernel's set stays the truth for everything else. A connection that gets a channel moves to a kernel set of ours inside the
// program's, edge-triggered; level, edge and one-shot are then the shim's to give. One that falls back to plain TCP gets the program's own
// registration back. So whatever else makes the program's set ready is the kernel's to tell, however the program asks: poll, an outer set.
// Hot connections are looked at directly, without a system call; quiet ones are parked: armed with the TCP bell, and left to the kernel
// until it reports them.
//
// Per process. Thread safety: each set has a lock; it is never held while sleeping.
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <cstdint>

#include "shim/sock.h"

namespace vsocket::shim {

struct Watch {
  int fd;
  SockRef ref;                    // null sock: free, or a nested set
  Relaxed<Sock*> sock;            // ref.sock, for who looks without the lock
  Relaxed<std::uint32_t> events;  // as the program asked
  std::uint64_t data;
  Relaxed<std::uint64_t> in_mark;  // EPOLLET: what was reported already
  Relaxed<std::uint32_t> no_room;  // EPOLLET: sends without room (Sock::nospace) after which room was reported
  std::uint32_t sticky;            // EPOLLHUP, EPOLLERR, EPOLLRDHUP as the kernel reported them
  std::uint32_t told;              // what the kernel has reported since the last look
  std::uint32_t quiet;             // looks in a row without news
  std::uint32_t hot_at;            // place in `hot`, or kNotHot
  bool on_ring;                    // the kernel registration is ours
  Relaxed<bool> disabled;          // EPOLLONESHOT has fired
  bool fresh;                      // just added or modified: the next look reports whatever is ready, edge or not
  bool nested;                     // an epoll set within this one
  bool armed;                      // parked, or prepared for a sleep
  bool dormant;                    // deleted by the program
  bool unseen;                     // in the list of those that Refresh is to look at; a freed place stays in it
  std::uint32_t next_unseen;
  std::uint32_t next_free;
};
inline constexpr std::uint32_t kNotHot = UINT32_MAX;
inline constexpr std::uint32_t kNoWatch = UINT32_MAX;
inline constexpr std::uint32_t kWakeId = 0xfffff;  // as data in our set: a wake object, or the kick
inline constexpr std::uint32_t kInEvents = EPOLLIN | EPOLLRDNORM;
inline constexpr std::uint32_t kOutEvents = EPOLLOUT | EPOLLWRNORM;

[[nodiscard]] inline bool IsAttached(SockRef ref) {
  return !ref.Stale() && ref.sock->phase.load(std::memory_order_acquire) == Phase::kAttached;
}

class EpollSet {
 public:
  Lock lock;
  Relaxed<int> epfd = -1;

  void OnAdd(int fd, SockRef ref, bool nested, const struct epoll_event& event);
  // epoll_ctl for a connection on a ring, without the kernel: our registration asks for everything, and one that the program deletes
  // stays there, dormant, for the next add (programs delete and add for each request). 0 or -errno as epoll_ctl(2); 1: ask the kernel.
  int ControlOnRing(int op, int fd, const struct epoll_event* event);
  void OnModify(int fd, const struct epoll_event& event);
  void OnDelete(int fd, bool closing);

  // lock. Takes connections that attached, or lost their channel, since the last look into account. Costs nothing per connection while
  // none did: only what was added or modified is looked at.
  void Refresh();
  [[nodiscard]] bool HasRings() const { return rings_ != 0; }
  [[nodiscard]] bool HasNested() const { return nested_ != 0; }
  // Must the shim look when somebody waits for this set by poll?
  [[nodiscard]] bool NeedsUs() const;
  // No lock needed: who comes after this looks at everything by itself.
  [[nodiscard]] bool HasSleepers() const { return sleepers_.load(std::memory_order_relaxed) != 0; }

  // lock. Events of hot connections, at most `room`; starts where the last call stopped.
  int Collect(struct epoll_event* out, int room);
  // lock. Turns what the kernel returned, behind `collected` events of ours, into what the program is to see. News of rings are noted for
  // the next Collect (AnythingNew).
  int Translate(struct epoll_event* all, int collected, int from_kernel);
  // No lock needed: cheap look at the hot rings, for spinning.
  [[nodiscard]] bool AnythingNew() const;
  // lock. Arms every hot connection for a thread that is about to sleep on this set. False: something is ready. RelaxAll after the sleep,
  // either way; the last of several sleepers disarms.
  bool ArmAll();
  void RelaxAll();
  // lock. By a thread that goes back to the program, perhaps with the news that another sleeper was to be woken for: arms again for those
  // who still sleep, and wakes one when there is more.
  void WakeOthers();
  // No lock. A connection has got a channel, or lost it: whoever sleeps on this set looks whether it is one of its.
  void WakeForChange();
  // No lock. Somebody else has taken what the kernel would have told of this connection.
  void Tell(const Sock* sock);
  // lock. For a poll or an outer set: is anything ready now?
  [[nodiscard]] bool IsReady();

  void Reset(int new_epfd);
  void Inherit();  // in the child after fork
  void Free();

 private:
  friend EpollSet* FindSet(int);
  std::uint32_t NewWatch();
  [[nodiscard]] std::uint32_t FindWatch(int fd) const;
  void Drop(std::uint32_t id, bool closing);
  void MakeUnseen(std::uint32_t id);
  void See(std::uint32_t id);
  void ToRing(std::uint32_t id);
  void ToKernel(std::uint32_t id);
  bool MakeRings();
  bool AddToRings(int fd, std::uint32_t events, std::uint32_t id);
  void Harvest();
  void HeatTold();
  void Heat(std::uint32_t id);
  void Cool(std::uint32_t id);
  bool Park(std::uint32_t id);
  bool Arm(Watch& watch, std::uint32_t target);
  bool ArmHot();
  void Kick();
  bool MakeKick();
  [[nodiscard]] bool IsReady(Watch& watch);
  [[nodiscard]] static bool WantsRoom(const Watch& watch, const Sock* sock);
  std::uint32_t Ready(Watch& watch, bool kernel_ready, std::uint32_t kernel_events);
  void Fire(Watch& watch);
  // lock. The arrays, and how many of `hot` there are.
  [[nodiscard]] Watch& At(std::uint32_t id) const { return watches_.load(std::memory_order_relaxed)[id]; }
  [[nodiscard]] Relaxed<std::uint32_t>& Hot(std::uint32_t at) const { return hot_.load(std::memory_order_relaxed)[at]; }
  [[nodiscard]] std::uint32_t HotCount() const { return hot_count_.load(std::memory_order_relaxed); }
  void Renew(Watch& watch);
  // AnythingNew reads the three without the lock, in the opposite order of that in which they grow: what it has counted is in the list that
  // it then loads, and what the list names is in the array that it loads after that (release and acquire).
  std::atomic<Watch*> watches_{nullptr};
  std::atomic<Relaxed<std::uint32_t>*> hot_{nullptr};
  std::atomic<std::uint32_t> hot_count_{0};
  std::uint32_t capacity_ = 0, end_ = 0, turn_ = 0;
  std::uint32_t free_ = kNoWatch, unseen_ = kNoWatch;  // heads of lists
  Relaxed<std::uint32_t> rings_ = 0, nested_ = 0;
  std::atomic<std::uint32_t> sleepers_{0};   // threads between ArmAll and RelaxAll
  std::atomic<int> kick_fd_{-1};             // in the kernel's set from the first time that a sleeper must be woken by this side
  int rings_fd_ = -1;                        // the kernel set of connections on rings and of wake objects, in the program's set under tag_
  std::atomic<bool> told_{false};            // Harvest has found something
  std::atomic<std::uint32_t> by_others_{0};  // the connection that Tell was about; kNotHot: more than one
  std::uint64_t tag_ = 0;
  Relaxed<std::uint64_t> seen_attaches_ = 0;
  std::uint64_t waiter_ = 0;  // names this set among the waiters of wake_fds.h
  bool in_family_ = false;    // rings_fd_ hears of bells that other processes have taken (family.h)
};

// The set behind an epoll descriptor, if the shim follows it; made by the first connection added.
EpollSet* FindSet(int epfd);
EpollSet* MakeSet(int epfd);
EpollSet* MakeSetIfEpoll(int fd);                // null for any other descriptor
void DropSet(int epfd);                          // closed
void CopySet(int epfd, int copy);                // dup
void ForgetSets(unsigned first, unsigned last);  // close_range, both ends included
void RefreshSets();                              // before exec: connections that have left their channels are the kernel's again
void WakeSleepingSets();                         // a connection got a channel, or lost it
void TellSets(const Sock* sock);                 // somebody has taken the bell off it, or changed its way
void InheritSets();                              // in the child after fork
// A connection's descriptor is being closed: out of every set.
void ForgetWatches(int fd, SockRef ref);

// Where a descriptor's watch was last put, a guess that the set verifies; and that no set holds one, which is certain.
// Every NoteWatch is followed by one NoteNoWatch, when the watch goes.
inline constexpr std::uint32_t kWatchIdBits = 20;
std::uint32_t WatchHint(int fd);  // an id, or kNoWatch
void NoteWatch(int fd, std::uint32_t id);
void NoteNoWatch(int fd);
void DoubtWatchHint(int fd);  // nothing is certain of it any more

// Counted by Attach and by the way back: sets look again when it has moved, and those that are slept on are woken.
void NoteRingChange();
std::uint64_t RingChanges();

}  // namespace vsocket::shim
