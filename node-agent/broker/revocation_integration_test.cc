// Revoked memory and the processes that keep it: real memfds, real mappings, a real policy cut. Needs root (a network namespace,
// SOCK_DESTROY, other processes' /proc).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <utility>

#include "node-agent/broker/testing/integration_test.h"

namespace vsocket::broker {
namespace {

using testing::Eventually;
using testing::FieldOf;
using testing::MappedRegion;

// A process that maps a region and does not let go: in league with its peer, as far as anybody can tell. Forked before there is a node,
// whose own mappings and sockets it would inherit.
class Keeper {
 public:
  Keeper() {
    int orders[2];
    int answers[2];
    if (::pipe2(orders, O_CLOEXEC) != 0 || ::pipe2(answers, O_CLOEXEC) != 0) return;
    orders_ = UniqueFd(orders[1]);
    answers_ = UniqueFd(answers[0]);
    const UniqueFd read_end(orders[0]);
    const UniqueFd write_end(answers[1]);
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ != 0) return;
    orders_.Reset();
    int number = -1;
    if (::read(read_end.Get(), &number, sizeof number) != sizeof number) ::_exit(1);
    const UniqueFd memfd(::open(("/proc/" + std::to_string(parent) + "/fd/" + std::to_string(number)).c_str(), O_RDWR | O_CLOEXEC));
    const MappedRegion map(memfd.Get());
    [[maybe_unused]] const auto told = ::write(write_end.Get(), map.Valid() ? "y" : "n", 1);
    for (;;) ::pause();
  }
  [[nodiscard]] bool Map(const UniqueFd& memfd) const {
    const int number = memfd.Get();
    char answer = 0;
    return ::write(orders_.Get(), &number, sizeof number) == sizeof number && ::read(answers_.Get(), &answer, 1) == 1 && answer == 'y';
  }
  ~Keeper() { End(); }
  [[nodiscard]] pid_t Pid() const { return pid_; }
  [[nodiscard]] bool KilledByAnother() {
    int status = 0;
    if (pid_ <= 0 || ::waitpid(pid_, &status, WNOHANG) != pid_) return false;
    pid_ = -1;
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  }
  void End() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(std::exchange(pid_, -1), nullptr, 0);
  }

 private:
  pid_t pid_ = -1;
  UniqueFd orders_, answers_;
};

class RevocationTest : public testing::ServedNodeTest {
 protected:
  void Start(bool strict) {
    options_.broker.revocation = {150'000'000, strict};
    ASSERT_NO_FATAL_FAILURE(StartAndGreet());
  }

  // A granted connection; gives the descriptor of its memory.
  UniqueFd Connect() { return GrantBetween(*a_, *b_, &channel_) ? std::move(channel_.client.memory) : UniqueFd(); }

  testing::Channel channel_;
};

TEST_F(RevocationTest, ColludersAreReportedAndSeenToLetGo) {
  Keeper keeper;
  Start(false);
  const UniqueFd memory = Connect();
  ASSERT_TRUE(memory.Valid() && keeper.Map(memory));
  allowed_ = false;
  EXPECT_EQ(node_->ReevaluateNow(), 1U);
  ASSERT_TRUE(Eventually([&] { return node_->Stats().revoked_memory.unheeded == 1; }));
  ASSERT_TRUE(Eventually([&] { return Said("revoked memory still mapped").has_value(); }));
  const Event event = *Said("revoked memory still mapped");
  EXPECT_EQ(FieldOf(event, "pod"), "a");
  EXPECT_EQ(FieldOf(event, "peer_pod"), "b");
  EXPECT_NE(FieldOf(event, "why").find("policy default/closed"), std::string::npos) << FieldOf(event, "why");
  EXPECT_EQ(FieldOf(event, "holders").rfind(std::to_string(keeper.Pid()) + " (", 0), 0U) << FieldOf(event, "holders");
  EXPECT_EQ(::kill(keeper.Pid(), 0), 0) << "not strict";
  EXPECT_EQ(node_->Stats().revoked_memory.watched, 1U);
  keeper.End();
  EXPECT_TRUE(Eventually([&] { return node_->Stats().revoked_memory.watched == 0 && Said("revoked memory let go"); }));
  EXPECT_FALSE(MappedRegion(memory.Get()).Valid()) << "whoever kept the descriptor has nothing of it";
}

TEST_F(RevocationTest, HonestEndsAreNotMentioned) {
  Keeper keeper;
  Start(true);
  const UniqueFd memory = Connect();
  ASSERT_TRUE(memory.Valid() && keeper.Map(memory));
  allowed_ = false;
  EXPECT_EQ(node_->ReevaluateNow(), 1U);
  EXPECT_EQ(node_->Stats().revoked_memory.watched, 1U);
  keeper.End();  // in time; the end of a process is the surest way to unmap
  ASSERT_TRUE(Eventually([&] { return node_->Stats().revoked_memory.watched == 0; }));
  EXPECT_EQ(node_->Stats().revoked_memory.unheeded, 0U);
  EXPECT_EQ(node_->Stats().revoked_memory.killed, 0U);
  EXPECT_FALSE(Said("revoked memory still mapped"));
}

TEST_F(RevocationTest, StrictEndsTheHoldersAndNobodyElse) {
  Keeper first;
  Keeper second;
  Keeper bystander;
  Start(true);
  const UniqueFd memory = Connect();
  const UniqueFd other(::memfd_create("vsocket-region", MFD_CLOEXEC));  // of the same name
  ASSERT_TRUE(memory.Valid() && first.Map(memory) && second.Map(memory) && bystander.Map(other));
  allowed_ = false;
  EXPECT_EQ(node_->ReevaluateNow(), 1U);
  EXPECT_TRUE(Eventually([&] { return first.KilledByAnother(); }));
  EXPECT_TRUE(Eventually([&] { return second.KilledByAnother(); }));
  EXPECT_TRUE(Eventually([&] { return node_->Stats().revoked_memory.watched == 0; }));
  EXPECT_EQ(node_->Stats().revoked_memory.killed, 2U);
  EXPECT_EQ(node_->Stats().revoked_memory.unheeded, 1U);
  EXPECT_EQ(::kill(bystander.Pid(), 0), 0);
  EXPECT_FALSE(bystander.KilledByAnother());
}

// The way around the check: let go of the channel in words, go from the agent, keep the memory, and wait for the policy.
TEST_F(RevocationTest, MemoryKeptAfterALeaveIsRevokedByALaterPolicy) {
  Keeper keeper;
  Start(true);
  const UniqueFd memory = Connect();
  ASSERT_TRUE(memory.Valid() && keeper.Map(memory));
  ASSERT_TRUE(a_->Release(channel_.client.grant) && a_->Quiet() && b_->Release(channel_.server.grant) && b_->Quiet());
  a_->Close();
  b_->Close();
  ASSERT_TRUE(Eventually([&] { return node_->Stats().regions == 0; }));
  EXPECT_EQ(node_->Stats().revoked_memory.watched, 0U) << "they may talk";
  allowed_ = false;
  node_->ReevaluateNow();
  EXPECT_TRUE(Eventually([&] { return keeper.KilledByAnother(); }));
  EXPECT_TRUE(Said("revoked memory still mapped"));
}

TEST_F(RevocationTest, RemovedPodsMemoryIsNoCrime) {
  Keeper keeper;
  Start(true);
  const UniqueFd memory = Connect();
  ASSERT_TRUE(memory.Valid() && keeper.Map(memory));
  ASSERT_TRUE(node_->RemovePod("container-a", "eth0"));
  allowed_ = false;
  node_->ReevaluateNow();
  EXPECT_EQ(node_->Stats().revoked_memory.watched, 0U);
  EXPECT_EQ(::kill(keeper.Pid(), 0), 0);
}

}  // namespace
}  // namespace vsocket::broker
