// Which descriptors are epoll sets that hold connections of ours.
#include <fcntl.h>
#include <sys/mman.h>

#include <cstring>
#include <utility>

#include "shim/epoll_set.h"
#include "shim/process.h"
#include "shim/sys.h"
#include "shim/text.h"

namespace vsocket::shim {
namespace {

constexpr int kMaxSets = 1024;
constexpr int kMaxFds = 1 << 20;

EpollSet sets[kMaxSets];
std::atomic<int> sets_end{0};
// release: the tables are there
std::atomic<std::atomic<std::uint16_t>*> by_fd_table{nullptr};  // index + 1
std::atomic<std::atomic<std::uint32_t>*> hints_table{nullptr};  // sets that hold a watch of it << kWatchIdBits | id
constexpr std::uint32_t kWatchIdMask = (1U << kWatchIdBits) - 1;
constexpr std::uint32_t kManyHolders = UINT32_MAX >> kWatchIdBits;  // and for ever: how many is not known
std::atomic<std::int32_t> users[kMaxSets];                          // descriptors that name the set
Lock making;

std::atomic<std::uint16_t>* ByFd() {
  return by_fd_table.load(std::memory_order_acquire);
}

std::atomic<std::uint32_t>* Hints() {
  return hints_table.load(std::memory_order_acquire);
}

// `change`: (holders, id) to the same. Sets under different locks may hold the same descriptor.
template <typename Change>
void UpdateHint(int fd, Change change) {
  if (Hints() == nullptr || static_cast<unsigned>(fd) >= kMaxFds) return;
  std::atomic<std::uint32_t>& word = Hints()[fd];
  std::uint32_t old = word.load(std::memory_order_relaxed);
  std::uint32_t next;
  do {
    const auto [holders, id] = change(old >> kWatchIdBits, old & kWatchIdMask);
    next = holders << kWatchIdBits | id;
  } while (!word.compare_exchange_weak(old, next, std::memory_order_relaxed));
}

// making
bool HaveTable() {
  if (ByFd() != nullptr) return true;
  const std::size_t size = kMaxFds * (sizeof(*ByFd()) + sizeof(*Hints()));
  const long at = Sys(SYS_mmap, nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at < 0 && at > -4096) return false;
  hints_table.store(reinterpret_cast<std::atomic<std::uint32_t>*>(at), std::memory_order_release);
  const long behind = at + static_cast<long>(kMaxFds * sizeof(*Hints()));
  by_fd_table.store(reinterpret_cast<std::atomic<std::uint16_t>*>(behind), std::memory_order_release);
  return true;
}

}  // namespace

EpollSet* FindSet(int epfd) {
  if (ByFd() == nullptr || static_cast<unsigned>(epfd) >= kMaxFds) return nullptr;
  const std::uint16_t entry = ByFd()[epfd].load(std::memory_order_acquire);
  return entry == 0 ? nullptr : &sets[entry - 1];
}

EpollSet* MakeSet(int epfd) {
  if (static_cast<unsigned>(epfd) >= kMaxFds) return nullptr;
  if (EpollSet* known = FindSet(epfd)) return known;
  NoFork no_fork;  // a child's descriptors are copied before its memory: it would know of a set that it does not have
  Holding hold(making);
  if (!hold.Held() || !HaveTable()) return nullptr;
  if (EpollSet* known = FindSet(epfd)) return known;
  for (int i = 0; i < kMaxSets; ++i) {
    if (users[i].load(std::memory_order_relaxed) != 0) continue;
    users[i].store(1, std::memory_order_relaxed);
    Holding inside(sets[i].lock);
    sets[i].Reset(epfd);
    if (i >= sets_end.load(std::memory_order_relaxed)) sets_end.store(i + 1, std::memory_order_release);
    ByFd()[epfd].store(static_cast<std::uint16_t>(i + 1), std::memory_order_release);
    return &sets[i];
  }
  return nullptr;
}

EpollSet* MakeSetIfEpoll(int fd) {
  if (EpollSet* known = FindSet(fd)) return known;
  if (fd < 0) return nullptr;
  Line<32> path;
  path.Add("/proc/self/fd/").Add(static_cast<std::uint64_t>(fd));
  char link[32] = {};
  constexpr char kEpoll[] = "anon_inode:[eventpoll]";
  char name[33] = {};
  std::memcpy(name, path.Data(), path.Size());
  const long size = Sys(SYS_readlinkat, AT_FDCWD, name, link, sizeof link - 1);
  return size == sizeof kEpoll - 1 && std::memcmp(link, kEpoll, sizeof kEpoll - 1) == 0 ? MakeSet(fd) : nullptr;
}

void DropSet(int epfd) {
  if (ByFd() == nullptr || static_cast<unsigned>(epfd) >= kMaxFds) return;
  Holding hold(making);  // a place that seems free before it is would be freed under its next owner
  const std::uint16_t entry = ByFd()[epfd].exchange(0, std::memory_order_acq_rel);
  if (entry == 0 || users[entry - 1].fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  EpollSet& set = sets[entry - 1];
  Holding inside(set.lock);
  set.Free();
}

void ForgetSets(unsigned first, unsigned last) {
  const int end = sets_end.load(std::memory_order_acquire);
  for (int i = 0; i < end; ++i) {
    const int epfd = sets[i].epfd;
    if (epfd >= 0 && static_cast<unsigned>(epfd) >= first && static_cast<unsigned>(epfd) <= last) DropSet(epfd);
  }
}

void CopySet(int epfd, int copy) {
  if (ByFd() == nullptr || static_cast<unsigned>(epfd) >= kMaxFds || static_cast<unsigned>(copy) >= kMaxFds) return;
  const std::uint16_t entry = ByFd()[epfd].load(std::memory_order_acquire);
  if (entry == 0) return;
  users[entry - 1].fetch_add(1, std::memory_order_relaxed);
  ByFd()[copy].store(entry, std::memory_order_release);
}

void RefreshSets() {
  const int end = sets_end.load(std::memory_order_acquire);
  for (int i = 0; i < end; ++i) {
    if (users[i].load(std::memory_order_relaxed) == 0) continue;
    Holding hold(sets[i].lock);
    if (hold.Held()) sets[i].Refresh();
  }
}

void WakeSleepingSets() {
  const int end = sets_end.load(std::memory_order_acquire);
  for (int i = 0; i < end; ++i) sets[i].WakeForChange();
}

void TellSets(const Sock* sock) {
  const int end = sets_end.load(std::memory_order_acquire);
  for (int i = 0; i < end; ++i) sets[i].Tell(sock);
}

void InheritSets() {
  making.Reset();
  const int end = sets_end.load(std::memory_order_acquire);
  for (int i = 0; i < end; ++i) {
    sets[i].lock.Reset();
    if (sets[i].epfd >= 0) sets[i].Inherit();
  }
}

std::uint32_t WatchHint(int fd) {
  if (Hints() == nullptr || static_cast<unsigned>(fd) >= kMaxFds) return 0;
  const std::uint32_t hint = Hints()[fd].load(std::memory_order_relaxed);
  return hint >> kWatchIdBits == 0 ? kNoWatch : hint & kWatchIdMask;
}

void NoteWatch(int fd, std::uint32_t id) {
  UpdateHint(fd, [id](std::uint32_t holders, std::uint32_t) { return std::pair{holders == kManyHolders ? holders : holders + 1, id}; });
}

void NoteNoWatch(int fd) {
  UpdateHint(fd, [](std::uint32_t holders, std::uint32_t id) {
    return std::pair{holders == kManyHolders || holders == 0 ? holders : holders - 1, id};
  });
}

void DoubtWatchHint(int fd) {
  UpdateHint(fd, [](std::uint32_t, std::uint32_t id) { return std::pair{kManyHolders, id}; });
}

void ForgetWatches(int fd, SockRef ref) {
  if (ref && ref.sock->watched.load(std::memory_order_relaxed) == 0) return;
  const int end = sets_end.load(std::memory_order_acquire);
  for (int i = 0; i < end; ++i) {
    if (sets[i].epfd < 0 || users[i].load(std::memory_order_relaxed) == 0) continue;
    Holding hold(sets[i].lock);
    if (hold.Held()) sets[i].OnDelete(fd, true);
  }
}

}  // namespace vsocket::shim
