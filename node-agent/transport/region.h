// A region of shared memory as the agent holds it: the sealed memfd of channel/layout.h, with only its headers mapped here (the rings
// are the shims' business; the agent moves no byte on one node).
//
// Invariants:
// 1. The memfd is sealed with F_SEAL_SHRINK | F_SEAL_GROW, so that nobody who is handed it can make a mapped page vanish (SIGBUS).
//    It is not sealed with F_SEAL_SEAL: revocation tries F_SEAL_WRITE later (mapping_probe.cc, memfd_create(2), fcntl(2)).
// 2. Until Unmap a Region's headers are mapped writable, so nobody else can add F_SEAL_WRITE (EBUSY).
// 3. Every word read back is untrusted: both shims map it writable.
//
// Thread safety: none; one thread uses a Region.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "channel/layout.h"
#include "node-agent/model/region_memory.h"

namespace vsocket::transport {

using model::RegionError;
using model::RingTraffic;

class Region final : public model::RegionMemory {
 public:
  // Makes the memory of a new region: kRegionBytes, sparse, with a filled header.
  static Result<std::unique_ptr<Region>, RegionError> Create(std::uint64_t region_id, std::uint64_t lease_until_ns);
  // Seals, size and file system are checked before it is mapped (a descriptor of another kind could block or fault the agent), magic,
  // version and id after.
  static Result<std::unique_ptr<Region>, RegionError> Adopt(UniqueFd memfd, std::uint64_t region_id);

  ~Region() override;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  [[nodiscard]] std::uint64_t Id() const override { return id_; }
  [[nodiscard]] std::uint64_t Inode() const override { return inode_; }  // all memfds are on one shmem mount
  [[nodiscard]] int Fd() const { return fd_->Get(); }
  [[nodiscard]] std::shared_ptr<const UniqueFd> Memory() const override { return fd_; }

  void PrepareSlot(std::uint32_t slot, std::uint32_t epoch) override;
  void ClearSlot(std::uint32_t slot) override;
  void RevokeSlot(std::uint32_t slot, std::uint32_t epoch) override;
  void RevokeAll() override;
  void Unmap() override;
  void RenewLease(std::uint64_t until_ns) override;

  [[nodiscard]] std::uint32_t Epoch(std::uint32_t slot) const override;
  [[nodiscard]] RingTraffic Traffic(std::uint32_t slot) const override;
  [[nodiscard]] std::optional<model::SentPosition> Sent(std::uint32_t slot, std::uint32_t side) const override;
  void SetGrant(std::uint32_t slot, std::uint32_t side, std::uint64_t position, std::uint32_t pace_us) override;
  void SetWatched(std::uint32_t slot, std::uint32_t side, channel::GrantWatch watched) override;
  void RemoveGrant(std::uint32_t slot, std::uint32_t side) override;
  [[nodiscard]] std::uint32_t TakeArmedWakeFds(std::uint32_t slot, std::uint32_t side) override;

 private:
  Region(UniqueFd fd, void* map, std::uint64_t id, std::uint64_t inode);

  [[nodiscard]] channel::RegionHeader& Header() const;
  [[nodiscard]] channel::SlotHeader& Slot(std::uint32_t slot) const;

  std::shared_ptr<const UniqueFd> fd_;
  void* map_ = nullptr;  // nullptr: unmapped
  std::uint64_t id_ = 0;
  std::uint64_t inode_ = 0;
};

// The inode of a descriptor that has a region's seals, without blocking on a hostile file system: F_GET_SEALS fails with EINVAL on
// anything that is not shared memory, before fstat is asked.
Result<std::uint64_t, RegionError> RegionInode(int fd);

}  // namespace vsocket::transport
