// The regions this process has mapped. A Sock names a region by its index in this table, with the region's id as proof; a fork inherits
// table and mappings at the same addresses.
#pragma once

#include <cstdint>

#include "channel/layout.h"
#include "shim/sock.h"

namespace vsocket::shim {

// One connection's view of its slot. Valid while a lock of the Sock is held, and for reading at any time.
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

// False: this process has no mapping of the Sock's region. Of a connection that was killed the memory may be gone, or be gone soon:
// its view is one in which nothing was ever sent, granted or revoked. Nobody may touch its rings.
[[nodiscard]] bool OpenChannel(const Sock* sock, Channel* channel);

// The memfd of a Sock's region; -1: none.
int RegionMemory(const Sock* sock);

// This process has had the Sock's region since before it was forked: what it is to its owners, it is to the parent.
[[nodiscard]] bool MappedBeforeFork(const Sock* sock);

// The connections of this process that use a region hold it: each once, in each process of its own. The last one to let go unmaps it.
void HoldRegion(const Sock* sock);
[[nodiscard]] bool HoldsRegion(const Sock* sock);
void LetGoRegion(const Sock* sock);  // both locks; nothing when it holds none
// A hold of nobody's, by its index and id.
void HoldRegionAt(std::uint32_t index);
void LetGoRegionAt(std::uint32_t index, std::uint64_t region_id);

void InheritRegions();  // in the child after fork

}  // namespace vsocket::shim
