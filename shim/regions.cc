#include "shim/regions.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "shim/own_fds.h"
#include "shim/sys.h"
#include "shim/wake_fds.h"

namespace vsocket::shim {
namespace {

constexpr int kMaxRegions = 4096;

// To AddressSanitizer the rings of a region are nobody's but for the slots that this process has been granted: whoever gets into another
// connection's is reported. (Not the slots' words, which may be looked at when they are another's already.)
class RingGuard {
 public:
#if defined(__SANITIZE_ADDRESS__)
  void Forbid(const std::byte* base) {
    for (auto& users : users_) users.store(0, std::memory_order_relaxed);
    __asan_poison_memory_region(base + channel::kRingsOffset, channel::kRegionBytes - channel::kRingsOffset);
  }
  void Grant(const std::byte* base, std::uint32_t slot) {
    if (base == nullptr) return;                           // gone meanwhile: the channel is given back
    users_[slot].fetch_add(1, std::memory_order_relaxed);  // both ends may be here
    __asan_unpoison_memory_region(base + channel::RingOffset(slot, 0), 2 * channel::kRingMax);
  }
  void TakeBack(const std::byte* base, std::uint32_t slot) {
    if (base == nullptr || users_[slot].fetch_sub(1, std::memory_order_relaxed) != 1) return;
    __asan_poison_memory_region(base + channel::RingOffset(slot, 0), 2 * channel::kRingMax);
  }

 private:
  std::atomic<std::int32_t> users_[channel::kSlots];
#else
  void Forbid(const std::byte*) {}
  void Grant(const std::byte*, std::uint32_t) {}
  void TakeBack(const std::byte*, std::uint32_t) {}
#endif
};

struct Mapped {
  std::atomic<std::byte*> base;  // release, last of all: pairs with OpenChannel, which takes no lock
  std::byte* spare;              // address range of a region that is gone: kept mapped (to nothing), for the next one in this place
  Relaxed<std::uint64_t> id;
  Relaxed<int> memfd;
  Relaxed<bool> inherited;  // mapped before a fork that made this process
  std::atomic<std::int32_t> users;
  [[no_unique_address]] RingGuard rings;
};

// What a connection sees that was killed. It has no rings: everyone who looks into one looks at Sock::dead before.
struct Nothing {
  channel::RegionHeader region;
  channel::SlotHeader slot;
};

Mapped regions[kMaxRegions];
int used_end;
std::atomic<std::atomic<std::uint16_t>*> holds;  // for each Sock the region that it holds in this process: index + 1; 0: none
alignas(Nothing) std::byte nothing[sizeof(Nothing)];
Lock table_lock;
static_assert(kMaxRegions < UINT16_MAX);

std::atomic<std::uint16_t>* Holds() {
  return holds.load(std::memory_order_acquire);
}

// table_lock
bool HaveHolds() {
  if (Holds() != nullptr) return true;
  const std::size_t size = kMaxSocks * sizeof(*Holds());
  const long at = Sys(SYS_mmap, nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at < 0 && at > -4096) return false;
  holds.store(reinterpret_cast<std::atomic<std::uint16_t>*>(at), std::memory_order_release);
  return true;
}

// Frees the region's pages but not its addresses: a thread that spins on a word of it, without a lock, reads zeros and goes on.
void ReplaceByNothing(std::byte* base) {
  Sys(SYS_mmap, base, channel::kRegionBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

// The memory must not be able to shrink under us (SIGBUS), and must be what the layout says.
std::byte* MapChecked(std::uint64_t region_id, int memfd, std::byte* spare) {
  struct stat status;
  if (Sys(SYS_fstat, memfd, &status) < 0 || static_cast<std::uint64_t>(status.st_size) != channel::kRegionBytes) return nullptr;
  const long seals = Sys(SYS_fcntl, memfd, F_GET_SEALS);
  if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW)) return nullptr;
  const int place = spare != nullptr ? MAP_FIXED : 0;
  const long at = Sys(SYS_mmap, spare, channel::kRegionBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | place, memfd, 0);
  if (at < 0 && at > -4096) return nullptr;
  auto* base = reinterpret_cast<std::byte*>(at);
  const auto* header = reinterpret_cast<const channel::RegionHeader*>(base);
  if (header->magic == channel::kLayoutMagic && header->layout_version == channel::kLayoutVersion && header->region_id == region_id &&
      header->slots == channel::kSlots && header->ring_max_log2 == channel::kRingMaxLog2) {
    return base;
  }
  ReplaceByNothing(base);
  if (spare == nullptr) Sys(SYS_munmap, base, channel::kRegionBytes);
  return nullptr;
}

int FindLocked(std::uint64_t region_id) {
  for (int i = 0; i < used_end; ++i) {
    if (regions[i].base != nullptr && regions[i].id == region_id) return i;
  }
  return -1;
}

}  // namespace

int AddRegion(std::uint64_t region_id, int memfd) {
  Holding hold(table_lock);
  const int known = FindLocked(region_id);
  int index = 0;
  while (index < used_end && regions[index].base != nullptr) ++index;
  std::byte* base = known < 0 && index < kMaxRegions && HaveHolds() ? MapChecked(region_id, memfd, regions[index].spare) : nullptr;
  if (base == nullptr) {
    Sys(SYS_close, memfd);
    return known;
  }
  if (index == used_end) ++used_end;
  regions[index].spare = nullptr;
  regions[index].id = region_id;
  regions[index].memfd = KeepOwnFd(memfd);
  regions[index].inherited = false;
  regions[index].users.store(0, std::memory_order_relaxed);
  regions[index].rings.Forbid(base);
  regions[index].base.store(base, std::memory_order_release);
  return index;
}

void InheritRegions() {
  table_lock.Reset();
  for (int i = 0; i < used_end; ++i) regions[i].inherited = regions[i].base != nullptr;
}

int FindRegion(std::uint64_t region_id) {
  Holding hold(table_lock);
  return FindLocked(region_id);
}

bool OpenChannel(const Sock* sock, Channel* channel) {
  if (sock->dead.load(std::memory_order_relaxed) == kKilled) {
    auto* view = reinterpret_cast<Nothing*>(nothing);
    *channel = {&view->region, &view->slot, &view->slot.side[0], &view->slot.side[1], nullptr, nullptr};
    return true;
  }
  if (sock->region >= kMaxRegions || sock->slot >= channel::kSlots || sock->side > 1) return false;
  const Mapped& region = regions[sock->region];
  std::byte* const base = region.base.load(std::memory_order_acquire);
  if (base == nullptr || region.id != sock->region_id) return false;
  channel->region = reinterpret_cast<channel::RegionHeader*>(base);
  channel->slot = reinterpret_cast<channel::SlotHeader*>(base + channel::SlotOffset(sock->slot));
  channel->mine = &channel->slot->side[sock->side];
  channel->theirs = &channel->slot->side[1 - sock->side];
  channel->out_ring = base + channel::RingOffset(sock->slot, sock->side);
  channel->in_ring = base + channel::RingOffset(sock->slot, 1 - sock->side);
  return true;
}

int RegionMemory(const Sock* sock) {
  if (sock->region >= kMaxRegions) return -1;
  const Mapped& region = regions[sock->region];
  return region.base != nullptr && region.id == sock->region_id ? static_cast<int>(region.memfd) : -1;
}

bool MappedBeforeFork(const Sock* sock) {
  if (sock->region >= kMaxRegions) return false;
  const Mapped& region = regions[sock->region];
  return region.inherited && region.base != nullptr && region.id == sock->region_id;
}

void HoldRegion(const Sock* sock) {
  HoldRegionAt(sock->region);
  regions[sock->region].rings.Grant(regions[sock->region].base.load(std::memory_order_relaxed), sock->slot);
  const std::uint16_t before = Holds()[IndexOf(sock)].exchange(static_cast<std::uint16_t>(sock->region + 1), std::memory_order_acq_rel);
  // Another process of the family brought the connection down, and this one has not noticed.
  if (before != 0) LetGoRegionAt(before - 1u, regions[before - 1].id);
}

bool HoldsRegion(const Sock* sock) {
  return Holds() != nullptr && Holds()[IndexOf(sock)].load(std::memory_order_relaxed) != 0;
}

void LetGoRegion(const Sock* sock) {
  const std::uint16_t held = Holds() != nullptr ? Holds()[IndexOf(sock)].exchange(0, std::memory_order_acq_rel) : 0;
  if (held == 0) return;
  Mapped& region = regions[held - 1];
  if (region.id == sock->region_id) region.rings.TakeBack(region.base.load(std::memory_order_relaxed), sock->slot);
  LetGoRegionAt(held - 1u, sock->region_id);
}

void HoldRegionAt(std::uint32_t index) {
  if (index < kMaxRegions) regions[index].users.fetch_add(1, std::memory_order_relaxed);
}

void LetGoRegionAt(std::uint32_t index, std::uint64_t region_id) {
  if (index >= kMaxRegions) return;
  Holding hold(table_lock);
  Mapped& region = regions[index];
  if (region.base == nullptr || region.id != region_id) return;
  if (region.users.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  region.spare = region.base;
  region.base = nullptr;
  ReplaceByNothing(region.spare);
  DropOwnFd(region.memfd);
  DropWakeFdsOf(region_id);
}

}  // namespace vsocket::shim
