// Each command against an agent and a spool that answer as the test says.
#include "cni-plugin/plugin.h"

#include <gtest/gtest.h>

#include <deque>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace vsocket::cni {
namespace {

using Kind = Answer::Kind;

// Answers in turn; the last answer holds on. Everything that happens is written to one log, so that order can be asserted.
class FakeAgent final : public Agent {
 public:
  explicit FakeAgent(std::vector<std::string>& log) : log_(log) {}
  std::deque<Kind> answers{Kind::kOk};
  std::vector<Pod> pods;

  Answer AddPod(const Pod& pod) override { return pods.push_back(pod), Next("agent add " + pod.attachment.container_id); }
  Answer RemovePod(const Attachment& attachment) override { return Next("agent remove " + attachment.container_id); }
  Answer CheckPod(const Pod& pod) override { return pods.push_back(pod), Next("agent check " + pod.attachment.container_id); }
  Answer CollectPods(const std::vector<Attachment>& keep) override { return Next("agent collect " + std::to_string(keep.size())); }
  Answer Status() override { return Next("agent status"); }

 private:
  Answer Next(const std::string& what) {
    log_.push_back(what);
    const Kind kind = answers.front();
    if (answers.size() > 1) answers.pop_front();
    return {kind, kind == Kind::kOk ? "" : "because"};
  }
  std::vector<std::string>& log_;
};

class FakeSpool final : public Spool {
 public:
  explicit FakeSpool(std::vector<std::string>& log) : log_(log) {}
  bool full = false;

  Result<Written, std::string> Add(const Pod& pod) override { return Put("spool add " + pod.attachment.container_id); }
  Result<Written, std::string> Remove(const Attachment& attachment) override { return Put("spool remove " + attachment.container_id); }
  void Forget(const Attachment& attachment) override { log_.push_back("forget " + attachment.container_id); }

 private:
  Result<Written, std::string> Put(const std::string& what) {
    if (full) return Failure<std::string>("No space left on device");
    log_.push_back(what);
    return Written{};
  }
  std::vector<std::string>& log_;
};

class PluginTest : public testing::Test {
 protected:
  using Log = std::vector<std::string>;

  Outcome RunCommand(Command command, bool required = false) {
    log_.clear();
    Invocation call;
    call.command = command;
    call.cni_version = "1.0.0";
    call.settings.required = required;
    call.attachment = {"c1", "eth0"};
    call.netns = "/run/netns/web";
    call.pod_uid = "u";
    call.pod_ns = "default";
    call.pod_name = "web";
    call.ips = {"10.1.0.2"};
    call.previous_result = "{ \"previous\": true }";
    call.keep = {{"c2", "eth0"}};
    return cni::Run(call, {agent_, spool_, [this](const std::string&) -> Result<NetnsFacts, std::string> {
                             if (netns_gone_) return Failure<std::string>("/run/netns/web: No such file or directory");
                             return NetnsFacts{7, 8};
                           }});
  }
  static int CodeIn(const Outcome& outcome) {
    EXPECT_NE(outcome.exit_status, 0);
    const auto error = nlohmann::json::parse(outcome.out);
    EXPECT_EQ(error["cniVersion"], "1.0.0");
    return error["code"];
  }

  Log log_;
  FakeAgent agent_{log_};
  FakeSpool spool_{log_};
  bool netns_gone_ = false;
};

TEST_F(PluginTest, AddTellsTheAgentAndPassesTheResultOn) {
  const Outcome outcome = RunCommand(Command::kAdd);
  EXPECT_EQ(outcome.exit_status, 0);
  EXPECT_EQ(outcome.out, "{ \"previous\": true }");
  EXPECT_EQ(outcome.log, "");
  EXPECT_EQ(log_, Log{"agent add c1"});
  ASSERT_EQ(agent_.pods.size(), 1U);
  EXPECT_EQ(agent_.pods[0].netns_facts.cookie, 7U);
  EXPECT_EQ(agent_.pods[0].netns_facts.inode, 8U);
  EXPECT_EQ(agent_.pods[0].netns, "/run/netns/web");
}

TEST_F(PluginTest, WithoutAnAgentAPodStartsAndTheAgentIsToldLater) {
  for (const Kind kind : {Kind::kUnreachable, Kind::kTimedOut, Kind::kOtherVersion}) {
    agent_.answers = {kind};
    const Outcome outcome = RunCommand(Command::kAdd);
    EXPECT_EQ(outcome.exit_status, 0);
    EXPECT_EQ(outcome.out, "{ \"previous\": true }");
    EXPECT_EQ(outcome.log, "vsocket-cni: because; the pod runs on plain TCP\n");
    // Only where the agent may have come up meanwhile is it asked again.
    const Log once{"agent add c1", "spool add c1"}, twice{"agent add c1", "spool add c1", "agent add c1"};
    EXPECT_EQ(log_, kind == Kind::kUnreachable ? twice : once);
  }
}

TEST_F(PluginTest, AnAgentThatComesUpMeanwhileIsToldAndTheRecordTakenBack) {
  agent_.answers = {Kind::kUnreachable, Kind::kOk};
  EXPECT_EQ(RunCommand(Command::kAdd).log, "");
  EXPECT_EQ(log_, (Log{"agent add c1", "spool add c1", "agent add c1", "forget c1"}));
}

TEST_F(PluginTest, APodStartsEvenWhenTheSpoolCannotBeWritten) {
  agent_.answers = {Kind::kUnreachable};
  spool_.full = true;
  const Outcome outcome = RunCommand(Command::kAdd);
  EXPECT_EQ(outcome.exit_status, 0);
  EXPECT_EQ(outcome.out, "{ \"previous\": true }");
  EXPECT_NE(outcome.log.find("No space left on device"), std::string::npos);
}

TEST_F(PluginTest, ARefusalStopsNoPodAndIsNotSpooled) {
  agent_.answers = {Kind::kRefused};
  EXPECT_EQ(RunCommand(Command::kAdd).exit_status, 0);
  EXPECT_EQ(log_, Log{"agent add c1"});
}

TEST_F(PluginTest, RequiredMakesEachFailureAnErrorOfItsOwn) {
  const std::pair<Kind, int> codes[] = {{Kind::kUnreachable, 11}, {Kind::kTimedOut, 11}, {Kind::kOtherVersion, 100}, {Kind::kRefused, 101}};
  for (const auto& [kind, code] : codes) {
    agent_.answers = {kind};
    EXPECT_EQ(CodeIn(RunCommand(Command::kAdd, true)), code);
    EXPECT_EQ(log_, Log{"agent add c1"});
  }
}

TEST_F(PluginTest, ANamespaceThatIsGoneIsCode3ExceptForDel) {
  netns_gone_ = true;
  EXPECT_EQ(CodeIn(RunCommand(Command::kAdd)), 3);
  EXPECT_EQ(CodeIn(RunCommand(Command::kCheck)), 3);
  EXPECT_EQ(RunCommand(Command::kDel).exit_status, 0);
}

TEST_F(PluginTest, DelNeverFailsAndPrintsNothing) {
  for (const Kind kind : {Kind::kOk, Kind::kUnreachable, Kind::kTimedOut, Kind::kOtherVersion, Kind::kNotFound, Kind::kRefused}) {
    for (const bool required : {false, true}) {
      for (const bool full : {false, true}) {
        agent_.answers = {kind};
        spool_.full = full;
        const Outcome outcome = RunCommand(Command::kDel, required);
        EXPECT_EQ(outcome.exit_status, 0);
        EXPECT_EQ(outcome.out, "");
        EXPECT_EQ(outcome.log.empty(), kind == Kind::kOk);
      }
    }
  }
}

TEST_F(PluginTest, DelTakesAnArrivalBackBeforeItAsks) {
  RunCommand(Command::kDel);
  EXPECT_EQ(log_, (Log{"forget c1", "agent remove c1"}));
  agent_.answers = {Kind::kTimedOut};
  RunCommand(Command::kDel);
  EXPECT_EQ(log_, (Log{"forget c1", "agent remove c1", "spool remove c1"}));
}

TEST_F(PluginTest, CheckFailsForWhatTheAgentDoesNotKnow) {
  EXPECT_EQ(RunCommand(Command::kCheck).exit_status, 0);
  EXPECT_EQ(RunCommand(Command::kCheck).out, "");
  agent_.answers = {Kind::kNotFound};
  EXPECT_EQ(CodeIn(RunCommand(Command::kCheck)), 3);
  agent_.answers = {Kind::kDiffers};
  EXPECT_EQ(CodeIn(RunCommand(Command::kCheck)), 102);
  agent_.answers = {Kind::kUnreachable};
  EXPECT_EQ(RunCommand(Command::kCheck).exit_status, 0);
  EXPECT_EQ(CodeIn(RunCommand(Command::kCheck, true)), 11);
}

TEST_F(PluginTest, StatusIsZeroWhilePodsCanStart) {
  const std::pair<Kind, int> codes[] = {{Kind::kUnreachable, 50}, {Kind::kTimedOut, 51}, {Kind::kOtherVersion, 51}, {Kind::kRefused, 51}};
  EXPECT_EQ(RunCommand(Command::kStatus, true).exit_status, 0);
  for (const auto& [kind, code] : codes) {
    agent_.answers = {kind};
    EXPECT_EQ(RunCommand(Command::kStatus).exit_status, 0);
    EXPECT_EQ(CodeIn(RunCommand(Command::kStatus, true)), code);
  }
}

TEST_F(PluginTest, GcPassesTheListOn) {
  EXPECT_EQ(RunCommand(Command::kGc).exit_status, 0);
  EXPECT_EQ(log_, Log{"agent collect 1"});
  agent_.answers = {Kind::kUnreachable};
  EXPECT_EQ(RunCommand(Command::kGc).exit_status, 0);
  EXPECT_EQ(CodeIn(RunCommand(Command::kGc, true)), 11);
  agent_.answers = {Kind::kRefused};
  EXPECT_EQ(CodeIn(RunCommand(Command::kGc)), 101);
}

TEST_F(PluginTest, VersionAsksNobody) {
  EXPECT_NE(RunCommand(Command::kVersion).out.find("supportedVersions"), std::string::npos);
  EXPECT_TRUE(log_.empty());
}

}  // namespace
}  // namespace vsocket::cni
