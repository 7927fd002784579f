#include "node-agent/transport/region.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "base/untrusted.h"
#include "channel/wake.h"

namespace vsocket::transport {
namespace {

using channel::RegionHeader;
using channel::SideWords;
using channel::SlotHeader;

// What is mapped here: the headers, not the rings.
constexpr std::size_t kMappedBytes = channel::kRingsOffset;
constexpr int kWantedSeals = F_SEAL_SHRINK | F_SEAL_GROW;
// More than a connection can move in a lifetime; a hostile counter is cut to it so that sums do not overflow.
constexpr std::uint64_t kTrafficCeiling = 1ULL << 56;

Failure<RegionError> Fail(RegionError::Kind kind, const char* what, int error = 0) {
  std::string text = what;
  if (error != 0) text += std::string(": ") + std::strerror(error);
  return Failure(RegionError{kind, std::move(text)});
}

// Every word of the slot but `epoch`, whatever the layout has there. Relaxed: the store of `epoch` that follows publishes them.
void ZeroWords(SlotHeader& header) {
  auto* words = reinterpret_cast<std::uint32_t*>(&header);
  for (std::size_t i = 1; i < sizeof(SlotHeader) / sizeof(std::uint32_t); ++i) {
    std::atomic_ref(words[i]).store(0, std::memory_order_relaxed);
  }
}
static_assert(offsetof(SlotHeader, epoch) == 0);

}  // namespace

Result<std::unique_ptr<Region>, RegionError> Region::Create(std::uint64_t region_id, std::uint64_t lease_until_ns) {
  UniqueFd fd(::memfd_create("vsocket-region", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.Valid()) return Fail(RegionError::Kind::kNoMemory, "memfd_create", errno);
  if (::ftruncate(fd.Get(), static_cast<off_t>(channel::kRegionBytes)) != 0) return Fail(RegionError::Kind::kNoMemory, "ftruncate", errno);
  if (::fcntl(fd.Get(), F_ADD_SEALS, kWantedSeals) != 0) return Fail(RegionError::Kind::kNoMemory, "F_ADD_SEALS", errno);
  struct stat status {};
  if (::fstat(fd.Get(), &status) != 0) return Fail(RegionError::Kind::kNoMemory, "fstat", errno);
  void* map = ::mmap(nullptr, kMappedBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.Get(), 0);
  if (map == MAP_FAILED) return Fail(RegionError::Kind::kNoMemory, "mmap", errno);

  std::unique_ptr<Region> region(new Region(std::move(fd), map, region_id, status.st_ino));
  auto& header = *new (map) RegionHeader{};
  header.magic = channel::kLayoutMagic;
  header.layout_version = channel::kLayoutVersion;
  header.region_id = region_id;
  header.slots = channel::kSlots;
  header.ring_max_log2 = channel::kRingMaxLog2;
  header.lease_until_ns.store(lease_until_ns, std::memory_order_release);
  return region;
}

Result<std::uint64_t, RegionError> RegionInode(int fd) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0) return Fail(RegionError::Kind::kNotOurs, "not a sealable memory file", errno);
  if ((seals & kWantedSeals) != kWantedSeals) return Fail(RegionError::Kind::kNotOurs, "the memory can change its size");
  if ((seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0) return Fail(RegionError::Kind::kNotOurs, "the memory is sealed against writing");
  struct statfs file_system {};
  // hugetlbfs has seals too, but a page that cannot be had there is a SIGBUS.
  if (::fstatfs(fd, &file_system) != 0 || file_system.f_type != TMPFS_MAGIC)
    return Fail(RegionError::Kind::kNotOurs, "not ordinary shared memory");
  struct stat status {};
  if (::fstat(fd, &status) != 0) return Fail(RegionError::Kind::kNotOurs, "fstat", errno);
  if (status.st_size != static_cast<off_t>(channel::kRegionBytes)) return Fail(RegionError::Kind::kNotOurs, "the memory has another size");
  return static_cast<std::uint64_t>(status.st_ino);
}

Result<std::unique_ptr<Region>, RegionError> Region::Adopt(UniqueFd memfd, std::uint64_t region_id) {
  const auto inode = RegionInode(memfd.Get());
  if (!inode) return Failure(inode.Error());
  void* map = ::mmap(nullptr, kMappedBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd.Get(), 0);
  if (map == MAP_FAILED) {
    const auto kind = errno == ENOMEM ? RegionError::Kind::kNoMemory : RegionError::Kind::kNotOurs;
    return Fail(kind, "mmap", errno);
  }
  std::unique_ptr<Region> region(new Region(std::move(memfd), map, region_id, inode.Value()));
  const RegionHeader& header = region->Header();
  if (header.magic != channel::kLayoutMagic || header.layout_version != channel::kLayoutVersion || header.region_id != region_id ||
      header.slots != channel::kSlots || header.ring_max_log2 != channel::kRingMaxLog2) {
    return Fail(RegionError::Kind::kNotOurs, "the memory's header is not that of the region");
  }
  return region;
}

Region::Region(UniqueFd fd, void* map, std::uint64_t id, std::uint64_t inode)
    : fd_(std::make_shared<const UniqueFd>(std::move(fd))), map_(map), id_(id), inode_(inode) {}

namespace {

class SharedMemory final : public model::RegionSource {
 public:
  Result<std::unique_ptr<model::RegionMemory>, RegionError> Create(std::uint64_t region_id, std::uint64_t lease_until_ns) override {
    return Widen(Region::Create(region_id, lease_until_ns));
  }
  Result<std::unique_ptr<model::RegionMemory>, RegionError> Adopt(UniqueFd memfd, std::uint64_t region_id) override {
    return Widen(Region::Adopt(std::move(memfd), region_id));
  }
  Result<std::uint64_t, RegionError> InodeOf(int fd) override { return RegionInode(fd); }

 private:
  static Result<std::unique_ptr<model::RegionMemory>, RegionError> Widen(Result<std::unique_ptr<Region>, RegionError> region) {
    if (!region) return Failure(region.Error());
    return std::unique_ptr<model::RegionMemory>(std::move(region.Value()));
  }
};

}  // namespace

Region::~Region() {
  Unmap();
}

void Region::Unmap() {
  if (map_ != nullptr) ::munmap(std::exchange(map_, nullptr), kMappedBytes);
}

RegionHeader& Region::Header() const {
  return *static_cast<RegionHeader*>(map_);
}

SlotHeader& Region::Slot(std::uint32_t slot) const {
  return *reinterpret_cast<SlotHeader*>(static_cast<std::byte*>(map_) + channel::SlotOffset(slot));
}

void Region::PrepareSlot(std::uint32_t slot, std::uint32_t epoch) {
  if (map_ == nullptr) return;
  SlotHeader& header = Slot(slot);
  header.epoch.store(0, std::memory_order_relaxed);
  ZeroWords(header);
  // Release: pairs with the shim's acquire of `epoch` when it attaches. The GRANT that follows orders it too (through the kernel).
  header.epoch.store(epoch, std::memory_order_release);
}

void Region::ClearSlot(std::uint32_t slot) {
  if (map_ == nullptr) return;
  SlotHeader& header = Slot(slot);
  header.epoch.store(0, std::memory_order_release);
  constexpr auto kKept = static_cast<off_t>(1ULL << channel::kRingMinLog2);
  for (std::uint32_t side = 0; side < 2; ++side) {
    const auto begin = static_cast<off_t>(channel::RingOffset(slot, side)) + kKept;
    // Best effort: pages that stay are reused by the slot's next connection or go with the region. fallocate(2).
    if (::fallocate(fd_->Get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, begin, static_cast<off_t>(channel::kRingMax) - kKept) != 0)
      return;
  }
}

// Release in the three stores below: pairs with the shims' acquire of the same words; nothing but the word itself is published.
void Region::RevokeSlot(std::uint32_t slot, std::uint32_t epoch) {
  if (map_ != nullptr) Slot(slot).revoked.store(epoch, std::memory_order_release);
}
void Region::RevokeAll() {
  if (map_ != nullptr) Header().revoked.store(1, std::memory_order_release);
}
void Region::RenewLease(std::uint64_t until_ns) {
  if (map_ != nullptr) Header().lease_until_ns.store(until_ns, std::memory_order_release);
}

std::uint32_t Region::Epoch(std::uint32_t slot) const {
  return map_ == nullptr ? 0 : LoadUntrusted(Slot(slot).epoch, std::memory_order_acquire).ForDisplay();
}

RingTraffic Region::Traffic(std::uint32_t slot) const {
  RingTraffic traffic;
  if (map_ == nullptr) return traffic;
  const SlotHeader& header = Slot(slot);
  for (std::size_t side = 0; side < 2; ++side) {
    const SideWords& words = header.side[side];
    if (LoadUntrusted(words.proposal_generation, std::memory_order_acquire).Is(0)) continue;
    const auto start = LoadUntrusted(words.proposal_start, std::memory_order_relaxed).ForDisplay();
    const auto tail = LoadUntrusted(words.tail, std::memory_order_acquire).ForDisplay();
    if (tail > start) traffic.sent[side] = Untrusted(tail - start).ClampedTo(0, kTrafficCeiling);
  }
  return traffic;
}

std::optional<model::SentPosition> Region::Sent(std::uint32_t slot, std::uint32_t side) const {
  if (map_ == nullptr) return std::nullopt;
  const SideWords& words = Slot(slot).side[side];
  if (LoadUntrusted(words.proposal_generation, std::memory_order_acquire).Is(0)) return std::nullopt;
  model::SentPosition sent;
  sent.by_ring = LoadUntrusted(words.tail, std::memory_order_acquire).ForDisplay();
  sent.any_way = std::max(sent.by_ring, LoadUntrusted(words.tcp_sent, std::memory_order_acquire).ForDisplay());
  return sent;
}

// Relaxed: the words order nothing else. What must not be reordered has the fence (grant.h, W2).
void Region::SetGrant(std::uint32_t slot, std::uint32_t side, std::uint64_t position, std::uint32_t pace_us) {
  if (map_ == nullptr) return;
  SlotHeader& header = Slot(slot);
  header.pace_us[side].store(pace_us, std::memory_order_relaxed);
  header.grant[side].store(channel::GrantWord(position), std::memory_order_relaxed);
}

void Region::SetWatched(std::uint32_t slot, std::uint32_t side, channel::GrantWatch watched) {
  if (map_ == nullptr) return;
  Slot(slot).watched[side].store(watched, std::memory_order_relaxed);
  channel::SleepWakeFence();
}

void Region::RemoveGrant(std::uint32_t slot, std::uint32_t side) {
  if (map_ == nullptr) return;
  Slot(slot).grant[side].store(0, std::memory_order_relaxed);
  Slot(slot).watched[side].store(channel::kUnwatched, std::memory_order_relaxed);
}

std::uint32_t Region::TakeArmedWakeFds(std::uint32_t slot, std::uint32_t side) {
  if (map_ == nullptr) return 0;
  std::uint32_t mask = 0;
  SideWords& words = Slot(slot).side[side];
  for (std::atomic<std::uint32_t>* word : {&words.data_waiter, &words.space_waiter}) {
    // Sequentially consistent: pairs with the waiter's arm-fence-recheck, where the re-check also looks at `revoked`.
    const Untrusted<std::uint32_t> target(word->exchange(channel::kNobody, std::memory_order_seq_cst));
    std::uint32_t index = 0;
    if (target.Within(channel::kFirstWakeFd, channel::kFirstWakeFd + channel::kWakeFdsPerSide - 1, &index)) {
      mask |= 1U << (index - channel::kFirstWakeFd);
    }
  }
  return mask;
}

}  // namespace vsocket::transport

std::shared_ptr<vsocket::model::RegionSource> vsocket::model::MakeSharedMemory() {
  return std::make_shared<vsocket::transport::SharedMemory>();
}
