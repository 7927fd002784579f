// Which process this memory belongs to, and what is owed to the others that share its connections when it forks, execs or ends.
//
// A vfork child runs in its parent's memory with a descriptor table of its own: what it closes or duplicates is not the parent's, so
// nothing it does may change the tables here (vfork(2)). Thread safety: any thread.
#pragma once

namespace vsocket::shim {

// True in a process that borrows this memory: vfork, clone(CLONE_VM). Costs a system call, so ask only when something depends on it.
// A forked child that nobody announced (a raw clone(2)) is noticed here and becomes a process in its own right.
[[nodiscard]] bool InVforkChild();

// Around fork(2): every connection gains a holder, the child.
void BeforeFork();
void AfterFork(long result);  // as fork returned it, in both processes

// No fork while it lives. Who gives up a connection would otherwise count a child that is being made as another holder, though the child
// will not find the descriptor. Waits for one under way, but not for ever: what runs inside fork (pthread_atfork) may wait for us.
class NoFork {
 public:
  NoFork();
  ~NoFork();
  NoFork(const NoFork&) = delete;
  NoFork& operator=(const NoFork&) = delete;

 private:
  bool held_;
};

// In a child that goes on in its parent's place (daemon(3)): the holds are its own now.
void TakeOver();

enum class Ending { kExit, kExec };

// The process, or its program, is about to go: gives up its hold on every connection so that the last holder knows that it is the last,
// takes frames off the queues (unread bytes would turn the kernel's FIN into an RST), writes statistics. Once; nothing in a vfork child.
void BeforeEnd(Ending ending);

// exec failed: takes the holds back.
void AfterFailedExec();

}  // namespace vsocket::shim
