// The evaluator and the flat allow lists against the slow evaluator, over random clusters. VSOCKET_SEED repeats a failure,
// VSOCKET_CLUSTERS makes a longer run.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>

#include "node-agent/policy/evaluator.h"
#include "node-agent/policy/testing/random_cluster.h"
#include "node-agent/policy/testing/slow_evaluator.h"

namespace vsocket::policy {
namespace {

std::uint64_t FromEnvironment(const char* name, std::uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

std::string Describe(const model::Flow& flow) {
  return flow.source.ToString() + " -> " + flow.destination.ToString() + " port " + std::to_string(flow.destination_port) + " protocol " +
         std::to_string(static_cast<int>(flow.protocol));
}

bool Lists(const model::DirectionAllowList& list, const model::IpAddress& remote, const model::Flow& flow) {
  return !list.isolated || std::any_of(list.entries.begin(), list.entries.end(), [&](const model::AllowEntry& entry) {
    return entry.remote.Contains(remote) &&
           (!entry.protocol ||
            (*entry.protocol == flow.protocol && entry.first_port <= flow.destination_port && flow.destination_port <= entry.last_port));
  });
}

class PropertyTest : public ::testing::Test {
 protected:
  const std::uint64_t seed_ = FromEnvironment("VSOCKET_SEED", std::random_device()());
  const std::uint64_t clusters_ = FromEnvironment("VSOCKET_CLUSTERS", 1500);
  testing::Random random_{seed_};

  void SetUp() override { std::cout << "VSOCKET_SEED=" << seed_ << std::endl; }
};

TEST_F(PropertyTest, VerdictsAreTheOracles) {
  std::uint64_t compared = 0, denied = 0;
  for (std::uint64_t i = 0; i < clusters_; ++i) {
    const auto cluster = testing::MakeCluster(random_, true);
    const Evaluator evaluator(std::make_shared<const model::ClusterState>(cluster.state), cluster.node_addresses);
    for (int f = 0; f < 100; ++f, ++compared) {
      const model::Flow flow = testing::MakeFlow(random_, cluster);
      const model::Verdict verdict = evaluator.Evaluate(flow);
      const testing::SlowVerdict expected = testing::SlowEvaluate(cluster.state, cluster.node_addresses, flow);
      ASSERT_EQ(verdict.allowed, expected.egress && expected.ingress)
          << "VSOCKET_SEED=" << seed_ << " cluster " << i << ": " << Describe(flow) << "; egress: " << verdict.egress.decided_by
          << "; ingress: " << verdict.ingress.decided_by;
      ASSERT_EQ(verdict.allowed, verdict.egress.allowed && verdict.ingress.allowed) << "VSOCKET_SEED=" << seed_;
      if (!verdict.allowed) ++denied;
    }
  }
  // Random input that is all of one kind would show nothing.
  EXPECT_GT(denied, compared / 10) << "VSOCKET_SEED=" << seed_;
  EXPECT_LT(denied, compared * 9 / 10) << "VSOCKET_SEED=" << seed_;
  std::cout << compared << " verdicts compared, " << denied << " of them denials" << std::endl;
}

// Without contested addresses the lists are exact; with them they may only be narrower.
TEST_F(PropertyTest, AllowListsAreTheOracles) {
  for (std::uint64_t i = 0; i < clusters_ / 2; ++i) {
    const bool contested = i % 3 == 0;
    const auto cluster = testing::MakeCluster(random_, contested);
    const Evaluator evaluator(std::make_shared<const model::ClusterState>(cluster.state), cluster.node_addresses);
    for (const model::Pod& pod : cluster.state.pods) {
      if (pod.host_network || pod.finished || pod.ips.empty()) continue;
      const model::AllowList list = evaluator.AllowListFor(pod.ns + "/" + pod.name);
      for (int f = 0; f < 10; ++f) {
        model::Flow in = testing::MakeFlow(random_, cluster);
        in.destination = pod.ips[0];
        const bool listed_in = Lists(list.ingress, in.source, in);
        const bool allowed_in = testing::SlowIngressAllowed(cluster.state, pod, in);
        ASSERT_TRUE(listed_in == allowed_in || (contested && !listed_in))
            << "VSOCKET_SEED=" << seed_ << " cluster " << i << " in " << Describe(in);
        model::Flow out = testing::MakeFlow(random_, cluster);
        out.source = pod.ips[0];
        const bool listed_out = Lists(list.egress, out.destination, out);
        const bool allowed_out = testing::SlowEgressAllowed(cluster.state, pod, out);
        ASSERT_TRUE(listed_out == allowed_out || (contested && !listed_out))
            << "VSOCKET_SEED=" << seed_ << " cluster " << i << " out " << Describe(out);
      }
    }
  }
}

}  // namespace
}  // namespace vsocket::policy
