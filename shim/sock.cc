#include "shim/sock.h"

#include <sys/mman.h>

#include <new>

#include "shim/sys.h"

namespace vsocket::shim {
namespace {

constexpr std::uint32_t kIndexBits = 18;
constexpr std::uint32_t kMaxSocks = 1u << kIndexBits;
constexpr std::uint32_t kGenerationMask = (1u << (32 - kIndexBits)) - 1;
constexpr std::uint32_t kMaxFds = 1u << 20;

// Shared with forks. Index 0 is never handed out: a table entry of 0 means "not ours".
struct Arena {
  std::atomic<std::uint64_t> free_list;  // tag << 32 | index; the tag defeats ABA
  std::atomic<std::uint32_t> next_unused;
};

Arena* arena;
Sock* socks;
std::atomic<std::uint32_t>* table;      // per process: generation << kIndexBits | index
std::atomic<std::uint16_t>* local_fds;  // per process: fds of this process for each Sock
std::atomic<std::int32_t> highest_fd{-1};

void* Reserve(std::size_t size, int kind) {
  const long result = Sys(SYS_mmap, nullptr, size, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return result < 0 && result > -4096 ? nullptr : reinterpret_cast<void*>(result);
}

std::uint32_t PopFree() {
  std::uint64_t head = arena->free_list.load(std::memory_order_acquire);
  while (static_cast<std::uint32_t>(head) != 0) {
    const std::uint32_t index = static_cast<std::uint32_t>(head) & (kMaxSocks - 1);
    const std::uint64_t next = ((head >> 32) + 1) << 32 | socks[index].next_free;
    if (arena->free_list.compare_exchange_weak(head, next, std::memory_order_acq_rel)) return index;
  }
  const std::uint32_t fresh = arena->next_unused.fetch_add(1, std::memory_order_relaxed);
  if (fresh < kMaxSocks) return fresh;
  arena->next_unused.store(kMaxSocks, std::memory_order_relaxed);
  return 0;
}

std::uint32_t Entry(std::uint32_t index, std::uint32_t generation) {
  return (generation & kGenerationMask) << kIndexBits | index;
}

void NoteFd(int fd) {
  std::int32_t seen = highest_fd.load(std::memory_order_relaxed);
  while (fd > seen && !highest_fd.compare_exchange_weak(seen, fd, std::memory_order_relaxed)) {
  }
}

}  // namespace

bool InitSocks() {
  void* shared = Reserve(4096 + static_cast<std::size_t>(kMaxSocks) * sizeof(Sock), MAP_SHARED);
  void* fds = Reserve(kMaxFds * sizeof(*table), MAP_PRIVATE);
  void* counts = Reserve(kMaxSocks * sizeof(*local_fds), MAP_PRIVATE);
  if (shared == nullptr || fds == nullptr || counts == nullptr) return false;
  arena = static_cast<Arena*>(shared);
  arena->next_unused.store(1, std::memory_order_relaxed);
  socks = reinterpret_cast<Sock*>(static_cast<std::byte*>(shared) + 4096);
  local_fds = static_cast<std::atomic<std::uint16_t>*>(counts);
  table = static_cast<std::atomic<std::uint32_t>*>(fds);
  return true;
}

SockRef FindSock(int fd) {
  if (static_cast<std::uint32_t>(fd) >= kMaxFds || table == nullptr) return {};
  const std::uint32_t entry = table[fd].load(std::memory_order_acquire);
  if (entry == 0) return {};
  return {&socks[entry & (kMaxSocks - 1)], entry >> kIndexBits};
}

Sock* TrackNew(int fd, Phase phase, bool initiator) {
  if (fd < 0 || static_cast<std::uint32_t>(fd) >= kMaxFds || table == nullptr) return nullptr;
  const std::uint32_t index = PopFree();
  if (index == 0) return nullptr;
  Sock* sock = &socks[index];
  const std::uint32_t generation = sock->generation.load(std::memory_order_relaxed);
  new (sock) Sock();
  sock->generation.store(generation, std::memory_order_relaxed);
  sock->processes.store(1, std::memory_order_relaxed);
  sock->initiator.store(initiator, std::memory_order_relaxed);
  sock->phase.store(phase, std::memory_order_relaxed);
  local_fds[index].store(1, std::memory_order_relaxed);
  NoteFd(fd);
  table[fd].store(Entry(index, generation), std::memory_order_release);
  return sock;
}

void TrackCopy(int fd, int copy) {
  if (copy < 0 || static_cast<std::uint32_t>(copy) >= kMaxFds || static_cast<std::uint32_t>(fd) >= kMaxFds || table == nullptr) return;
  const std::uint32_t entry = table[fd].load(std::memory_order_acquire);
  if (entry != 0) {
    local_fds[entry & (kMaxSocks - 1)].fetch_add(1, std::memory_order_relaxed);
    NoteFd(copy);
  }
  table[copy].store(entry, std::memory_order_release);
}

Dropped Untrack(int fd) {
  if (fd < 0 || static_cast<std::uint32_t>(fd) >= kMaxFds || table == nullptr) return {};
  const std::uint32_t entry = table[fd].exchange(0, std::memory_order_acq_rel);
  if (entry == 0) return {};
  const std::uint32_t index = entry & (kMaxSocks - 1);
  Dropped dropped{&socks[index], local_fds[index].fetch_sub(1, std::memory_order_acq_rel) == 1, false};
  if (dropped.last_here) dropped.last = dropped.sock->processes.fetch_sub(1, std::memory_order_acq_rel) == 1;
  return dropped;
}

void FreeSock(Sock* sock) {
  // Both locks: whoever is still inside finishes first, and whoever comes later sees another generation.
  Holding rx(sock->rx_lock);
  Holding tx(sock->tx_lock);
  sock->phase.store(Phase::kFree, std::memory_order_relaxed);
  sock->generation.store((sock->generation.load(std::memory_order_relaxed) + 1) & kGenerationMask, std::memory_order_release);
  tx.Unlock();
  rx.Unlock();
  const std::uint32_t index = IndexOf(sock);
  std::uint64_t head = arena->free_list.load(std::memory_order_relaxed);
  do {
    sock->next_free = static_cast<std::uint32_t>(head);
  } while (!arena->free_list.compare_exchange_weak(head, ((head >> 32) + 1) << 32 | index, std::memory_order_acq_rel));
}

void ForEachSock(SockVisitor visit, void* context) {
  if (table == nullptr) return;
  const std::int32_t end = highest_fd.load(std::memory_order_relaxed);
  for (int fd = 0; fd <= end; ++fd) {
    const SockRef ref = FindSock(fd);
    if (ref) visit(fd, ref, context);
  }
}

namespace {
void AddToHeld(std::uint32_t delta) {
  if (arena == nullptr) return;
  std::uint32_t end = arena->next_unused.load(std::memory_order_relaxed);
  if (end > kMaxSocks) end = kMaxSocks;
  for (std::uint32_t index = 1; index < end; ++index) {
    if (local_fds[index].load(std::memory_order_relaxed) != 0) socks[index].processes.fetch_add(delta, std::memory_order_relaxed);
  }
}
}  // namespace

void ForEachHeld(void (*visit)(const Sock* sock)) {
  if (arena == nullptr) return;
  std::uint32_t end = arena->next_unused.load(std::memory_order_relaxed);
  if (end > kMaxSocks) end = kMaxSocks;
  for (std::uint32_t index = 1; index < end; ++index) {
    if (local_fds[index].load(std::memory_order_relaxed) != 0) visit(&socks[index]);
  }
}

void ShareAllForFork() {
  AddToHeld(1);
}
void UnshareAfterFailedFork() {
  AddToHeld(static_cast<std::uint32_t>(-1));
}

std::uint32_t IndexOf(const Sock* sock) {
  return static_cast<std::uint32_t>(sock - socks);
}

Sock* SockAt(std::uint32_t index) {
  return index != 0 && index < kMaxSocks && socks != nullptr ? &socks[index] : nullptr;
}

}  // namespace vsocket::shim
