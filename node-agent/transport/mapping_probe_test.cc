// The kernel's answers about real memory that real processes map.
#include "node-agent/model/mapping_probe.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <utility>

#include "node-agent/transport/region.h"

namespace vsocket::transport {
namespace {

using model::SealOutcome;

// A process that maps the memory (or does not) and waits to be ended.
class Child {
 public:
  Child(int memfd, bool maps, int protection = PROT_READ | PROT_WRITE) {
    int ready[2];
    if (::pipe(ready) != 0) return;
    pid_ = ::fork();
    if (pid_ == 0) {
      const bool good = !maps || ::mmap(nullptr, 4096, protection, MAP_SHARED, memfd, 0) != MAP_FAILED;
      [[maybe_unused]] const auto told = ::write(ready[1], good ? "y" : "n", 1);
      for (;;) ::pause();
    }
    ::close(ready[1]);
    char answer = 0;
    ready_ = ::read(ready[0], &answer, 1) == 1 && answer == 'y';
    ::close(ready[0]);
  }
  ~Child() { End(); }
  [[nodiscard]] bool Ready() const { return ready_; }
  [[nodiscard]] pid_t Pid() const { return pid_; }
  // Waits for an end that another has brought about; the signal, or 0.
  int Wait() {
    int status = 0;
    if (pid_ <= 0 || ::waitpid(std::exchange(pid_, -1), &status, 0) < 0) return 0;
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }
  void End() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    Wait();
  }

 private:
  pid_t pid_ = -1;
  bool ready_ = false;
};

class MappingProbeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto region = Region::Create(1, 2);
    ASSERT_TRUE(region) << region.Error().what;
    region_ = std::move(region.Value());
  }
  [[nodiscard]] int Fd() const { return region_->Fd(); }
  // After a fork: the child has a copy of this process' mapping as long as it lives, so it goes first.
  void Unmap() { region_->Unmap(); }

  std::unique_ptr<Region> region_;
  const std::shared_ptr<model::MappingProbe> probe_ = model::MakeMappingProbe();
};

TEST_F(MappingProbeTest, TheAgentsOwnMappingIsInTheWay) {
  EXPECT_EQ(probe_->Seal(Fd()), SealOutcome::kInUse);
  EXPECT_TRUE(probe_->Holders(Fd()).empty()) << "this process is left out";
  Unmap();
  EXPECT_EQ(probe_->Seal(Fd()), SealOutcome::kSealed);
}

TEST_F(MappingProbeTest, SealedMemoryCannotBeMappedAgain) {
  Unmap();
  ASSERT_EQ(probe_->Seal(Fd()), SealOutcome::kSealed);
  EXPECT_EQ(probe_->Seal(Fd()), SealOutcome::kSealed) << "again";
  EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, Fd(), 0), MAP_FAILED);
  EXPECT_EQ(::pwrite(Fd(), "x", 1, 0), -1);
}

TEST_F(MappingProbeTest, AnOpenDescriptorAloneIsNoHold) {
  Unmap();
  const Child child(Fd(), false);
  ASSERT_TRUE(child.Ready());
  EXPECT_EQ(probe_->Seal(Fd()), SealOutcome::kSealed);
}

TEST_F(MappingProbeTest, FindsTheHolderAndKillsItAlone) {
  Unmap();
  Child holder(Fd(), true);
  Child bystander(Fd(), false);
  ASSERT_TRUE(holder.Ready() && bystander.Ready());
  EXPECT_EQ(probe_->Seal(Fd()), SealOutcome::kInUse);
  const auto holders = probe_->Holders(Fd());
  ASSERT_EQ(holders.size(), 1U);
  EXPECT_EQ(holders[0].pid, holder.Pid());
  EXPECT_FALSE(holders[0].program.empty());

  EXPECT_FALSE(probe_->Kill({bystander.Pid(), "x"}, Fd())) << "it maps nothing";
  EXPECT_FALSE(probe_->Kill({::getpid(), "x"}, Fd()));
  EXPECT_TRUE(probe_->Kill(holders[0], Fd()));
  EXPECT_EQ(holder.Wait(), SIGKILL);
  EXPECT_FALSE(probe_->Kill(holders[0], Fd())) << "it has gone";
  EXPECT_EQ(probe_->Seal(Fd()), SealOutcome::kSealed);
  EXPECT_EQ(::kill(bystander.Pid(), 0), 0);
}

// It could be made writable at any time, mprotect(2).
TEST_F(MappingProbeTest, AReadOnlyMappingOfAWritableDescriptorHolds) {
  Unmap();
  const Child child(Fd(), true, PROT_READ);
  ASSERT_TRUE(child.Ready());
  EXPECT_EQ(probe_->Seal(Fd()), SealOutcome::kInUse);
  EXPECT_EQ(probe_->Holders(Fd()).size(), 1U);
}

TEST_F(MappingProbeTest, OtherMemoryIsNotTakenForIt) {
  Unmap();
  auto other = Region::Create(2, 2);
  ASSERT_TRUE(other);
  const Child child(other.Value()->Fd(), true);
  ASSERT_TRUE(child.Ready());
  EXPECT_TRUE(probe_->Holders(Fd()).empty());
  EXPECT_FALSE(probe_->Kill({child.Pid(), "x"}, Fd()));
  EXPECT_EQ(probe_->Seal(Fd()), SealOutcome::kSealed);
}

TEST_F(MappingProbeTest, SealingTheSealsIsNoWayOut) {
  Unmap();
  const Child child(Fd(), true);
  ASSERT_TRUE(child.Ready());
  ASSERT_EQ(::fcntl(Fd(), F_ADD_SEALS, F_SEAL_SEAL), 0);
  EXPECT_EQ(probe_->Seal(Fd()), SealOutcome::kBlocked);
  EXPECT_EQ(probe_->Holders(Fd()).size(), 1U);
}

TEST_F(MappingProbeTest, AnUnmappedRegionDoesNothing) {
  region_->PrepareSlot(3, 7);
  Unmap();
  Unmap();
  EXPECT_EQ(region_->Epoch(3), 0U);
  EXPECT_EQ(region_->TakeArmedWakeFds(3, 0), 0U);
  EXPECT_EQ(region_->Traffic(3).sent[0], 0U);
  region_->PrepareSlot(3, 8);
  region_->RevokeSlot(3, 8);
  region_->RevokeAll();
  region_->RenewLease(5);
  region_->ClearSlot(3);
  EXPECT_EQ(region_->Id(), 1U);
}

}  // namespace
}  // namespace vsocket::transport
