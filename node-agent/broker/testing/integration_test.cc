#include "node-agent/broker/testing/integration_test.h"

#include <utility>

namespace vsocket::broker::testing {

void ServedNodeTest::SetUp() {
  NamespaceTest::SetUp();
  options_ = OptionsIn(dir_.Path());
  options_.broker.verdict = [this](const model::Flow& flow) {
    model::Verdict verdict;
    {
      const std::lock_guard lock(mutex_);
      asked_ = flow;
    }
    verdict.egress.allowed = true;
    verdict.ingress.pod = "default/b";
    verdict.ingress.decided_by = "policy default/closed";
    verdict.allowed = verdict.ingress.allowed = allowed_.load();
    return verdict;
  };
  options_.broker.events = [this](const Event& event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(event);
  };
}

void ServedNodeTest::Start() {
  auto node = Node::Open(options_, {});
  ASSERT_TRUE(node) << node.Error();
  node_ = std::move(node.Value());
  for (const char* uid : {"a", "b"}) {
    const auto added = node_->AddPod(PodOf(uid));
    ASSERT_TRUE(added) << added.Error().message;
  }
  node_->Serve();
}

void ServedNodeTest::StartAndGreet() {
  ASSERT_NO_FATAL_FAILURE(Start());
  a_ = std::make_unique<FakeShim>(Sock("a"));
  b_ = std::make_unique<FakeShim>(Sock("b"));
  ASSERT_TRUE(a_->Hello("client") && b_->Hello("server"));
}

model::Flow ServedNodeTest::Asked() {
  const std::lock_guard lock(mutex_);
  return asked_;
}

std::optional<Event> ServedNodeTest::Said(const std::string& what) {
  const std::lock_guard lock(mutex_);
  for (const Event& event : events_) {
    if (event.what == what) return event;
  }
  return std::nullopt;
}

bool ServedNodeTest::Logged(const std::string& what, const std::string& why) {
  const std::lock_guard lock(mutex_);
  for (const Event& event : events_) {
    if (event.what == what && FieldOf(event, "why").find(why) != std::string::npos) return true;
  }
  return false;
}

std::string FieldOf(const Event& event, const std::string& name) {
  for (const auto& [key, value] : event.fields) {
    if (key == name) return value;
  }
  return {};
}

}  // namespace vsocket::broker::testing
