// The rings of one region as the agent sees them: mapped, and registered with the device so that payload goes from pod memory to pod
// memory.
//
// Registration pins pages, so of each ring only what a mirrored one may grow to (kRemoteRingMax) is registered, and not all of a region at
// once: a block of kBlockSlots slots is, when the first of them is used, and stays until the region goes. A connection that reuses a slot
// finds it registered.
//
// The rings that the local side sends from are one registration, readable by this side only. Those it receives into are another, and its
// key the only one that is told to the far agent: with it nothing but ring bytes that come from the far side's pod can be written. To make
// each contiguous, the rings are mapped one by one, receiving ones beside receiving ones. No word of a slot or of the region is registered:
// each is stored by the agent of its node, after it has been bounded.
//
// Pages that are registered must stay where they are: a hole punched into them (fallocate(2)) would leave the device with the old page and
// the pod with a new one. Who trims rings leaves the slots of such a region alone.
//
// Thread safety: none.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/result.h"
#include "channel/layout.h"
#include "channel/remote.h"
#include "node-agent/transport/fabric/fabric.h"

namespace vsocket::transport {

inline constexpr std::uint32_t kBlockSlots = 8;  // 1 MiB of rings, of which half may be written from afar

struct SlotRings {
  std::byte* out = nullptr;  // kRemoteRingMax bytes: what the local side sends
  std::uint32_t out_key = 0;
  std::byte* in = nullptr;
  std::uint32_t in_remote_key = 0;
};

class RingMemory {
 public:
  // `memfd`: a region's, which stays open; `local_side`: of all its slots. `device` outlives this.
  static Result<std::unique_ptr<RingMemory>, FabricError> Map(int memfd, std::uint32_t local_side, Device& device);
  ~RingMemory();
  RingMemory(const RingMemory&) = delete;
  RingMemory& operator=(const RingMemory&) = delete;

  // Registers the slot's block if it is not yet. Requires slot < kSlots.
  Result<SlotRings, FabricError> Use(std::uint32_t slot);
  [[nodiscard]] channel::SlotHeader& Slot(std::uint32_t slot) const;
  [[nodiscard]] channel::RegionHeader& Header() const;
  [[nodiscard]] std::uint32_t LocalSide() const { return side_; }
  [[nodiscard]] std::uint32_t Registrations() const { return registrations_; }

 private:
  struct Block {
    MemoryKeys out, in;
  };
  RingMemory(int memfd, std::uint32_t side, Device& device) : memfd_(memfd), side_(side), device_(device) {}
  Result<bool, FabricError> Register(std::uint32_t block);

  int memfd_;
  std::uint32_t side_;
  Device& device_;
  void* headers_ = nullptr;
  std::byte* out_ = nullptr;  // kSlots * kRemoteRingMax bytes of addresses, each half
  std::byte* in_ = nullptr;
  std::array<std::optional<Block>, channel::kSlots / kBlockSlots> blocks_;
  std::uint32_t registrations_ = 0;
};

}  // namespace vsocket::transport
