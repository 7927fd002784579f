#include "node-agent/transport/region.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

namespace vsocket::transport {
namespace {

constexpr std::uint64_t kId = 0x1234;

// What a shim does with a region: maps all of it.
class WholeMap {
 public:
  explicit WholeMap(int fd) : map_(::mmap(nullptr, channel::kRegionBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) {}
  ~WholeMap() { ::munmap(map_, channel::kRegionBytes); }
  [[nodiscard]] channel::RegionHeader& Header() const { return *static_cast<channel::RegionHeader*>(map_); }
  [[nodiscard]] channel::SlotHeader& Slot(std::uint32_t slot) const {
    return *reinterpret_cast<channel::SlotHeader*>(static_cast<std::byte*>(map_) + channel::SlotOffset(slot));
  }
  [[nodiscard]] std::byte* Ring(std::uint32_t slot, std::uint32_t side) const {
    return static_cast<std::byte*>(map_) + channel::RingOffset(slot, side);
  }

 private:
  void* map_;
};

std::unique_ptr<Region> MustCreate() {
  auto region = Region::Create(kId, 42);
  EXPECT_TRUE(region) << region.Error().what;
  return std::move(region.Value());
}

TEST(Region, IsSealedSparseAndFilled) {
  const auto owned = MustCreate();
  Region& region = *owned;
  struct stat status {};
  ASSERT_EQ(fstat(region.Fd(), &status), 0);
  EXPECT_EQ(status.st_size, static_cast<off_t>(channel::kRegionBytes));
  EXPECT_LE(status.st_blocks * 512, 64 * 1024);
  EXPECT_EQ(ftruncate(region.Fd(), 0), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(fcntl(region.Fd(), F_ADD_SEALS, F_SEAL_WRITE), -1);
  EXPECT_EQ(errno, EBUSY);
  WholeMap shim(region.Fd());
  EXPECT_EQ(shim.Header().magic, channel::kLayoutMagic);
  EXPECT_EQ(shim.Header().region_id, kId);
  EXPECT_EQ(shim.Header().lease_until_ns.load(), 42U);
  region.RenewLease(77);
  EXPECT_EQ(shim.Header().lease_until_ns.load(), 77U);
}

TEST(Region, GrantsAreTheSendersOwnAndGoWithTheSlot) {
  const auto owned = MustCreate();
  Region& region = *owned;
  WholeMap shim(region.Fd());
  region.PrepareSlot(3, 9);
  channel::SlotHeader& slot = shim.Slot(3);
  EXPECT_FALSE(channel::HasLimit(slot.grant[0]) || channel::HasLimit(slot.grant[1]));
  EXPECT_FALSE(region.Sent(3, 1)) << "not on the ring yet";
  slot.side[1].tail = 500;
  slot.side[1].tcp_sent = 700;
  slot.side[1].proposal_generation = 1;
  ASSERT_TRUE(region.Sent(3, 1));
  EXPECT_EQ(region.Sent(3, 1)->by_ring, 500U);
  EXPECT_EQ(region.Sent(3, 1)->any_way, 700U);
  region.SetGrant(3, 1, 800, 5000);
  region.SetWatched(3, 1, channel::kWatched);
  EXPECT_EQ(channel::MayPublish(slot.grant[1], 700), 100U);
  EXPECT_EQ(slot.pace_us[1].load(), 5000U);
  EXPECT_EQ(slot.watched[1].load(), channel::kWatched);
  EXPECT_FALSE(channel::HasLimit(slot.grant[0]));
  region.RemoveGrant(3, 1);
  EXPECT_FALSE(channel::HasLimit(slot.grant[1]));
  EXPECT_EQ(slot.watched[1].load(), channel::kUnwatched);
  region.SetGrant(3, 0, 0, 1000);
  region.PrepareSlot(3, 10);
  EXPECT_FALSE(channel::HasLimit(slot.grant[0])) << "the next connection's own";
  region.Unmap();
  region.SetGrant(3, 0, 1, 1);
  EXPECT_FALSE(region.Sent(3, 1));
}

TEST(Region, PreparedSlotIsCleanAndRevocable) {
  const auto owned = MustCreate();
  Region& region = *owned;
  WholeMap shim(region.Fd());
  shim.Slot(3).side[1].tail.store(99);
  shim.Slot(3).side[0].data_waiter.store(7);
  region.PrepareSlot(3, 1001);
  EXPECT_EQ(shim.Slot(3).epoch.load(), 1001U);
  EXPECT_EQ(shim.Slot(3).side[1].tail.load(), 0U);
  EXPECT_EQ(shim.Slot(3).side[0].data_waiter.load(), 0U);
  region.RevokeSlot(3, 1001);
  EXPECT_EQ(shim.Slot(3).revoked.load(), 1001U);
  EXPECT_EQ(shim.Header().revoked.load(), 0U);
  region.RevokeAll();
  EXPECT_NE(shim.Header().revoked.load(), 0U);
}

TEST(Region, ClearedSlotGivesItsPagesBack) {
  const auto owned = MustCreate();
  Region& region = *owned;
  WholeMap shim(region.Fd());
  region.PrepareSlot(0, 5);
  for (std::uint64_t at = 0; at < channel::kRingMax; at += 4096) shim.Ring(0, 0)[at] = std::byte{1};
  struct stat before {
  }, after{};
  ASSERT_EQ(fstat(region.Fd(), &before), 0);
  region.ClearSlot(0);
  ASSERT_EQ(fstat(region.Fd(), &after), 0);
  EXPECT_EQ((before.st_blocks - after.st_blocks) * 512, static_cast<long>(channel::kRingMax - (1U << channel::kRingMinLog2)));
  EXPECT_EQ(region.Epoch(0), 0U);
}

TEST(Region, TrafficIsClampedAndNeverNegative) {
  const auto owned = MustCreate();
  Region& region = *owned;
  WholeMap shim(region.Fd());
  region.PrepareSlot(1, 5);
  auto& side = shim.Slot(1).side[0];
  side.tail.store(5000);
  EXPECT_EQ(region.Traffic(1).sent[0], 0U) << "no generation yet: nothing is on the ring";
  side.proposal_generation.store(1);
  side.proposal_start.store(1000);
  EXPECT_EQ(region.Traffic(1).sent[0], 4000U);
  side.proposal_start.store(6000);
  EXPECT_EQ(region.Traffic(1).sent[0], 0U);
  side.proposal_start.store(0);
  side.tail.store(~0ULL);
  EXPECT_EQ(region.Traffic(1).sent[0], 1ULL << 56);
}

TEST(Region, TakesArmedWakeFdsOnceAndIgnoresNonsense) {
  const auto owned = MustCreate();
  Region& region = *owned;
  WholeMap shim(region.Fd());
  region.PrepareSlot(2, 5);
  auto& side = shim.Slot(2).side[1];
  side.data_waiter.store(channel::kFirstWakeFd + 3);
  side.space_waiter.store(0xffffffffU);
  EXPECT_EQ(region.TakeArmedWakeFds(2, 1), 1U << 3);
  EXPECT_EQ(region.TakeArmedWakeFds(2, 1), 0U);
  side.data_waiter.store(channel::kTcpBell);
  EXPECT_EQ(region.TakeArmedWakeFds(2, 1), 0U);
}

TEST(Region, AdoptsItsOwnMemoryOnly) {
  const auto owned = MustCreate();
  Region& region = *owned;
  auto again = Region::Adopt(UniqueFd(fcntl(region.Fd(), F_DUPFD_CLOEXEC, 0)), kId);
  ASSERT_TRUE(again) << again.Error().what;
  EXPECT_EQ(again.Value()->Inode(), region.Inode());
  EXPECT_FALSE(Region::Adopt(UniqueFd(fcntl(region.Fd(), F_DUPFD_CLOEXEC, 0)), kId + 1));

  UniqueFd unsealed(memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(unsealed.Get(), static_cast<off_t>(channel::kRegionBytes)), 0);
  EXPECT_FALSE(Region::Adopt(UniqueFd(dup(unsealed.Get())), kId)) << "it could be shrunk under the agent";
  ASSERT_EQ(fcntl(unsealed.Get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  EXPECT_FALSE(Region::Adopt(UniqueFd(dup(unsealed.Get())), kId)) << "no header";
  ASSERT_EQ(fcntl(unsealed.Get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
  EXPECT_FALSE(RegionInode(unsealed.Get()));

  UniqueFd small(memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(fcntl(small.Get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  EXPECT_FALSE(RegionInode(small.Get()));
  EXPECT_FALSE(RegionInode(0)) << "not shared memory at all";
}

}  // namespace
}  // namespace vsocket::transport
