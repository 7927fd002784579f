// The regions this process has mapped. A Sock names a region by its index in this table, with the region's id as proof; a fork inherits
// table and mappings at the same addresses.
#pragma once

#include <cstdint>

#include "channel/layout.h"
#include "shim/sock.h"

namespace vsocket::shim {

// One connection's view of its slot. Valid while the Sock is attached.
struct Channel {
  channel::RegionHeader* region;
  channel::SlotHeader* slot;
  channel::SideWords* mine;
  channel::SideWords* theirs;
  std::byte* out_ring;
  const std::byte* in_ring;
};

// Maps the region behind `memfd` (checked: size, seals, header) and keeps the descriptor for a later REATTACH. Takes ownership of memfd in
// every case. Returns the index, or -1.
int AddRegion(std::uint64_t region_id, int memfd);

// The index of a mapped region, or -1.
int FindRegion(std::uint64_t region_id);

// False: this process has no mapping of the Sock's region.
[[nodiscard]] bool OpenChannel(const Sock* sock, Channel* channel);

// The memfd of a Sock's region; -1: none.
int RegionMemory(const Sock* sock);

// The number of connections of this process that use the region; the last one unmaps it.
void HoldRegion(std::uint32_t index);
void LetGoRegion(std::uint32_t index, std::uint64_t region_id);
void FreeRegionLock();  // in the child after fork

}  // namespace vsocket::shim
