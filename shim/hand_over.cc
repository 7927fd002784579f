#include "shim/hand_over.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>

#include "shim/agent_link.h"
#include "shim/epoll_set.h"
#include "shim/process.h"
#include "shim/stream.h"
#include "shim/sys.h"
#include "shim/upgrade.h"

namespace vsocket::shim {
namespace {

constexpr int kMaxOwed = 256;

// Regions a vfork child has no more use for; its parent lets go of them (SettleRegions).
struct Owed {
  std::uint32_t index;
  std::uint64_t region_id;
};
Owed owed[kMaxOwed];
std::atomic<int> owed_count{0};
Lock owed_lock;

bool CookieOf(int fd, std::uint64_t* cookie) {
  int size = sizeof *cookie;
  return Sys(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, cookie, &size) == 0;
}

struct Search {
  std::uint64_t cookie;
  SockRef found;
};

void CompareCookie(int, SockRef ref, void* context) {
  Search& search = *static_cast<Search*>(context);
  if (ref.sock->cookie == search.cookie) search.found = ref;
}

// The connection that `fd` stands for by the kernel's word, where the table's may be another process's or out of date.
SockRef FindByKernel(int fd) {
  Search search{0, {}};
  if (!CookieOf(fd, &search.cookie)) return {};
  const SockRef ref = FindSock(fd);
  // No cookie yet: never asked for a channel. The number is the best there is, and a wrong guess costs speed only.
  if (ref && (ref.sock->cookie == search.cookie || ref.sock->cookie == 0)) return ref;
  ForEachSock(CompareCookie, &search);
  return search.found;
}

void LeaveInVforkChild(SockRef ref, int fd, channel::Reason reason) {
  Sock* sock = ref.sock;
  const Owed region{sock->region, sock->region_id};
  HoldRegionAt(region.index);  // so that the last user is not met here: its descriptor is open in the parent
  LeaveForGood(ref, fd, reason);
  Holding hold(owed_lock);
  const int count = owed_count.load(std::memory_order_relaxed);
  if (!hold.Held() || count == kMaxOwed) return;  // the mapping stays: memory, not bytes
  owed[count] = region;
  owed_count.store(count + 1, std::memory_order_release);
}

void HandOver(SockRef ref, int fd, channel::Reason reason, bool in_vfork_child) {
  Sock* sock = ref.sock;
  std::uint16_t none = 0;
  const bool first =
      sock->pinned.compare_exchange_strong(none, static_cast<std::uint16_t>(reason));  // seen by who attaches: before the phase
  for (;;) {
    switch (sock->phase.load(std::memory_order_seq_cst)) {
      case Phase::kAttached:
        if (in_vfork_child) return LeaveInVforkChild(ref, fd, reason);
        return LeaveForGood(ref, fd, reason);
      case Phase::kGranted:
        ConsiderAttach(ref, fd);  // which finds it pinned and gives the channel back, now or after the call that is in the kernel
        if (sock->phase.load(std::memory_order_acquire) == Phase::kGranted) return;
        continue;
      case Phase::kAsked: {
        Phase asked = Phase::kAsked;
        if (SendCancel(sock)) sock->phase.compare_exchange_strong(asked, Phase::kPlain, std::memory_order_acq_rel);
        if (first) SendNote(sock, reason);
        return;  // not withdrawn: the answer is being read, or comes to another process; either finds it pinned
      }
      default:
        if (first) SendNote(sock, reason);
        return;
    }
  }
}

void HandOverInherited(int fd, bool in_vfork_child) {
  const long flags = Sys(SYS_fcntl, fd, F_GETFD, 0);
  if (flags < 0 || (flags & FD_CLOEXEC)) return;
  const SockRef ref = FindByKernel(fd);
  if (ref && ref.sock->phase.load(std::memory_order_relaxed) >= Phase::kPlain) {
    HandOver(ref, fd, channel::Reason::kHandedOver, in_vfork_child);
  }
}

// getdents64(2)'s record.
struct DirectoryEntry {
  std::uint64_t inode;
  std::int64_t next;
  std::uint16_t size;
  std::uint8_t type;
  char name[1];  // and on, to a null byte
};

// Calls visit(fd) for each open descriptor of this very process. False: /proc is not there.
template <typename Visit>
bool ForEachOpenFd(Visit visit) {
  long directory = Sys(SYS_openat, AT_FDCWD, "/proc/thread-self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (directory < 0) directory = Sys(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (directory < 0) return false;
  alignas(DirectoryEntry) char entries[4096];
  for (;;) {
    const long size = Sys(SYS_getdents64, directory, entries, sizeof entries);
    if (size <= 0) break;
    for (long at = 0; at < size;) {
      const auto* entry = reinterpret_cast<const DirectoryEntry*>(entries + at);
      at += entry->size;
      if (entry->name[0] < '0' || entry->name[0] > '9') continue;
      int fd = 0;
      for (const char* digit = entry->name; *digit != '\0'; ++digit) fd = fd * 10 + (*digit - '0');
      if (fd != directory) visit(fd);
    }
  }
  Sys(SYS_close, directory);
  return true;
}

void NoteConnection(int, SockRef ref, void* context) {
  if (ref.sock->phase.load(std::memory_order_relaxed) >= Phase::kPlain) *static_cast<bool*>(context) = true;
}

void HandOverFromTable(int fd, SockRef, void* context) {
  HandOverInherited(fd, *static_cast<bool*>(context));
}

}  // namespace

void UseTcp(int fd, channel::Reason reason) {
  const SockRef ref = FindSock(fd);
  const bool in_vfork_child = ref && InVforkChild();
  const SockRef real = in_vfork_child ? FindByKernel(fd) : ref;
  if (real) HandOver(real, fd, reason, in_vfork_child);
}

void BeforePassing(const struct msghdr* message) {
  if (message == nullptr || message->msg_control == nullptr) return;
  const auto* control = static_cast<const std::byte*>(message->msg_control);
  const std::size_t size = message->msg_controllen;
  // Not CMSG_NXTHDR: its function is not in every libc. The kernel checks the same bounds (cmsg(3)).
  for (std::size_t at = 0; at + sizeof(struct cmsghdr) <= size;) {
    struct cmsghdr header;
    std::memcpy(&header, control + at, sizeof header);
    if (header.cmsg_len < sizeof header || header.cmsg_len > size - at) return;
    if (header.cmsg_level == SOL_SOCKET && header.cmsg_type == SCM_RIGHTS) {
      for (std::size_t i = CMSG_LEN(0); i + sizeof(int) <= header.cmsg_len; i += sizeof(int)) {
        int fd;
        std::memcpy(&fd, control + at + i, sizeof fd);
        UseTcp(fd, channel::Reason::kHandedOver);
      }
    }
    at += CMSG_ALIGN(header.cmsg_len);
  }
}

void BeforeExec() {
  bool any = false;
  ForEachSock(NoteConnection, &any);
  if (!any) return;
  bool in_vfork_child = InVforkChild();
  if (!ForEachOpenFd([&](int fd) { HandOverInherited(fd, in_vfork_child); })) ForEachSock(HandOverFromTable, &in_vfork_child);
  RefreshSets();
}

void FreeHandOverLock() {
  owed_lock.Reset();
}

void SettleRegions() {
  if (owed_count.load(std::memory_order_acquire) == 0) return;
  Holding hold(owed_lock);
  if (!hold.Held()) return;
  for (int i = owed_count.exchange(0, std::memory_order_relaxed) - 1; i >= 0; --i) LetGoRegionAt(owed[i].index, owed[i].region_id);
}

}  // namespace vsocket::shim
