// Readers while changes are applied: each answer is of one state as a whole.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "node-agent/policy/evaluator.h"
#include "node-agent/policy/testing/builders.h"

namespace vsocket::policy {
namespace {

using namespace testing;  // NOLINT: the builders are this file's language

// In one state a/client may reach a/server by policy "even", in the other by policy "odd", and in neither is there both or none.
model::ClusterState State(bool even) {
  model::ClusterState state;
  state.pods = {MakePod("a", "client", "10.0.0.1", {{"app", even ? "even" : "odd"}}),
                MakePod("a", "server", "10.0.0.2", {{"app", "server"}})};
  const std::string name = even ? "even" : "odd";
  state.policies = {Ingress("a", name, Select({{"app", "server"}}), {{{Pods({{"app", name}})}, {}}})};
  return state;
}

TEST(ConcurrencyTest, AReaderSeesAChangeAsAWholeOrNotAtAll) {
  const auto even = std::make_shared<const model::ClusterState>(State(true));
  const auto odd = std::make_shared<const model::ClusterState>(State(false));
  Evaluator evaluator(even, {});
  std::atomic<bool> over = false;
  std::atomic<std::uint64_t> answers = 0;
  std::vector<std::string> wrong(3);
  std::vector<std::thread> readers;
  for (std::string& mistake : wrong) {
    readers.emplace_back([&] {
      do {
        const model::Verdict verdict = evaluator.Evaluate(Tcp("10.0.0.1", "10.0.0.2", 80));
        auto traced = evaluator.Trace("a/client", "a/server", "80");
        if (!verdict.allowed || verdict.ingress.isolated_by.size() != 1) mistake = verdict.ingress.decided_by;
        if (!traced || !traced->allowed) mistake = "trace";
        ++answers;
      } while (!over);
    });
  }
  for (int i = 0; i < 2'000 || answers < 2'000; ++i) static_cast<void>(evaluator.Apply(i % 2 == 0 ? odd : even, {}, {}));
  over = true;
  for (std::thread& reader : readers) reader.join();
  for (const std::string& mistake : wrong) EXPECT_EQ(mistake, "");
}

}  // namespace
}  // namespace vsocket::policy
