// The evaluator after many changes against one that is compiled afresh, and against the slow evaluator; and what it says has changed
// against what has. VSOCKET_SEED repeats a failure, VSOCKET_HISTORIES makes a longer run.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>

#include "node-agent/policy/evaluator.h"
#include "node-agent/policy/testing/local_addresses.h"
#include "node-agent/policy/testing/random_cluster.h"
#include "node-agent/policy/testing/slow_evaluator.h"

namespace vsocket::policy {
namespace {

constexpr int kSteps = 15;
constexpr int kFlows = 40;

std::uint64_t FromEnvironment(const char* name, std::uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

std::string InWords(const model::Verdict& verdict) {
  std::string words = verdict.allowed ? "allowed" : "denied";
  for (const auto* side : {&verdict.egress, &verdict.ingress}) {
    words += "; " + side->pod + " " + side->decided_by + " by";
    for (const std::string& policy : side->isolated_by) words += " " + policy;
  }
  return words;
}

// A cluster, and this node in it, that live on.
class History {
 public:
  explicit History(testing::Random& random) : random_(random), cluster_(testing::MakeCluster(random, true)) {}

  [[nodiscard]] const testing::RandomCluster& Cluster() const { return cluster_; }
  [[nodiscard]] const std::vector<model::LocalPod>& Wired() const { return wired_; }

  void Step() {
    const unsigned changes = 1 + Below(3);
    for (unsigned i = 0; i < changes; ++i) ChangeSomething();
    ++cluster_.state.revision;
  }

 private:
  unsigned Below(unsigned bound) { return static_cast<unsigned>(random_() % bound); }

  template <typename T>
  void PutOrRemove(std::vector<model::Shared<T>>& objects, T object) {
    const auto same_name = [&](const T& other) {
      if constexpr (requires { other.ns; }) {
        return other.ns == object.ns && other.name == object.name;
      } else {
        return other.name == object.name;
      }
    };
    const auto found = std::find_if(objects.begin(), objects.end(), same_name);
    if (found == objects.end()) {
      objects.insert(objects.begin() + Below(static_cast<unsigned>(objects.size()) + 1), std::move(object));
    } else if (Below(3) == 0) {
      objects.erase(found);
    } else {
      *found = std::move(object);
    }
  }

  void ChangeSomething() {
    auto& state = cluster_.state;
    switch (Below(8)) {
      case 0:
      case 1:
        return PutOrRemove(state.policies, testing::MakePolicy(random_, Below(6)));
      case 2:
        return PutOrRemove(state.namespaces, testing::MakeNamespace(random_));
      case 3:
        return Wire();
      case 4:
        if (!wired_.empty()) wired_.erase(wired_.begin() + Below(static_cast<unsigned>(wired_.size())));
        return;
      case 5:  // labels only
        if (state.pods.empty()) return;
        state.pods[Below(static_cast<unsigned>(state.pods.size()))].Edit().labels = testing::MakePod(random_, 0, false).labels;
        return;
      default:
        return PutOrRemove(state.pods, testing::MakePod(random_, Below(16), true));
    }
  }

  void Wire() {
    model::LocalPod local;
    const model::Pod like = testing::MakePod(random_, Below(16), true);
    local.ns = like.ns;
    local.name = like.name;
    local.uid = "u" + std::to_string(Below(3));
    local.ips = like.ips;
    const auto taken = [&](const model::LocalPod& other) {
      return other.uid == local.uid && other.ns == local.ns && other.name == local.name;
    };
    if (!local.ips.empty() && std::none_of(wired_.begin(), wired_.end(), taken)) wired_.push_back(local);
  }

  testing::Random& random_;
  testing::RandomCluster cluster_;
  std::vector<model::LocalPod> wired_;
};

class IncrementalTest : public ::testing::Test {
 protected:
  void SetUp() override { std::cout << "VSOCKET_SEED=" << seed_ << std::endl; }

  const std::uint64_t seed_ = FromEnvironment("VSOCKET_SEED", std::random_device()());
  const std::uint64_t histories_ = FromEnvironment("VSOCKET_HISTORIES", 250);
  testing::Random random_{seed_};
};

TEST_F(IncrementalTest, AfterAnyChangesItIsAsIfCompiledAfresh) {
  std::uint64_t compared = 0, altered = 0, judged_again = 0;
  for (std::uint64_t i = 0; i < histories_; ++i) {
    History history(random_);
    Evaluator evaluator;
    std::map<std::size_t, bool> before;
    std::vector<model::Flow> flows;
    for (int f = 0; f < kFlows; ++f) flows.push_back(testing::MakeFlow(random_, history.Cluster()));
    for (int step = 0; step < kSteps; ++step) {
      SCOPED_TRACE("VSOCKET_SEED=" + std::to_string(seed_) + " history " + std::to_string(i) + " step " + std::to_string(step));
      const auto state = std::make_shared<const model::ClusterState>(history.Cluster().state);
      std::map<std::string, std::optional<SharedAllowList>> lists_before;
      for (const auto& pod : history.Wired()) lists_before[pod.ns + "/" + pod.name + " " + pod.uid] = evaluator.AllowListOf(pod);
      const Delta delta = evaluator.Apply(state, history.Wired(), history.Cluster().node_addresses);
      Evaluator fresh;
      static_cast<void>(fresh.Apply(state, history.Wired(), history.Cluster().node_addresses));

      // Verdicts, with their explanation; and who is told to be judged again.
      const auto merged = testing::WithLocalAddresses(*state, history.Wired());
      for (std::size_t f = 0; f < flows.size(); ++f, ++compared) {
        const model::Verdict verdict = evaluator.Evaluate(flows[f]);
        ASSERT_EQ(InWords(verdict), InWords(fresh.Evaluate(flows[f])));
        const auto expected = testing::SlowEvaluate(merged, history.Cluster().node_addresses, flows[f]);
        ASSERT_EQ(verdict.allowed, expected.egress && expected.ingress) << flows[f].source.ToString() << " " << InWords(verdict);
        judged_again += delta.affected.Concerns(flows[f]) ? 1U : 0U;
        if (step > 0 && before[f] != verdict.allowed) {
          ++altered;
          ASSERT_TRUE(delta.affected.Concerns(flows[f])) << flows[f].source.ToString() << " -> " << flows[f].destination.ToString();
        }
        before[f] = verdict.allowed;
      }

      // Allow lists, and which are told to be others.
      const std::set<std::string> told(delta.lists.begin(), delta.lists.end());
      for (const auto& pod : history.Wired()) {
        const auto list = evaluator.AllowListOf(pod);
        const auto anew = fresh.AllowListOf(pod);
        ASSERT_TRUE(list && anew);
        ASSERT_TRUE(**list == **anew) << pod.ns << "/" << pod.name;
        const auto& old = lists_before[pod.ns + "/" + pod.name + " " + pod.uid];
        if (old && **old == **list) {
          ASSERT_TRUE(old->Is(*list));
        } else {
          ASSERT_TRUE(told.contains(pod.ns + "/" + pod.name));
        }
      }

      // Nothing is left behind.
      const EvaluatorSize size = evaluator.Size(), expected_size = fresh.Size();
      ASSERT_EQ(size.pods, expected_size.pods);
      ASSERT_EQ(size.identities, expected_size.identities);
      ASSERT_EQ(size.groups, expected_size.groups);
      ASSERT_EQ(size.policies, expected_size.policies);
      ASSERT_EQ(evaluator.Problems(), fresh.Problems());
      history.Step();
    }
  }
  // Histories in which nothing happens would show nothing; nor would a delta of everything.
  EXPECT_GT(altered, compared / 100);
  EXPECT_LT(judged_again, compared * 3 / 4);
  std::cout << compared << " verdicts compared, " << altered << " altered by a change, " << judged_again << " judged again" << std::endl;
}

}  // namespace
}  // namespace vsocket::policy
