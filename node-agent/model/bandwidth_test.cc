#include "node-agent/model/bandwidth.h"

#include <gtest/gtest.h>

#include "node-agent/model/quantity.h"

namespace vsocket::model {
namespace {

TEST(Quantity, IsWhatKubernetesReads) {
  EXPECT_EQ(ParseQuantity("0"), 0);
  EXPECT_EQ(ParseQuantity("10M"), 10'000'000);
  EXPECT_EQ(ParseQuantity("+1k"), 1000);
  EXPECT_EQ(ParseQuantity("1Ki"), 1024);
  EXPECT_EQ(ParseQuantity("1.5Gi"), 1610612736);
  EXPECT_EQ(ParseQuantity(".5k"), 500);
  EXPECT_EQ(ParseQuantity("5.k"), 5000);
  EXPECT_EQ(ParseQuantity("100e6"), 100'000'000);
  EXPECT_EQ(ParseQuantity("1E3"), 1000);
  EXPECT_EQ(ParseQuantity("1e+3"), 1000);
  EXPECT_EQ(ParseQuantity("25e-1"), 3);
  EXPECT_EQ(ParseQuantity("1E"), 1'000'000'000'000'000'000);
  EXPECT_EQ(ParseQuantity("-3M"), -3'000'000);
}

TEST(Quantity, RoundsUp) {
  EXPECT_EQ(ParseQuantity("500m"), 1);
  EXPECT_EQ(ParseQuantity("1500m"), 2);
  EXPECT_EQ(ParseQuantity("1n"), 1);
  EXPECT_EQ(ParseQuantity("1u"), 1);
  EXPECT_EQ(ParseQuantity("1e-9999999999"), 1);
  EXPECT_EQ(ParseQuantity("1000.0000000000000000000000001"), 1001);
  EXPECT_EQ(ParseQuantity("0.0009765625Mi"), 1024);
  EXPECT_EQ(ParseQuantity("-1500m"), -2);
}

TEST(Quantity, EndsAtTheLargestNumber) {
  constexpr std::int64_t kMost = INT64_MAX;
  EXPECT_EQ(ParseQuantity("1e9999999999"), kMost);
  EXPECT_EQ(ParseQuantity("8Ei"), kMost);
  EXPECT_EQ(ParseQuantity("10E"), kMost);
  EXPECT_EQ(ParseQuantity("99999999999999999999999999"), kMost);
  EXPECT_EQ(ParseQuantity("-10E"), -kMost);
  EXPECT_EQ(ParseQuantity("9223372036854775806"), kMost - 1);
  EXPECT_EQ(ParseQuantity("9223372036854775807"), kMost);
  EXPECT_EQ(ParseQuantity("9223372036854775808"), kMost);
  EXPECT_EQ(ParseQuantity("9223372036854775806.5"), kMost);
  EXPECT_EQ(ParseQuantity("7Ei"), 7 * (1LL << 60));
}

TEST(Quantity, IsNothingElse) {
  for (const char* text : {"",    " ",  "M",   "+",    "-",    ".",    "1 M", " 1M", "1M ", "1.2.3", "1K",  "10Mb", "10MB",
                           "1kI", "1e", "1e+", "1ee3", "0x10", "1,5M", "--1", "1i",  "1g",  "NaN",   "inf", "1\n"}) {
    EXPECT_EQ(ParseQuantity(text), std::nullopt) << text;
  }
}

TEST(Bandwidth, NoAnnotationIsNoLimit) {
  const Bandwidth none = BandwidthOf({{"vsocket.io/inject", "true"}});
  EXPECT_EQ(none, Bandwidth{});
}

TEST(Bandwidth, EachDirectionHasItsOwn) {
  const Bandwidth both = BandwidthOf({{kIngressBandwidth, "10M"}, {kEgressBandwidth, "1.5G"}});
  EXPECT_EQ(both.ingress, (BandwidthLimit{10'000'000, "10M"}));
  EXPECT_EQ(both.egress, (BandwidthLimit{1'500'000'000, "1.5G"}));
  EXPECT_EQ(both.problem, "");
  EXPECT_FALSE(BandwidthOf({{kEgressBandwidth, "1k"}}).ingress);
}

TEST(Bandwidth, TheKubeletsBounds) {
  EXPECT_EQ(BandwidthOf({{kIngressBandwidth, "1k"}}).ingress->bits_per_second, 1000U);
  EXPECT_EQ(BandwidthOf({{kIngressBandwidth, "1P"}}).ingress->bits_per_second, 1'000'000'000'000'000U);
  for (const char* text : {"999", "0", "-10M", "999500m", "1m"}) {
    const Bandwidth small = BandwidthOf({{kIngressBandwidth, text}});
    if (std::string(text) == "999500m") {
      EXPECT_EQ(small.ingress->bits_per_second, 1000U) << "rounded up before it is judged";
      continue;
    }
    EXPECT_FALSE(small.ingress) << text;
    EXPECT_NE(small.problem.find("less than 1k"), std::string::npos) << small.problem;
  }
  EXPECT_NE(BandwidthOf({{kIngressBandwidth, "1001T"}}).problem.find("more than 1P"), std::string::npos);
}

TEST(Bandwidth, WhatIsNoQuantityIsNamed) {
  const Bandwidth wrong = BandwidthOf({{kIngressBandwidth, "fast"}, {kEgressBandwidth, "10MB"}});
  EXPECT_FALSE(wrong.ingress);
  EXPECT_FALSE(wrong.egress);
  EXPECT_EQ(wrong.problem,
            "kubernetes.io/ingress-bandwidth: \"fast\" is not a quantity, as 10M is one; "
            "kubernetes.io/egress-bandwidth: \"10MB\" is not a quantity, as 10M is one");
  EXPECT_LT(BandwidthOf({{kIngressBandwidth, std::string(100000, '9') + "!"}}).problem.size(), 200U);
}

}  // namespace
}  // namespace vsocket::model
