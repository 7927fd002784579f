#include "shim/sock.h"

#include <sys/mman.h>

#include "shim/sys.h"

namespace vsocket::shim {
namespace {

constexpr std::uint32_t kIndexBits = 18;
static_assert(kMaxSocks == 1u << kIndexBits);
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
std::uint32_t* shared_in;               // per process: the fork for which each Sock was last given a hold
std::uint32_t fork_serial;
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

// A new connection in an old place. The locks stay: a thread that found the last connection here may hold one, to see that it is too late,
// and would otherwise let go of somebody else's. For the same reason nothing is built anew in place: atomics are stored to.
void Renew(Sock& sock) {
  static_assert(sizeof(Sock) == 384, "what was added to Sock belongs here");
  constexpr auto kOrder = std::memory_order_relaxed;  // published by the table
  const Holding rx(sock.rx_lock);
  const Holding tx(sock.tx_lock);
  for (auto* flag : {&sock.fin_seen, &sock.framed, &sock.shut_rd, &sock.shut_wr, &sock.last_was_rx, &sock.shim_waits, &sock.dead,
                     &sock.watched, &sock.nodelay, &sock.cork}) {
    flag->store(0, kOrder);
  }
  for (auto* word : {&sock.error, &sock.pinned, &sock.denied}) word->store(0, kOrder);
  for (auto* count : {&sock.nospace, &sock.inside_tx, &sock.inside_rx, &sock.turns, &sock.sleepers}) count->store(0, kOrder);
  for (auto* bytes : {&sock.plain_tx, &sock.plain_rx}) bytes->store(0, kOrder);
  sock.only_fin = sock.outgrown = sock.grown = sock.guarded = false;
  sock.bells_seen = sock.up_bells = 0;
  sock.in = {};
  sock.rx = {};
  sock.up_attempts = 0;
  sock.unheard = 0;
  sock.out = {};
  sock.tx = {};
  sock.linger[0] = sock.linger[1] = 0;
  sock.up_since_ns = sock.up_at = sock.idle_at = sock.look_again = sock.ask_again = sock.ring_tx = sock.ring_rx = 0;
  sock.cookie = sock.region_id = sock.ask_at_ns = sock.ask_after = 0;
  sock.region = sock.slot = sock.epoch = sock.side = 0;
}

}  // namespace

bool InitSocks() {
  void* shared = Reserve(4096 + static_cast<std::size_t>(kMaxSocks) * sizeof(Sock), MAP_SHARED);
  void* fds = Reserve(kMaxFds * sizeof(*table), MAP_PRIVATE);
  void* counts = Reserve(kMaxSocks * sizeof(*local_fds), MAP_PRIVATE);
  void* marks = Reserve(kMaxSocks * sizeof(*shared_in), MAP_PRIVATE);
  if (shared == nullptr || fds == nullptr || counts == nullptr || marks == nullptr) return false;
  arena = static_cast<Arena*>(shared);
  arena->next_unused.store(1, std::memory_order_relaxed);
  socks = reinterpret_cast<Sock*>(static_cast<std::byte*>(shared) + 4096);
  local_fds = static_cast<std::atomic<std::uint16_t>*>(counts);
  shared_in = static_cast<std::uint32_t*>(marks);
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
  Renew(*sock);
  sock->processes.store(1, std::memory_order_relaxed);
  sock->initiator.store(initiator, std::memory_order_relaxed);
  sock->phase.store(phase, std::memory_order_relaxed);
  local_fds[index].store(1, std::memory_order_release);  // pairs with IsHeldHere
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

Dropped Untrack(int fd, void (*last_here)(Sock* sock)) {
  if (fd < 0 || static_cast<std::uint32_t>(fd) >= kMaxFds || table == nullptr) return {};
  const std::uint32_t entry = table[fd].exchange(0, std::memory_order_acq_rel);
  if (entry == 0) return {};
  const std::uint32_t index = entry & (kMaxSocks - 1);
  Dropped dropped{&socks[index], local_fds[index].fetch_sub(1, std::memory_order_acq_rel) == 1, false};
  if (!dropped.last_here) return dropped;
  last_here(dropped.sock);
  dropped.last = dropped.sock->processes.fetch_sub(1, std::memory_order_acq_rel) == 1;
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
std::uint32_t EndOfArena() {
  if (arena == nullptr) return 0;
  const std::uint32_t end = arena->next_unused.load(std::memory_order_relaxed);
  return end < kMaxSocks ? end : kMaxSocks;
}

bool IsHeldHere(std::uint32_t index) {
  return local_fds[index].load(std::memory_order_acquire) != 0;  // pairs with TrackNew: the connection is whole
}

// Never from 0: that one is being freed by who held it last.
bool AddHolder(Sock& sock) {
  std::uint32_t holders = sock.processes.load(std::memory_order_relaxed);
  while (holders != 0 && !sock.processes.compare_exchange_weak(holders, holders + 1, std::memory_order_acq_rel)) {
  }
  return holders != 0;
}

// A hold that nobody uses: the descriptor it was for is closed.
void DropHolder(Sock& sock) {
  if (sock.processes.fetch_sub(1, std::memory_order_acq_rel) == 1) FreeSock(&sock);
}

// The copy of two tables that another thread was changing may not fit together: the descriptors tell.
void CountLocalFds() {
  const std::uint32_t end = EndOfArena();
  for (std::uint32_t index = 1; index < end; ++index) local_fds[index].store(0, std::memory_order_relaxed);
  const std::int32_t last = highest_fd.load(std::memory_order_relaxed);
  for (int fd = 0; fd <= last; ++fd) {
    const SockRef ref = FindSock(fd);
    if (!ref) continue;
    if (ref.Stale()) {
      table[fd].store(0, std::memory_order_relaxed);
    } else {
      local_fds[IndexOf(ref.sock)].fetch_add(1, std::memory_order_relaxed);
    }
  }
}

void ForgetFdsOf(const Sock* sock) {
  const std::int32_t last = highest_fd.load(std::memory_order_relaxed);
  for (int fd = 0; fd <= last; ++fd) {
    if (FindSock(fd).sock == sock) table[fd].store(0, std::memory_order_relaxed);
  }
  local_fds[IndexOf(sock)].store(0, std::memory_order_relaxed);
}
}  // namespace

void ForEachHeld(void (*visit)(Sock* sock)) {
  const std::uint32_t end = EndOfArena();
  for (std::uint32_t index = 1; index < end; ++index) {
    if (IsHeldHere(index)) visit(&socks[index]);
  }
}

void ShareForFork() {
  ++fork_serial;
  const std::uint32_t end = EndOfArena();
  for (std::uint32_t index = 1; index < end; ++index) {
    if (IsHeldHere(index) && AddHolder(socks[index])) shared_in[index] = fork_serial;
  }
}

void UnshareAfterFailedFork() {
  const std::uint32_t end = EndOfArena();
  for (std::uint32_t index = 1; index < end; ++index) {
    if (shared_in[index] == fork_serial) DropHolder(socks[index]);
  }
}

void HoldAfterFork(bool shared) {
  CountLocalFds();
  const std::uint32_t end = EndOfArena();
  for (std::uint32_t index = 1; index < end; ++index) {
    const bool given = shared && shared_in[index] == fork_serial;
    if (given == IsHeldHere(index)) continue;
    if (given) {
      DropHolder(socks[index]);  // closed by another thread before the fork
    } else if (shared || !AddHolder(socks[index])) {
      // Opened by another thread during the fork: the kernel copies descriptors before memory, so the number may be free here, and soon be
      // something else. Where it is open, only its parent's thread ever knew of it.
      ForgetFdsOf(&socks[index]);
    }
  }
}

void DropAllHolds() {
  const std::uint32_t end = EndOfArena();
  for (std::uint32_t index = 1; index < end; ++index) {
    if (IsHeldHere(index)) socks[index].processes.fetch_sub(1, std::memory_order_acq_rel);
  }
}

void TakeAllHolds() {
  const std::uint32_t end = EndOfArena();
  for (std::uint32_t index = 1; index < end; ++index) {
    if (IsHeldHere(index)) socks[index].processes.fetch_add(1, std::memory_order_acq_rel);
  }
}

std::uint32_t IndexOf(const Sock* sock) {
  return static_cast<std::uint32_t>(sock - socks);
}

Sock* SockAt(std::uint32_t index) {
  return index != 0 && index < kMaxSocks && socks != nullptr ? &socks[index] : nullptr;
}

}  // namespace vsocket::shim
