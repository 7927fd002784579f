#include "test/hostile/vandal.h"

#include <atomic>
#include <cstring>
#include <iterator>

#include "channel/gate.h"
#include "channel/grant.h"

namespace vsocket::hostile {

using channel::SideWords;

void Vandal::Attach() {
  Mine().attached.store(channel_.epoch, std::memory_order_release);
}

void Vandal::Propose(std::uint64_t start, std::uint8_t marker, std::uint64_t bytes) {
  SideWords& mine = Mine();
  Theirs().gate.store(channel::GateWord(channel::GateKind::kTaken, 1));
  mine.capacity_log2.store(channel::kRingMinLog2);
  mine.tail.store(start + bytes, std::memory_order_release);
  mine.proposal_start.store(start);
  mine.proposal_marker.store(marker);
  mine.proposal_generation.store(1, std::memory_order_release);
}

void Vandal::Consume() {
  Mine().head.store(Theirs().tail.load(std::memory_order_acquire), std::memory_order_release);
}

std::uint64_t Vandal::Extreme() {
  const std::uint64_t head = Theirs().head.load();
  const std::uint64_t tail = Theirs().tail.load();
  const std::uint64_t capacity = 1ULL << (channel::kRingMinLog2 + RandomBelow(random_, 6));
  switch (RandomBelow(random_, 12)) {
    case 0:
      return head - 1;
    case 1:
      return head + capacity;
    case 2:
      return head + capacity + 1;
    case 3:
      return tail + 1;
    case 4:
      return tail - capacity - 1;
    case 5:
      return 1ULL << 63;
    case 6:
      return UINT64_MAX;
    case 7:
      return 0;
    case 8:
      return head + RandomBelow(random_, capacity);
    case 9:
      return tail - RandomBelow(random_, capacity);
    case 10:
      return 1ULL << RandomBelow(random_, 64);
    default:
      return RandomNext(random_);
  }
}

void Vandal::WreckNamedWord() {
  SideWords& words = RandomChance(random_, 80) ? Mine() : Theirs();
  channel::SlotHeader& slot = region_.Slot(channel_.slot % channel::kSlots);
  const auto small = static_cast<std::uint32_t>(Extreme());
  static constexpr std::uint32_t kClasses[] = {0, 1, 13, 14, 15, 18, 19, 31, 32, 63, 64, 255, UINT32_MAX};
  switch (RandomBelow(random_, 17)) {
    case 0:
      words.tail.store(Extreme());
      break;
    case 1:
      words.head.store(Extreme());
      break;
    case 2:
      words.capacity_log2.store(kClasses[RandomBelow(random_, std::size(kClasses))]);
      break;
    case 3:
      words.data_waiter.store(RandomChance(random_, 50) ? static_cast<std::uint32_t>(RandomBelow(random_, 20)) : small);
      break;
    case 4:
      words.space_waiter.store(RandomChance(random_, 50) ? static_cast<std::uint32_t>(RandomBelow(random_, 20)) : small);
      break;
    case 5:
      words.attached.store(small);
      break;
    case 6:
      words.gate.store(RandomChance(random_, 70) ? static_cast<std::uint32_t>(RandomBelow(random_, 12)) : small);
      break;
    case 7:
      words.bells.store(small);
      break;
    case 8:
      words.proposal_generation.store(RandomChance(random_, 50) ? words.proposal_generation.load() + 1 : small);
      break;
    case 9:
      words.proposal_marker.store(RandomChance(random_, 50) ? 256 + static_cast<std::uint32_t>(RandomBelow(random_, 9)) : small);
      break;
    case 10:
      words.finished_generation.store(RandomChance(random_, 50) ? words.finished_generation.load() + 1 : small);
      break;
    case 11:
      words.proposal_start.store(Extreme());
      break;
    case 12:
      slot.epoch.store(RandomChance(random_, 50) ? channel_.epoch + 1 : small);
      break;
    case 13:
      slot.grant[RandomBelow(random_, 2)].store(RandomChance(random_, 50) ? channel::GrantWord(Extreme()) : 0);
      break;
    case 14:
      slot.watched[RandomBelow(random_, 2)].store(static_cast<std::uint32_t>(RandomBelow(random_, 4)));
      break;
    case 15:
      slot.pace_us[RandomBelow(random_, 2)].store(small);
      break;
    default:
      slot.revoked.store(RandomChance(random_, 50) ? channel_.epoch : small);
      break;
  }
}

void Vandal::WreckAnyWord() {
  // The region's header, any slot's header; aligned 32 bit words.
  auto* base = reinterpret_cast<std::byte*>(&region_.Header());
  const std::size_t offset = RandomChance(random_, 20)
                                 ? RandomBelow(random_, channel::kSlotsOffset)
                                 : channel::SlotOffset(channel_.slot % channel::kSlots) + RandomBelow(random_, sizeof(channel::SlotHeader));
  reinterpret_cast<std::atomic<std::uint32_t>*>(base + offset / 4 * 4)->store(static_cast<std::uint32_t>(Extreme()));
}

void Vandal::WreckRing() {
  auto* base = reinterpret_cast<std::byte*>(&region_.Header());
  const std::size_t ring = channel::RingOffset(channel_.slot % channel::kSlots, static_cast<std::uint32_t>(RandomBelow(random_, 2)));
  const std::size_t at = RandomBelow(random_, channel::kRingMax - 64);
  std::memset(base + ring + at, static_cast<int>(RandomBelow(random_, 256)), 64);
}

void Vandal::Wreck() {
  for (std::uint64_t writes = 1 + RandomBelow(random_, 6); writes > 0; --writes) {
    const std::uint64_t kind = RandomBelow(random_, 100);
    if (kind < 75)
      WreckNamedWord();
    else if (kind < 88)
      WreckAnyWord();
    else
      WreckRing();
  }
}

}  // namespace vsocket::hostile
