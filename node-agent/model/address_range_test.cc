#include "node-agent/model/address_range.h"

#include <gtest/gtest.h>

namespace vsocket::model {
namespace {

IpAddress Ip(const char* text) {
  return IpAddress::Parse(text).value();
}
AddressRange Range(const char* first, const char* last) {
  return {Ip(first), Ip(last)};
}
Cidr Block(const char* text) {
  return ParseCidr(text).value();
}

TEST(CidrTest, Parses) {
  EXPECT_EQ(ToString(Block("10.0.0.0/8")), "10.0.0.0/8");
  EXPECT_EQ(ToString(Block("10.1.2.3/8")), "10.0.0.0/8");  // host bits cleared
  EXPECT_EQ(ToString(Block("fd00::/64")), "fd00::/64");
  EXPECT_EQ(RangeOf(Block("0.0.0.0/0")), Range("0.0.0.0", "255.255.255.255"));
  EXPECT_EQ(RangeOf(Block("10.0.0.4/30")), Range("10.0.0.4", "10.0.0.7"));
  EXPECT_EQ(RangeOf(Block("::/0")), Range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
}

TEST(CidrTest, RefusesWhatIsNoCidr) {
  for (const char* text : {"", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/8 ",
                           "fd00::/129", "/8", "10.0.0/8", "::ffff:10.0.0.0/104", "10.0.0.0/8/8", "10.0.0.0/99999999999"}) {
    EXPECT_FALSE(ParseCidr(text)) << text;
  }
}

TEST(CidrTest, FamiliesAreApart) {
  EXPECT_FALSE(Contains(Block("0.0.0.0/0"), Ip("fd00::1")));
  EXPECT_FALSE(Contains(Block("::/0"), Ip("10.0.0.1")));
  EXPECT_TRUE(Contains(Block("::/0"), Ip("fd00::1")));
  EXPECT_TRUE(Contains(Block("0.0.0.0/0"), Ip("::ffff:1.2.3.4")));
}

TEST(CidrTest, CoversAndExcept) {
  EXPECT_TRUE(Covers(Block("10.0.0.0/8"), Block("10.1.0.0/16")));
  EXPECT_TRUE(Covers(Block("10.0.0.0/8"), Block("10.0.0.0/8")));
  EXPECT_FALSE(Covers(Block("10.1.0.0/16"), Block("10.0.0.0/8")));
  EXPECT_FALSE(Covers(Block("10.0.0.0/8"), Block("11.0.0.0/16")));
  const IpBlock block{Block("10.0.0.0/8"), {Block("10.1.0.0/16")}};
  EXPECT_TRUE(Contains(block, Ip("10.0.255.255")));
  EXPECT_FALSE(Contains(block, Ip("10.1.0.0")));
  EXPECT_FALSE(Contains(block, Ip("10.1.255.255")));
  EXPECT_TRUE(Contains(block, Ip("10.2.0.0")));
}

TEST(RangeTest, StepsToTheEnds) {
  EXPECT_EQ(Next(Ip("10.0.0.255")), Ip("10.0.1.0"));
  EXPECT_EQ(Previous(Ip("10.0.1.0")), Ip("10.0.0.255"));
  EXPECT_FALSE(Next(Ip("255.255.255.255")));
  EXPECT_FALSE(Previous(Ip("0.0.0.0")));
  EXPECT_FALSE(Next(Ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")));
  EXPECT_FALSE(Previous(Ip("::")));
  // Over the IPv4-mapped block, which has no IPv6 values.
  EXPECT_EQ(Next(Ip("::fffe:ffff:ffff")), Ip("::1:0:0:0"));
  EXPECT_EQ(Previous(Ip("::1:0:0:0")), Ip("::fffe:ffff:ffff"));
}

TEST(RangeTest, MergeIsCanonical) {
  EXPECT_EQ(
      Merge({Range("10.0.0.5", "10.0.0.9"), Range("10.0.0.1", "10.0.0.4"), Range("10.0.0.2", "10.0.0.3"), Range("10.0.1.0", "10.0.1.1")}),
      (std::vector{Range("10.0.0.1", "10.0.0.9"), Range("10.0.1.0", "10.0.1.1")}));
  EXPECT_EQ(Merge({Range("255.255.255.255", "255.255.255.255"), Range("0.0.0.0", "255.255.255.255")}),
            (std::vector{Range("0.0.0.0", "255.255.255.255")}));
  const auto both = Merge({Range("0.0.0.0", "255.255.255.255"), Range("::", "::5")});
  EXPECT_EQ(both.size(), 2u);
}

TEST(RangeTest, SubtractLeavesExactlyTheRest) {
  const AddressRange all = Range("10.0.0.0", "10.0.0.255");
  EXPECT_EQ(Subtract(all, {}), std::vector{all});
  EXPECT_EQ(Subtract(all, {Range("10.0.0.0", "10.0.0.9"), Range("10.0.0.5", "10.0.0.19"), Range("10.0.0.255", "10.0.1.3")}),
            std::vector{Range("10.0.0.20", "10.0.0.254")});
  EXPECT_EQ(Subtract(all, {Range("10.0.0.16", "10.0.0.31")}),
            (std::vector{Range("10.0.0.0", "10.0.0.15"), Range("10.0.0.32", "10.0.0.255")}));
  EXPECT_TRUE(Subtract(all, {Range("9.0.0.0", "11.0.0.0")}).empty());
  EXPECT_TRUE(Subtract(Range("0.0.0.0", "255.255.255.255"), {Range("0.0.0.0", "255.255.255.255")}).empty());
  EXPECT_EQ(Subtract(all, {Range("::", "::1")}), std::vector{all});
}

TEST(RangeTest, BlockRangesAgreeWithContains) {
  const IpBlock block{Block("10.0.0.0/24"), {Block("10.0.0.64/26"), Block("10.0.0.0/30"), Block("10.0.0.255/32")}};
  const auto ranges = RangesOf(block);
  for (std::optional<IpAddress> ip = Ip("9.255.255.250"); *ip != Ip("10.0.1.5"); ip = Next(*ip)) {
    bool in_ranges = false;
    for (const auto& range : ranges) in_ranges = in_ranges || range.Contains(*ip);
    EXPECT_EQ(in_ranges, Contains(block, *ip)) << ip->ToString();
  }
}

}  // namespace
}  // namespace vsocket::model
