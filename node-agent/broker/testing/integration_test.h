// Fixtures of the integration tests: in a network namespace of their own, with or without a node that serves in this process.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/broker/testing/test_node.h"

namespace vsocket::broker::testing {

class NamespaceTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(EnterTestNamespace()); }
  [[nodiscard]] std::string Sock(const char* uid) const { return SocketOf(dir_.Path(), uid); }

  TempDir dir_;
};

// A node whose policy is a switch ("policy default/closed" of the destination) and whose events are kept. Thread safety: what the node's
// thread calls takes mutex_.
class ServedNodeTest : public NamespaceTest {
 protected:
  void SetUp() override;  // fills in options_; a test may change them before it starts the node

  // Each reports a failure of its own; use with ASSERT_NO_FATAL_FAILURE where the test cannot go on without.
  void Start();          // the node, with both pods
  void StartAndGreet();  // and a shim of each pod: a_ is the program "client", b_ "server"

  [[nodiscard]] model::Flow Asked();  // the last flow that the policy was asked about
  [[nodiscard]] std::optional<Event> Said(const std::string& what);
  // Whether an event `what` gave a reason that contains `why`.
  [[nodiscard]] bool Logged(const std::string& what, const std::string& why);

  NodeOptions options_;
  std::atomic<bool> allowed_{true};
  std::mutex mutex_;
  model::Flow asked_;
  std::vector<Event> events_;
  std::unique_ptr<Node> node_;  // after all that its thread uses until it has gone
  std::unique_ptr<FakeShim> a_, b_;
};

// The value of a field, "" when there is none.
std::string FieldOf(const Event& event, const std::string& name);

}  // namespace vsocket::broker::testing
