#include "node-agent/kube/dir_source.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace vsocket::kube {
namespace {

namespace fs = std::filesystem;
using model::ClusterState;
using model::SourceProblem;

std::string PodYaml(const std::string& name, const std::string& label = "x") {
  return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", labels: {app: " + label + "}}\n";
}
std::string PolicyYaml(const std::string& name, const std::string& rest = "") {
  return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " + name +
         "}\nspec:\n  podSelector: {matchLabels: {app: x}}\n" + rest;
}

class DirSourceTest : public ::testing::Test {
 protected:
  DirSourceTest() {
    char name[] = "/tmp/vsocket-dir-source-XXXXXX";
    root_ = ::mkdtemp(name);
    dir_ = root_ / "cluster";
    fs::create_directory(dir_);
  }
  ~DirSourceTest() override {
    source_.reset();
    fs::remove_all(root_);
  }

  void Start() {
    auto started = DirSource::Start(
        dir_.string(),
        [this](std::shared_ptr<const ClusterState> state, std::vector<SourceProblem> problems) {
          const std::lock_guard<std::mutex> lock(mutex_);
          EXPECT_TRUE(state != nullptr || state_ == nullptr) << "a state that was known is not forgotten";
          EXPECT_TRUE(state == nullptr || state->revision > (state_ == nullptr ? 0 : state_->revision));
          called_ = true;
          state_ = std::move(state);
          problems_ = std::move(problems);
          changed_.notify_all();
        },
        [this](const std::string& line) {
          const std::lock_guard<std::mutex> lock(mutex_);
          info_.push_back(line);
        });
    ASSERT_TRUE(started.Ok()) << started.Error();
    source_ = std::move(started.Value());
    const std::lock_guard<std::mutex> lock(mutex_);
    ASSERT_TRUE(called_) << "Start calls back before it returns";
  }

  // A rename, as careful writers do.
  void Put(const std::string& name, const std::string& text, const fs::path& dir) {
    const fs::path temporary = dir / ("." + name + ".tmp");
    std::ofstream(temporary) << text;
    fs::rename(temporary, dir / name);
  }
  void Put(const std::string& name, const std::string& text) { Put(name, text, dir_); }
  void Write(const std::string& name, const std::string& text) { std::ofstream(dir_ / name) << text; }

  template <typename Condition>
  ::testing::AssertionResult Comes(Condition condition) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (changed_.wait_for(lock, std::chrono::seconds(10), condition)) return ::testing::AssertionSuccess();
    auto failure = ::testing::AssertionFailure();
    if (state_ == nullptr) failure << "no state; ";
    if (state_ != nullptr) failure << "pods: " << state_->pods.size() << ", policies: " << state_->policies.size() << "; ";
    for (const auto& problem : problems_) failure << problem.where << ": " << problem.what << "; ";
    return failure;
  }
  ::testing::AssertionResult PodsBecome(std::vector<std::string> names) {
    return Comes([this, names = std::move(names)] {
      if (state_ == nullptr) return false;
      std::vector<std::string> have;
      for (const auto& pod : state_->pods) have.push_back(pod->name);
      return have == names;
    });
  }
  bool HasProblem(const std::string& where, const std::string& what) {
    return std::any_of(problems_.begin(), problems_.end(), [&](const SourceProblem& problem) {
      return problem.where == (dir_ / where).string() && problem.what.find(what) != std::string::npos;
    });
  }

  fs::path root_, dir_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool called_ = false;
  std::shared_ptr<const ClusterState> state_;
  std::vector<SourceProblem> problems_;
  std::vector<std::string> info_;
  std::unique_ptr<DirSource> source_;
};

TEST_F(DirSourceTest, ReadsWhatIsThereAndFollowsChanges) {
  Write("b.yaml", PodYaml("one"));
  Write("a.json", R"({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "zero"}})");
  Write("ignored.txt", "not: [yaml");
  Write(".hidden.yaml", "not: [yaml");
  Start();
  EXPECT_TRUE(PodsBecome({"zero", "one"}));
  EXPECT_TRUE(problems_.empty());
  Write("c.yml", PodYaml("two"));
  EXPECT_TRUE(PodsBecome({"zero", "one", "two"}));
  Write("c.yml", PodYaml("three"));  // in place
  EXPECT_TRUE(PodsBecome({"zero", "one", "three"}));
  Put("c.yml", PodYaml("four"));  // by rename
  EXPECT_TRUE(PodsBecome({"zero", "one", "four"}));
  fs::remove(dir_ / "b.yaml");
  EXPECT_TRUE(PodsBecome({"zero", "four"}));
  fs::rename(dir_ / "c.yml", root_ / "away");
  EXPECT_TRUE(PodsBecome({"zero"}));
  fs::create_hard_link(root_ / "away", dir_ / "linked.yaml");
  EXPECT_TRUE(PodsBecome({"zero", "four"}));
  fs::create_symlink(root_ / "away", dir_ / "soft.yaml");
  EXPECT_TRUE(Comes([this] { return HasProblem("soft.yaml:1", "already defined"); }));
}

TEST_F(DirSourceTest, AChangeIsInForceWithin200Ms) {
  Start();
  for (int i = 0; i < 20; ++i) {
    const std::string name = "p" + std::to_string(i);
    const auto begin = std::chrono::steady_clock::now();
    Put("p.yaml", PodYaml(name));
    ASSERT_TRUE(PodsBecome({name}));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(200));
  }
}

TEST_F(DirSourceTest, AHalfWrittenFileIsNotRead) {
  Write("p.yaml", PodYaml("old"));
  Start();
  std::ofstream half(dir_ / "p.yaml");
  half << "apiVersion: v1\nkind: Pod\nmetadata: {name: ha" << std::flush;
  std::ofstream other(dir_ / "q.yaml");
  other << "apiVersion: v1\nkind: Pod\n" << std::flush;
  Put("z.yaml", PodYaml("later"));  // its event is handled while the others are open
  EXPECT_TRUE(PodsBecome({"old", "later"}));
  EXPECT_TRUE(problems_.empty());
  half << "lf}\n";
  half.close();
  EXPECT_TRUE(PodsBecome({"half", "later"}));
  other << "metadata: {name: other}\n";
  other.close();
  EXPECT_TRUE(PodsBecome({"half", "other", "later"}));
}

TEST_F(DirSourceTest, ABadFileKeepsItsLastGoodContent) {
  Write("a.yaml", PolicyYaml("guard"));
  Write("b.yaml", PodYaml("web"));
  Start();
  EXPECT_TRUE(problems_.empty());
  Put("a.yaml", PolicyYaml("guard", "  ingres: []\n"));
  EXPECT_TRUE(Comes([this] { return HasProblem("a.yaml:6", "spec.ingres: unknown field"); }));
  EXPECT_EQ(state_->policies.size(), 1u);
  EXPECT_FALSE(state_->policies[0]->isolates_egress);  // the good one, not its stand-in
  Put("b.yaml", "kind: [\n");
  EXPECT_TRUE(Comes([this] { return HasProblem("b.yaml:2", "") || HasProblem("b.yaml:1", ""); }));
  EXPECT_TRUE(PodsBecome({"web"}));
  Put("a.yaml", PolicyYaml("guard", "  ingress: [{}]\n"));
  Put("b.yaml", PodYaml("web"));
  EXPECT_TRUE(Comes([this] { return problems_.empty() && state_->policies[0]->ingress.size() == 1; }));
}

TEST_F(DirSourceTest, APolicyThatWasNeverValidClosesRatherThanOpens) {
  Write("a.yaml", PolicyYaml("guard", "  ingres: []\n") + "---\n" + PodYaml("web"));
  Start();
  EXPECT_TRUE(HasProblem("a.yaml:6", "unknown field"));
  EXPECT_TRUE(HasProblem("a.yaml:1", "was never valid"));
  ASSERT_EQ(state_->policies.size(), 1u);
  EXPECT_TRUE(state_->policies[0]->isolates_ingress && state_->policies[0]->isolates_egress);
  EXPECT_TRUE(state_->policies[0]->ingress.empty());
  EXPECT_EQ(state_->pods.size(), 1u);
  Put("a.yaml", PolicyYaml("guard", "  ingress: []\n"));
  EXPECT_TRUE(Comes([this] { return problems_.empty() && !state_->policies[0]->isolates_egress; }));
}

TEST_F(DirSourceTest, TheFirstOfTwoStaysInForce) {
  Write("a.yaml", PodYaml("web", "first"));
  Write("b.yaml", PodYaml("other") + "---\n" + PodYaml("web", "second"));
  Start();
  EXPECT_TRUE(HasProblem("b.yaml:5", "Pod default/web is already defined in " + (dir_ / "a.yaml").string() + ":1"));
  EXPECT_EQ(state_->pods[0]->labels.at("app"), "first");
  fs::remove(dir_ / "a.yaml");
  EXPECT_TRUE(Comes([this] { return problems_.empty() && state_->pods.size() == 2 && state_->pods[1]->labels.at("app") == "second"; }));
}

TEST_F(DirSourceTest, TheDirectoryMayGoAndComeBack) {
  Write("a.yaml", PodYaml("web"));
  Start();
  fs::rename(dir_, root_ / "away");
  EXPECT_TRUE(Comes([this] { return !problems_.empty() && problems_[0].where == dir_.string(); }));
  EXPECT_EQ(state_->pods.size(), 1u);  // the last state stays
  fs::create_directory(root_ / "next");
  Put("b.yaml", PodYaml("next"), root_ / "next");
  fs::rename(root_ / "next", dir_);
  EXPECT_TRUE(PodsBecome({"next"}));
  EXPECT_TRUE(problems_.empty());
  Put("c.yaml", PodYaml("more"));
  EXPECT_TRUE(PodsBecome({"next", "more"}));
  fs::remove_all(dir_);
  EXPECT_TRUE(Comes([this] { return !problems_.empty() && problems_[0].where == dir_.string(); }));
  fs::create_directory(dir_);
  Put("d.yaml", PodYaml("again"));
  EXPECT_TRUE(PodsBecome({"again"}));
}

TEST_F(DirSourceTest, TheDirectoryAndThoseAboveItMayComeLater) {
  dir_ = root_ / "x" / "y" / "cluster";
  Start();
  EXPECT_EQ(problems_.size(), 1u);
  EXPECT_EQ(state_, nullptr) << "what is not there to be read allows nothing";
  fs::create_directories(dir_);
  Put("a.yaml", PodYaml("web"));
  EXPECT_TRUE(PodsBecome({"web"}));
  fs::rename(root_ / "x", root_ / "z");
  fs::create_directories(dir_);
  Put("a.yaml", PodYaml("web2"));
  EXPECT_TRUE(PodsBecome({"web2"}));
}

TEST_F(DirSourceTest, ConfigMapSwap) {
  // As the kubelet lays a ConfigMap out: a.yaml -> ..data/a.yaml, ..data -> a directory that is swapped whole.
  const auto lay = [&](const std::string& version, const std::string& pod) {
    fs::create_directory(dir_ / version);
    std::ofstream(dir_ / version / "a.yaml") << PodYaml(pod);
    fs::create_directory_symlink(version, dir_ / "..data_tmp");
    fs::rename(dir_ / "..data_tmp", dir_ / "..data");
  };
  lay("..v1", "one");
  fs::create_symlink("..data/a.yaml", dir_ / "a.yaml");
  Start();
  EXPECT_TRUE(PodsBecome({"one"}));
  lay("..v2", "two");
  EXPECT_TRUE(PodsBecome({"two"}));
  lay("..v3", "three");
  EXPECT_TRUE(PodsBecome({"three"}));
}

TEST_F(DirSourceTest, OddFilesAreProblemsNotHangs) {
  ASSERT_EQ(::mkfifo((dir_ / "fifo.yaml").c_str(), 0600), 0);
  fs::create_directory(dir_ / "folder.yaml");
  fs::create_symlink(root_ / "nowhere", dir_ / "dangling.yaml");
  const int fd = ::open((dir_ / "huge.yaml").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  ASSERT_EQ(::ftruncate(fd, (off_t{16} << 20) + 1), 0);
  ::close(fd);
  Start();
  EXPECT_TRUE(HasProblem("fifo.yaml", "is not a regular file"));
  EXPECT_TRUE(HasProblem("folder.yaml", "is not a regular file"));
  EXPECT_TRUE(HasProblem("huge.yaml", "larger than"));
  EXPECT_TRUE(HasProblem("dangling.yaml", "No such file"));
  EXPECT_EQ(problems_.size(), 4u);
}

TEST_F(DirSourceTest, WhatCannotBeUnderstoodAtFirstIsNoStateAtAll) {
  for (const std::string text :
       {"kind: [\n", "a text\n", "metadata: {name: x}\n", "kind: 7\n", "kind: NetworkPolicyList\napiVersion: v1\n"}) {
    SCOPED_TRACE(text);
    Write("a.yaml", PodYaml("web"));
    Write("b.yaml", text);
    Start();
    EXPECT_EQ(state_, nullptr);
    EXPECT_EQ(problems_.size(), 1u);
    Put("b.yaml", PolicyYaml("guard"));
    EXPECT_TRUE(PodsBecome({"web"}));
    EXPECT_TRUE(problems_.empty());
    // From here on it changes nothing.
    Put("b.yaml", text);
    Put("c.yaml", text);
    EXPECT_TRUE(Comes([this] { return problems_.size() == 2; }));
    ASSERT_NE(state_, nullptr);
    EXPECT_EQ(state_->policies.size(), 1u);
    source_.reset();
    state_.reset();
    fs::remove(dir_ / "c.yaml");
  }
}

TEST_F(DirSourceTest, AFileThatCannotBeReadAtFirstIsNoStateAndLaterChangesNothing) {
  // Root reads everything whatever its mode; a symlink that leads nowhere it does not.
  Write("a.yaml", PodYaml("web"));
  std::ofstream(root_ / "policy") << PolicyYaml("guard");
  fs::create_symlink(root_ / "away", dir_ / "b.yaml");
  Start();
  EXPECT_EQ(state_, nullptr);
  fs::remove(dir_ / "b.yaml");
  EXPECT_TRUE(PodsBecome({"web"}));
  fs::create_symlink(root_ / "policy", dir_ / "b.yaml");
  EXPECT_TRUE(Comes([this] { return state_->policies.size() == 1; }));
  fs::rename(root_ / "policy", root_ / "away");
  Put("c.yaml", PodYaml("more"));
  EXPECT_TRUE(PodsBecome({"web", "more"}));
  // A change of the link itself is seen; where it leads is not watched.
  fs::create_symlink(root_ / "nowhere", dir_ / ".b");
  fs::rename(dir_ / ".b", dir_ / "b.yaml");
  EXPECT_TRUE(Comes([this] { return HasProblem("b.yaml", "No such file"); }));
  EXPECT_EQ(state_->policies.size(), 1u);
  fs::remove(dir_ / "b.yaml");
  EXPECT_TRUE(Comes([this] { return state_->policies.empty(); }));
}

TEST_F(DirSourceTest, APolicyThatSelectsNothingIsToldOnce) {
  Write("a.yaml", PolicyYaml("guard"));
  Start();
  EXPECT_TRUE(problems_.empty());
  EXPECT_EQ(info_, std::vector<std::string>{"NetworkPolicy default/guard selects no pod at present"});
  Put("b.yaml", PodYaml("web", "other"));
  EXPECT_TRUE(PodsBecome({"web"}));
  EXPECT_EQ(info_.size(), 1u);
}

TEST_F(DirSourceTest, ManyErrorsAreCut) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "---\nkind: 1\n";
  Write("a.yaml", text);
  Start();
  EXPECT_EQ(problems_.size(), 51u);
  EXPECT_TRUE(HasProblem("a.yaml", "and 950 more errors"));
}

}  // namespace
}  // namespace vsocket::kube
