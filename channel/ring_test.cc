#include "channel/ring.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

namespace vsocket::channel {
namespace {

constexpr std::uint64_t kSmall = 1ULL << kRingMinLog2;

// One ring between two honest ends. The memory is exactly the largest capacity, on the heap: a sanitizer sees a step beyond it.
class RingTest : public ::testing::Test {
 protected:
  RingTest() : ring_(std::make_unique<std::byte[]>(kRingMax)) {}

  void StartAt(std::uint64_t position) {
    out_ = {position, position, kRingMinLog2};
    in_ = {position, position, kRingMinLog2};
    producer_.tail.store(position);
    producer_.capacity_log2.store(kRingMinLog2);
    consumer_.head.store(position);
  }

  // The byte that belongs at a stream position.
  static std::byte ByteAt(std::uint64_t position) { return static_cast<std::byte>((position * 0x9e3779b97f4a7c15ULL) >> 56); }

  static std::vector<std::byte> Bytes(std::uint64_t from, std::uint64_t size) {
    std::vector<std::byte> bytes(size);
    for (std::uint64_t i = 0; i < size; ++i) bytes[i] = ByteAt(from + i);
    return bytes;
  }

  void Send(std::uint64_t size) {
    ASSERT_LE(size, Room(out_));
    CopyIn(out_, ring_.get(), 0, Bytes(out_.pos, size).data(), size);
    Publish(out_, producer_, size);
  }

  void Receive(std::uint64_t size) {
    ASSERT_TRUE(RefreshData(in_, producer_));
    ASSERT_LE(size, Available(in_));
    std::vector<std::byte> got(size);
    CopyOut(in_, ring_.get(), 0, got.data(), size);
    EXPECT_EQ(got, Bytes(in_.pos, size));
    Consume(in_, consumer_, size);
  }

  std::unique_ptr<std::byte[]> ring_;
  SideWords producer_{};  // the producer's words
  SideWords consumer_{};  // the consumer's
  ProducerState out_;
  ConsumerState in_;
};

TEST_F(RingTest, EmptyAndFullAreToldApart) {
  StartAt(0);
  ASSERT_TRUE(RefreshData(in_, producer_));
  EXPECT_EQ(Available(in_), 0U);
  EXPECT_EQ(Room(out_), kSmall);
  EXPECT_TRUE(IsDrained(out_));
  Send(kSmall);
  EXPECT_EQ(Room(out_), 0U);
  EXPECT_FALSE(IsDrained(out_));
  ASSERT_TRUE(RefreshData(in_, producer_));
  EXPECT_EQ(Available(in_), kSmall);
  Receive(kSmall);
  ASSERT_TRUE(RefreshRoom(out_, consumer_));
  EXPECT_EQ(Room(out_), kSmall);
}

TEST_F(RingTest, PublishesItsPositions) {
  StartAt(1000);
  Send(10);
  EXPECT_EQ(producer_.tail.load(), 1010U);
  Receive(4);
  EXPECT_EQ(consumer_.head.load(), 1004U);
}

TEST_F(RingTest, NothingIsSeenBeforeItIsPublished) {
  StartAt(0);
  CopyIn(out_, ring_.get(), 0, Bytes(0, 100).data(), 100);
  ASSERT_TRUE(RefreshData(in_, producer_));
  EXPECT_EQ(Available(in_), 0U);
  Publish(out_, producer_, 100);
  ASSERT_TRUE(RefreshData(in_, producer_));
  EXPECT_EQ(Available(in_), 100U);
}

TEST_F(RingTest, WrapsAround) {
  for (const std::uint64_t before : {std::uint64_t{1}, std::uint64_t{7}, kSmall / 2, kSmall - 1}) {
    StartAt(5 * kSmall - before);
    Send(kSmall);  // `before` bytes at the end of the memory, the rest at its start
    EXPECT_EQ(ring_[kSmall - 1], ByteAt(5 * kSmall - 1));
    EXPECT_EQ(ring_[0], ByteAt(5 * kSmall));
    Receive(kSmall);
  }
}

TEST_F(RingTest, CarriesPositionsBeyondTheRangeOfItsIndices) {
  StartAt((1ULL << 63) + kSmall - 3);
  Send(6);
  Receive(6);
}

TEST_F(RingTest, CopiesInPiecesAndPeeks) {
  StartAt(3 * kSmall - 10);
  const std::vector<std::byte> bytes = Bytes(out_.pos, 25);
  CopyIn(out_, ring_.get(), 0, bytes.data(), 4);         // before the wrap
  CopyIn(out_, ring_.get(), 4, bytes.data() + 4, 11);    // across it
  CopyIn(out_, ring_.get(), 15, bytes.data() + 15, 10);  // behind it
  CopyIn(out_, ring_.get(), 25, nullptr, 0);             // an empty part of an iovec
  Publish(out_, producer_, 25);
  ASSERT_TRUE(RefreshData(in_, producer_));
  std::vector<std::byte> got(25);
  CopyOut(in_, ring_.get(), 8, got.data() + 8, 17);
  CopyOut(in_, ring_.get(), 0, got.data(), 8);
  CopyOut(in_, ring_.get(), 0, nullptr, 0);
  EXPECT_EQ(got, bytes);
  Receive(25);  // looking has not taken anything
}

TEST_F(RingTest, FreePieceEndsAtTheRoomTheLimitAndTheMemory) {
  StartAt(2 * kSmall - 100);
  std::uint64_t size = 0;
  EXPECT_EQ(FreePiece(out_, ring_.get(), 1ULL << 40, &size), ring_.get() + kSmall - 100);
  EXPECT_EQ(size, 100U);  // the end of the memory
  EXPECT_EQ(FreePiece(out_, ring_.get(), 30, &size), ring_.get() + kSmall - 100);
  EXPECT_EQ(size, 30U);  // what the caller asked for
  Send(100);
  EXPECT_EQ(FreePiece(out_, ring_.get(), 1ULL << 40, &size), ring_.get());
  EXPECT_EQ(size, kSmall - 100);  // the bytes not yet read
  Send(kSmall - 100);
  (void)FreePiece(out_, ring_.get(), 1ULL << 40, &size);
  EXPECT_EQ(size, 0U);
}

TEST_F(RingTest, WhatWasFilledInPlaceArrives) {
  StartAt(7 * kSmall - 40);
  for (const std::uint64_t expected : {40U, 60U}) {
    std::uint64_t size = 0;
    std::byte* piece = FreePiece(out_, ring_.get(), 60, &size);
    ASSERT_EQ(size, expected);
    std::ranges::copy(Bytes(out_.pos, size), piece);
    Publish(out_, producer_, size);
  }
  Receive(100);
}

TEST_F(RingTest, GrowsOnlyWhenDrained) {
  StartAt(kSmall - 5);  // an index that the larger capacity places elsewhere
  Send(10);
  Receive(9);
  EXPECT_FALSE(IsDrained(out_));  // not looked yet
  ASSERT_TRUE(RefreshRoom(out_, consumer_));
  EXPECT_FALSE(IsDrained(out_));  // one byte is still there
  Receive(1);
  EXPECT_FALSE(IsDrained(out_));
  ASSERT_TRUE(RefreshRoom(out_, consumer_));
  ASSERT_TRUE(IsDrained(out_));
  SetCapacity(out_, producer_, kRingMaxLog2);
  EXPECT_EQ(Room(out_), kRingMax);
  ASSERT_TRUE(RefreshData(in_, producer_));
  EXPECT_EQ(in_.capacity_log2, kRingMinLog2);  // it comes with the next tail
  Send(kRingMax);
  EXPECT_EQ(ring_[kSmall + 5], ByteAt(kSmall + 5));
  Receive(kRingMax);
  EXPECT_EQ(in_.capacity_log2, kRingMaxLog2);
  ASSERT_TRUE(RefreshRoom(out_, consumer_));
  SetCapacity(out_, producer_, kRingMinLog2);
  Send(kSmall);
  Receive(kSmall);
}

TEST_F(RingTest, RandomTrafficInAllCapacities) {
  std::mt19937_64 random(20170917);
  const auto below = [&random](std::uint64_t n) { return random() % n; };
  StartAt(below(1ULL << 50));
  for (int step = 0; step < 4000; ++step) {
    ASSERT_TRUE(RefreshRoom(out_, consumer_));
    if (IsDrained(out_)) {
      SetCapacity(out_, producer_, kRingMinLog2 + static_cast<std::uint32_t>(below(kRingMaxLog2 - kRingMinLog2 + 1)));
    }
    if (const std::uint64_t room = Room(out_); room != 0) Send(below(room + 1) >> below(8));
    ASSERT_TRUE(RefreshData(in_, producer_));
    if (const std::uint64_t available = Available(in_); available != 0) Receive(below(3) == 0 ? available : below(available + 1));
    if (HasFatalFailure()) return;
  }
}

// A refused word leaves the state as it was: the honest side may still finish what it has bounded.
#define EXPECT_TAIL_REFUSED(tail_value)                        \
  do {                                                         \
    const ConsumerState before = in_;                          \
    producer_.tail.store(tail_value);                          \
    EXPECT_FALSE(RefreshData(in_, producer_)) << (tail_value); \
    EXPECT_EQ(in_.pos, before.pos);                            \
    EXPECT_EQ(in_.seen_tail, before.seen_tail);                \
    EXPECT_EQ(in_.capacity_log2, before.capacity_log2);        \
  } while (false)

TEST_F(RingTest, RefusesATailThatGoesBack) {
  StartAt(kSmall);
  Send(100);
  ASSERT_TRUE(RefreshData(in_, producer_));
  EXPECT_TAIL_REFUSED(kSmall + 99);
  EXPECT_TAIL_REFUSED(kSmall);
  EXPECT_TAIL_REFUSED(0);
}

TEST_F(RingTest, RefusesATailBeyondTheCapacity) {
  StartAt(kSmall);
  producer_.tail.store(2 * kSmall);
  EXPECT_TRUE(RefreshData(in_, producer_));  // full is not beyond
  StartAt(kSmall);
  EXPECT_TAIL_REFUSED(2 * kSmall + 1);
  EXPECT_TAIL_REFUSED(kSmall + kRingMax);
  producer_.capacity_log2.store(kRingMaxLog2);
  EXPECT_TAIL_REFUSED(kSmall + kRingMax + 1);
  EXPECT_TAIL_REFUSED(UINT64_MAX);
  EXPECT_TAIL_REFUSED(kSmall - 1);
  producer_.tail.store(kSmall + kRingMax);
  EXPECT_TRUE(RefreshData(in_, producer_));
  EXPECT_EQ(Available(in_), kRingMax);
}

TEST_F(RingTest, RefusesACapacityOutsideItsClasses) {
  for (const std::uint32_t hostile : {0U, 1U, kRingMinLog2 - 1, kRingMaxLog2 + 1, 32U, 63U, 64U, 64U + kRingMinLog2, UINT32_MAX}) {
    StartAt(kSmall);
    producer_.capacity_log2.store(hostile);
    EXPECT_TAIL_REFUSED(kSmall + 1);
  }
}

TEST_F(RingTest, RefusesACapacitySmallerThanWhatItHolds) {
  StartAt(0);
  SetCapacity(out_, producer_, kRingMaxLog2);
  Send(kSmall + 1);
  ASSERT_TRUE(RefreshData(in_, producer_));
  producer_.capacity_log2.store(kRingMinLog2);
  EXPECT_TAIL_REFUSED(kSmall + 1);
  EXPECT_TAIL_REFUSED(kSmall + 2);
}

TEST_F(RingTest, RefusesAHeadBeyondTheTail) {
  StartAt(kSmall);
  Send(100);
  for (const std::uint64_t hostile : {kSmall + 101, 2 * kSmall, std::uint64_t{1} << 63, UINT64_MAX}) {
    consumer_.head.store(hostile);
    EXPECT_FALSE(RefreshRoom(out_, consumer_)) << hostile;
    EXPECT_EQ(out_.seen_head, kSmall);
    EXPECT_EQ(Room(out_), kSmall - 100);
  }
}

TEST_F(RingTest, AHeadFromBeforeIsNoNews) {
  StartAt(kSmall);
  Send(100);
  Receive(60);
  ASSERT_TRUE(RefreshRoom(out_, consumer_));
  EXPECT_EQ(out_.seen_head, kSmall + 60);
  for (const std::uint64_t old : {kSmall + 59, kSmall, std::uint64_t{0}}) {
    consumer_.head.store(old);
    EXPECT_TRUE(RefreshRoom(out_, consumer_));
    EXPECT_EQ(out_.seen_head, kSmall + 60);
    EXPECT_EQ(Room(out_), kSmall - 40);
  }
}

}  // namespace
}  // namespace vsocket::channel
