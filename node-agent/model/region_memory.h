// Shared memory of a pair of processes, as the broker uses it and transport/ provides it.
//
// Thread safety: none; one thread uses a region and its source.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "channel/grant.h"

namespace vsocket::model {

struct RegionError {
  enum class Kind : std::uint8_t {
    kNoMemory,  // the kernel gave no memfd, memory, mapping or descriptor
    kNotOurs,   // not a region: size, seals, file system, magic or id are wrong
  };
  Kind kind = Kind::kNoMemory;
  std::string what;
};

// Bytes of one slot that the shims say went through its rings: what is published, clamped, for display only.
struct RingTraffic {
  std::array<std::uint64_t, 2> sent{};  // by side
};

// Stream positions of one direction; untrusted: any numbers, at any time.
struct SentPosition {
  std::uint64_t by_ring = 0;  // published in the ring, or where it was when its sender left it
  std::uint64_t any_way = 0;  // whichever way it went last; of an honest sender it never decreases
};

// Slots, epochs and sides are those of channel/layout.h; slot < kSlots and side < 2 are the caller's duty.
class RegionMemory {
 public:
  virtual ~RegionMemory() = default;
  [[nodiscard]] virtual std::uint64_t Id() const = 0;
  // Unique among regions while this one lives, whatever a pod wrote into it.
  [[nodiscard]] virtual std::uint64_t Inode() const = 0;
  // The memfd, to hand to a process; shared, because a message may wait for a slow reader longer than the region lives.
  [[nodiscard]] virtual std::shared_ptr<const UniqueFd> Memory() const = 0;

  // Zeroes the slot's words and then stores `epoch` (not 0), release: whoever sees the epoch sees a clean slot.
  virtual void PrepareSlot(std::uint32_t slot, std::uint32_t epoch) = 0;
  // No connection holds the slot any more. Its ring pages beyond the smallest class go back to the kernel.
  virtual void ClearSlot(std::uint32_t slot) = 0;
  virtual void RevokeSlot(std::uint32_t slot, std::uint32_t epoch) = 0;
  virtual void RevokeAll() = 0;
  // Ends this process' own mapping, for good: every other method but Id, Inode and Memory does nothing from here on, and reads zero.
  virtual void Unmap() = 0;
  virtual void RenewLease(std::uint64_t until_ns) = 0;  // CLOCK_MONOTONIC

  [[nodiscard]] virtual std::uint32_t Epoch(std::uint32_t slot) const = 0;  // untrusted: compare, do not use
  [[nodiscard]] virtual RingTraffic Traffic(std::uint32_t slot) const = 0;
  // How far `side` has sent, as its shim says. nullopt: it never was on the ring.
  [[nodiscard]] virtual std::optional<SentPosition> Sent(std::uint32_t slot, std::uint32_t side) const = 0;
  // The words of a bandwidth limit on what `side` sends (channel/grant.h). SetWatched fences after its store.
  virtual void SetGrant(std::uint32_t slot, std::uint32_t side, std::uint64_t position, std::uint32_t pace_us) = 0;
  virtual void SetWatched(std::uint32_t slot, std::uint32_t side, channel::GrantWatch watched) = 0;
  virtual void RemoveGrant(std::uint32_t slot, std::uint32_t side) = 0;  // no limit any more
  // Disarms every waiter word of `side` in this slot and returns a bit mask of the wake objects that must be rung for it (bit i: object i).
  [[nodiscard]] virtual std::uint32_t TakeArmedWakeFds(std::uint32_t slot, std::uint32_t side) = 0;
};

class RegionSource {
 public:
  virtual ~RegionSource() = default;
  // A new region. `region_id` must be unique.
  virtual Result<std::unique_ptr<RegionMemory>, RegionError> Create(std::uint64_t region_id, std::uint64_t lease_until_ns) = 0;
  // Takes over memory that a shim says is a region that an earlier agent made. Nothing of it is believed.
  virtual Result<std::unique_ptr<RegionMemory>, RegionError> Adopt(UniqueFd memfd, std::uint64_t region_id) = 0;
  // RegionMemory::Inode of a descriptor that could be a region's, without blocking on it.
  virtual Result<std::uint64_t, RegionError> InodeOf(int fd) = 0;
};

// memfds; transport/region.cc.
std::shared_ptr<RegionSource> MakeSharedMemory();

}  // namespace vsocket::model
