// Two real threads, a ring in memory, and sleeps in the kernel: nobody is left asleep with data or room before him. A lost wake-up shows as
// a wait that takes kForever.
#include "channel/wake.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "channel/ring.h"

namespace vsocket::channel {
namespace {

constexpr int kForever = 20000;  // ms: longer than any honest wake-up, shorter than the test's limit

// Something a thread sleeps on and another rings; a ring before the sleep is kept.
class WakeObject {
 public:
  WakeObject() : fd_(::eventfd(0, EFD_CLOEXEC)) {}

  void Ring() {
    const std::uint64_t one = 1;
    ASSERT_EQ(::write(fd_.Get(), &one, sizeof one), static_cast<ssize_t>(sizeof one));
  }

  // False: nobody rang for ever so long.
  [[nodiscard]] bool Sleep() {
    struct pollfd item = {fd_.Get(), POLLIN, 0};
    if (::poll(&item, 1, kForever) != 1) return false;
    std::uint64_t count = 0;
    return ::read(fd_.Get(), &count, sizeof count) == static_cast<ssize_t>(sizeof count);
  }

 private:
  UniqueFd fd_;
};

std::uint8_t ByteAt(std::uint64_t position) {
  return static_cast<std::uint8_t>((position * 0x9e3779b97f4a7c15ULL) >> 56);
}

// The ring's bytes have no lock: the orders of `tail` and `head` are all that keeps the two threads apart.
struct Shared {
  SideWords producer{};
  SideWords consumer{};
  std::unique_ptr<std::byte[]> ring = std::make_unique<std::byte[]>(kRingMax);
  WakeObject data;   // rung for the consumer
  WakeObject space;  // rung for the producer
  std::atomic<bool> lost{false};
  std::atomic<std::uint64_t> sleeps{0};
};

void Ring(std::uint32_t target, WakeObject& object) {
  if (target != kNobody) object.Ring();
}

void Produce(Shared& shared, std::uint64_t total, std::uint64_t largest) {
  std::mt19937_64 random(1);
  ProducerState out;
  std::vector<std::uint8_t> bytes;
  while (out.pos < total && !shared.lost) {
    ASSERT_TRUE(RefreshRoom(out, shared.consumer));
    const std::uint64_t size = std::min({1 + random() % largest, total - out.pos, Room(out)});
    if (size == 0) {
      Arm(shared.producer.space_waiter, kFirstWakeFd);
      ASSERT_TRUE(RefreshRoom(out, shared.consumer));
      if (Room(out) < WritableRoom(out.capacity_log2)) {
        shared.sleeps.fetch_add(1, std::memory_order_relaxed);
        if (!shared.space.Sleep()) shared.lost = true;
      }
      Disarm(shared.producer.space_waiter);
      continue;
    }
    bytes.resize(size);
    for (std::uint64_t i = 0; i < size; ++i) bytes[i] = ByteAt(out.pos + i);
    CopyIn(out, shared.ring.get(), 0, bytes.data(), size);
    Publish(out, shared.producer, size);
    Ring(TakeWaiter(shared.consumer.data_waiter), shared.data);
  }
}

void Consume(Shared& shared, std::uint64_t total, std::uint64_t largest) {
  std::mt19937_64 random(2);
  ConsumerState in;
  std::vector<std::uint8_t> bytes;
  while (in.pos < total && !shared.lost) {
    ASSERT_TRUE(RefreshData(in, shared.producer));
    const std::uint64_t size = std::min(1 + random() % largest, Available(in));
    if (size == 0) {
      Arm(shared.consumer.data_waiter, kFirstWakeFd);
      ASSERT_TRUE(RefreshData(in, shared.producer));
      if (Available(in) == 0) {
        shared.sleeps.fetch_add(1, std::memory_order_relaxed);
        if (!shared.data.Sleep()) shared.lost = true;
      }
      Disarm(shared.consumer.data_waiter);
      continue;
    }
    bytes.resize(size);
    CopyOut(in, shared.ring.get(), 0, bytes.data(), size);
    for (std::uint64_t i = 0; i < size; ++i) ASSERT_EQ(bytes[i], ByteAt(in.pos + i));
    Consume(in, shared.consumer, size);
    // As the shim does: a sleeper is worth a wake-up when it could write a good piece.
    if (Available(in) + WritableRoom(in.capacity_log2) <= (1ULL << in.capacity_log2)) {
      Ring(TakeWaiter(shared.producer.space_waiter), shared.space);
    }
  }
}

enum class SleepsFirst { kProducer, kConsumer };

void RunPair(SleepsFirst first, std::uint64_t total, std::uint64_t largest_sent, std::uint64_t largest_read) {
  Shared shared;
  shared.producer.capacity_log2.store(kRingMinLog2);
  const auto wait_unless_first = [&](SleepsFirst me) {  // so that there is at least one sleeper, whatever the scheduler does
    while (me != first && shared.sleeps.load(std::memory_order_relaxed) == 0) std::this_thread::yield();
  };
  std::thread producer([&] {
    wait_unless_first(SleepsFirst::kProducer);
    Produce(shared, total, largest_sent);
  });
  std::thread consumer([&] {
    wait_unless_first(SleepsFirst::kConsumer);
    Consume(shared, total, largest_read);
  });
  producer.join();
  consumer.join();
  EXPECT_FALSE(shared.lost) << "somebody slept with data or room before him";
  EXPECT_EQ(shared.producer.tail.load(), total);
  EXPECT_EQ(shared.consumer.head.load(), total);
}

TEST(WakeTest, AFastConsumerSleepsForData) {
  RunPair(SleepsFirst::kConsumer, 1 << 21, 64, kRingMax);
}

TEST(WakeTest, AFastProducerSleepsForRoom) {
  RunPair(SleepsFirst::kProducer, 1 << 22, kRingMax, 500);
}

TEST(WakeTest, BothInTurns) {
  RunPair(SleepsFirst::kConsumer, 1 << 24, 20000, 20000);
}

// The one race that the fences are for, again and again: a waiter arms and looks, a maker publishes and looks. Both may see the other;
// that neither does is a lost wake-up.
TEST(WakeTest, EitherTheWaiterSeesTheDataOrTheMakerSeesTheWaiter) {
  constexpr std::uint64_t kRounds = 400000;
  SideWords words{};
  SideWords producer{};
  alignas(kFalseSharing) std::atomic<std::uint64_t> waiter_at{0};
  alignas(kFalseSharing) std::atomic<std::uint64_t> maker_at{0};
  std::vector<std::uint8_t> saw_data(kRounds + 1);
  std::vector<std::uint8_t> saw_waiter(kRounds + 1);
  const auto meet = [](std::atomic<std::uint64_t>& mine, const std::atomic<std::uint64_t>& theirs, std::uint64_t round) {
    mine.store(round, std::memory_order_release);
    for (int spin = 0; theirs.load(std::memory_order_acquire) < round; ++spin) {
      if (spin > 1000) std::this_thread::yield();
    }
  };
  // Two instructions meet in a window of nanoseconds: the one side comes later by more and more, then the other.
  const auto linger = [](std::uint64_t turns) {
    for (std::uint64_t i = 0; i < turns; ++i) std::atomic_signal_fence(std::memory_order_seq_cst);
  };
  std::thread waiter([&] {
    for (std::uint64_t round = 1; round <= kRounds; ++round) {
      meet(waiter_at, maker_at, 2 * round);
      linger(round % 600);
      Arm(words.data_waiter, kTcpBell);
      saw_data[round] = producer.tail.load(std::memory_order_acquire) == round;
      meet(waiter_at, maker_at, 2 * round + 1);
      Disarm(words.data_waiter);
    }
  });
  std::thread maker([&] {
    for (std::uint64_t round = 1; round <= kRounds; ++round) {
      meet(maker_at, waiter_at, 2 * round);
      linger(round / 600 % 600);
      producer.tail.store(round, std::memory_order_release);
      saw_waiter[round] = TakeWaiter(words.data_waiter) == kTcpBell;
      meet(maker_at, waiter_at, 2 * round + 1);
    }
  });
  waiter.join();
  maker.join();
  std::uint64_t lost = 0;
  for (std::uint64_t round = 1; round <= kRounds; ++round) lost += saw_data[round] == 0 && saw_waiter[round] == 0;
  EXPECT_EQ(lost, 0U) << "of " << kRounds;
}

TEST(WakeTest, TheExchangeMakesOneRingOfMany) {
  std::atomic<std::uint32_t> word{kNobody};
  EXPECT_EQ(TakeWaiter(word), kNobody);
  Arm(word, kFirstWakeFd + 3);
  EXPECT_EQ(TakeWaiter(word), kFirstWakeFd + 3);
  EXPECT_EQ(TakeWaiter(word), kNobody);
  Arm(word, kTcpBell);
  Disarm(word);
  EXPECT_EQ(TakeWaiter(word), kNobody);
}

// The word is the peer's to write: what comes out is always a target there is.
TEST(WakeTest, AnImpossibleTargetIsTheTcpBell) {
  std::atomic<std::uint32_t> word{kNobody};
  Arm(word, kFirstWakeFd + kWakeFdsPerSide - 1);
  EXPECT_EQ(TakeWaiter(word), kFirstWakeFd + kWakeFdsPerSide - 1);
  for (const std::uint32_t hostile : {kFirstWakeFd + kWakeFdsPerSide, kFirstWakeFd + kWakeFdsPerSide + 1, 1U << 31, UINT32_MAX}) {
    word.store(hostile);
    EXPECT_EQ(TakeWaiter(word), kTcpBell);
    EXPECT_EQ(word.load(), kNobody);
  }
}

// Waiter and maker judge by one number: a sleeper is never left with that much room, and that much is never more than there is.
TEST(WakeTest, WritableRoomIsPartOfTheRing) {
  for (std::uint32_t log2 = kRingMinLog2; log2 <= kRingMaxLog2; ++log2) {
    EXPECT_GT(WritableRoom(log2), 0U);
    EXPECT_LT(WritableRoom(log2), 1ULL << log2);
  }
}

}  // namespace
}  // namespace vsocket::channel
