#include "shim/regions.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "shim/own_fds.h"
#include "shim/sys.h"
#include "shim/wake_fds.h"

namespace vsocket::shim {
namespace {

constexpr int kMaxRegions = 4096;

struct Mapped {
  std::byte* base;
  std::byte* spare;  // address range of a region that is gone: kept mapped (to nothing), for the next one in this place
  std::uint64_t id;
  int memfd;
  std::atomic<std::int32_t> users;
};

Mapped regions[kMaxRegions];
int used_end;
Lock table_lock;

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
  std::byte* base = known < 0 && index < kMaxRegions ? MapChecked(region_id, memfd, regions[index].spare) : nullptr;
  if (base == nullptr) {
    Sys(SYS_close, memfd);
    return known;
  }
  if (index == used_end) ++used_end;
  regions[index].spare = nullptr;
  regions[index].base = base;
  regions[index].id = region_id;
  regions[index].memfd = KeepOwnFd(memfd);
  regions[index].users.store(0, std::memory_order_relaxed);
  return index;
}

void FreeRegionLock() {
  table_lock.Reset();
}

int FindRegion(std::uint64_t region_id) {
  Holding hold(table_lock);
  return FindLocked(region_id);
}

bool OpenChannel(const Sock* sock, Channel* channel) {
  if (sock->region >= kMaxRegions || sock->slot >= channel::kSlots || sock->side > 1) return false;
  const Mapped& region = regions[sock->region];
  std::byte* const base = __atomic_load_n(&region.base, __ATOMIC_ACQUIRE);
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
  return region.base != nullptr && region.id == sock->region_id ? region.memfd : -1;
}

void HoldRegion(std::uint32_t index) {
  if (index < kMaxRegions) regions[index].users.fetch_add(1, std::memory_order_relaxed);
}

void LetGoRegion(std::uint32_t index, std::uint64_t region_id) {
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
