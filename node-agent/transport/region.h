// A region of shared memory as the agent holds it: the sealed memfd of channel/layout.h, with only its headers mapped here (the rings
// are the shims' business; the agent moves no byte on one node).
//
// Invariants:
// 1. The memfd is sealed with F_SEAL_SHRINK | F_SEAL_GROW, so that nobody who is handed it can make a mapped page vanish (SIGBUS).
//    It is not sealed with F_SEAL_SEAL: revocation wants to try F_SEAL_WRITE later (memfd_create(2), fcntl(2)).
// 2. While a Region lives its headers are mapped writable, so nobody else can add F_SEAL_WRITE (EBUSY).
// 3. Every word read back is untrusted: both shims map it writable.
//
// Thread safety: none; one thread uses a Region.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "channel/layout.h"

namespace vsocket::transport {

struct RegionError {
  enum class Kind : std::uint8_t {
    kNoMemory,  // the kernel gave no memfd, memory, mapping or descriptor
    kNotOurs,   // not a region: size, seals, file system, magic or id are wrong
  };
  Kind kind;
  std::string what;
};

// Bytes of one slot and direction that the shims say went through the ring: what is published, clamped, for display only.
struct RingTraffic {
  std::array<std::uint64_t, 2> sent{};  // by side
};

class Region {
 public:
  // Makes the memory of a new region: kRegionBytes, sparse, with a filled header. `region_id` must be unique; `lease_until_ns` is
  // CLOCK_MONOTONIC.
  static Result<Region, RegionError> Create(std::uint64_t region_id, std::uint64_t lease_until_ns);
  // Takes over memory that a shim says is a region that an earlier agent made. Nothing of it is believed: seals, size and file system
  // are checked before it is mapped (a descriptor of another kind could block or fault the agent), magic, version and id after.
  static Result<Region, RegionError> Adopt(UniqueFd memfd, std::uint64_t region_id);

  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;
  ~Region();

  [[nodiscard]] std::uint64_t Id() const { return id_; }
  [[nodiscard]] std::uint64_t Inode() const { return inode_; }  // of the memfd: unique among memfds while it lives (all are on one shmem mount)
  [[nodiscard]] int Fd() const { return fd_->Get(); }
  // The memfd, to hand to a process; shared, because a message may wait for a slow reader longer than the region lives.
  [[nodiscard]] std::shared_ptr<const UniqueFd> Memory() const { return fd_; }

  // Zeroes the slot's words and then stores `epoch` (not 0), release: whoever sees the epoch sees a clean slot.
  void PrepareSlot(std::uint32_t slot, std::uint32_t epoch);
  // No connection holds the slot any more. Its ring pages beyond the smallest class go back to the kernel.
  void ClearSlot(std::uint32_t slot);
  void RevokeSlot(std::uint32_t slot, std::uint32_t epoch);
  void RevokeAll();
  void RenewLease(std::uint64_t until_ns);

  [[nodiscard]] std::uint32_t Epoch(std::uint32_t slot) const;  // untrusted: compare, do not use
  [[nodiscard]] RingTraffic Traffic(std::uint32_t slot) const;

  // Disarms every waiter word of `side` in this slot and returns a bit mask of the wake objects that must be rung for it (bit i: object i).
  [[nodiscard]] std::uint32_t TakeArmedWakeFds(std::uint32_t slot, std::uint32_t side);

 private:
  Region(UniqueFd fd, void* map, std::uint64_t id, std::uint64_t inode);

  [[nodiscard]] channel::RegionHeader& Header() const;
  [[nodiscard]] channel::SlotHeader& Slot(std::uint32_t slot) const;

  std::shared_ptr<const UniqueFd> fd_;
  void* map_ = nullptr;
  std::uint64_t id_ = 0;
  std::uint64_t inode_ = 0;
};

// The inode of a descriptor that has a region's seals, without blocking on a hostile file system: F_GET_SEALS fails with EINVAL on
// anything that is not shared memory, before fstat is asked.
Result<std::uint64_t, RegionError> RegionInode(int fd);

}  // namespace vsocket::transport
