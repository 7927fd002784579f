#include "node-agent/transport/mirror/wire.h"

#include <gtest/gtest.h>

namespace vsocket::transport {
namespace {

TEST(WireTest, AnImmediateNamesAConnectionAndAPosition) {
  for (const std::uint64_t known : {0ULL, 5ULL, (1ULL << 20) - 3, (1ULL << 32) - 1, (1ULL << 62) - 7}) {
    for (const std::uint64_t ahead : {0ULL, 1ULL, 4096ULL, static_cast<unsigned long long>(channel::kRingMax)}) {
      const std::uint32_t immediate = EncodeImmediate(kMaxConnections - 1, known + ahead);
      EXPECT_EQ(ConnectionOf(immediate), kMaxConnections - 1);
      EXPECT_EQ(PositionOf(immediate, known), known + ahead);
    }
  }
}

TEST(WireTest, AnOldPositionIsNoNews) {
  const std::uint64_t known = 1ULL << 33;
  for (const std::uint64_t behind : {1ULL, 77ULL, static_cast<unsigned long long>(channel::kRingMax)})
    EXPECT_EQ(PositionOf(EncodeImmediate(3, known - behind), known), known);
  // Whatever the number, it never leads further than a ring.
  for (std::uint64_t low = 0; low < (1U << kPositionBits); low += 997) {
    const std::uint64_t position = PositionOf(EncodeImmediate(0, low), known);
    EXPECT_GE(position, known);
    EXPECT_LE(position, known + channel::kRingMax);
  }
}

class ControlTest : public ::testing::Test {
 protected:
  // A message of `records` records, as it crosses.
  std::span<std::byte> Encode(std::uint16_t records) {
    message_.header.records = records;
    message_.header.reposted = {1, 2, 3};
    for (std::uint16_t i = 0; i < records; ++i) {
      message_.records[i].type = RecordType::kState;
      message_.records[i].connection = i;
      message_.records[i].large[0] = 1000ULL + i;
    }
    return std::span(bytes_).first(EncodeControl(message_, bytes_));
  }

  ControlMessage message_;
  std::array<std::byte, kControlBytes> bytes_{};
};

TEST_F(ControlTest, ComesOutAsItWentIn) {
  for (std::uint16_t records = 0; records <= kMaxRecords; ++records) {
    ControlMessage out;
    ASSERT_TRUE(DecodeControl(Encode(records), &out));
    EXPECT_EQ(out.header.records, records);
    EXPECT_EQ(out.header.reposted[2], 3U);
    for (std::uint16_t i = 0; i < records; ++i) EXPECT_EQ(out.records[i].large[0], 1000ULL + i);
  }
}

TEST_F(ControlTest, RefusesEveryOtherLength) {
  const auto right = Encode(2);
  for (std::size_t size = 0; size <= kControlBytes; ++size) {
    ControlMessage out;
    EXPECT_EQ(DecodeControl(std::span(bytes_).first(size), &out), size == right.size()) << size;
  }
}

TEST_F(ControlTest, RefusesWhatIsImpossible) {
  ControlMessage out;
  const auto right = Encode(1);
  ASSERT_TRUE(DecodeControl(right, &out));
  bytes_[0] ^= std::byte{1};  // magic
  EXPECT_FALSE(DecodeControl(right, &out));
  bytes_[0] ^= std::byte{1};
  bytes_[4] ^= std::byte{1};  // version
  EXPECT_FALSE(DecodeControl(right, &out));
  bytes_[4] ^= std::byte{1};
  for (const int number : {0, kLastRecordType + 1, 0xffff}) {
    const auto type = static_cast<std::uint16_t>(number);
    Encode(1);
    std::memcpy(bytes_.data() + sizeof(ControlHeader), &type, sizeof type);
    EXPECT_FALSE(DecodeControl(right, &out)) << type;
  }
  Encode(1);
  const std::uint16_t connection = kMaxConnections;
  std::memcpy(bytes_.data() + sizeof(ControlHeader) + 2, &connection, sizeof connection);
  EXPECT_FALSE(DecodeControl(right, &out));
}

}  // namespace
}  // namespace vsocket::transport
