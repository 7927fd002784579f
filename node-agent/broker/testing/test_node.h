// What the integration tests share: a network namespace of their own, two pods in it, and a node that serves them, in this process or in
// one that can be killed.
//
// The pods are "a" (10.77.0.1, fd77::1) and "b" (10.77.0.2, fd77::2), both in the test's namespace: what the agent checks are cookies and
// addresses, and two pods that share a namespace differ in the addresses.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>

#include "base/unique_fd.h"
#include "node-agent/broker/node.h"
#include "node-agent/broker/testing/fake_shim.h"

namespace vsocket::broker::testing {

inline constexpr char kIpA[] = "10.77.0.1";
inline constexpr char kIpB[] = "10.77.0.2";

// Between pods a and b.
inline bool GrantBetween(FakeShim& a, FakeShim& b, Channel* channel) {
  return GrantBetween(a, b, channel, kIpA, kIpB);
}

// Puts the calling (main, only) thread into a new network namespace with the pods' addresses on its loopback device. Once; needs root.
bool EnterTestNamespace();

// A directory of its own, removed with the object.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  [[nodiscard]] const std::string& Path() const { return path_; }

 private:
  std::string path_;
};

model::LocalPod PodOf(const std::string& uid);  // "a" or "b"; the netns is the test's
NodeOptions OptionsIn(const std::string& dir);  // everything is allowed, events are dropped
std::string SocketOf(const std::string& dir, const std::string& uid);

// A node in a process of its own, to be killed. Forked: no thread may run in the caller.
class AgentProcess {
 public:
  // `adjust` may change the options; it runs in the child. Both pods are added (unless they are known from `dir`).
  explicit AgentProcess(const std::string& dir, const std::function<void(NodeOptions*)>& adjust = nullptr);
  ~AgentProcess() { Kill(); }
  [[nodiscard]] bool Ready() const { return ready_; }
  [[nodiscard]] pid_t Pid() const { return pid_; }
  void Kill();  // SIGKILL, and waits

  // Asks the child. 's': BrokerStats. The child answers when all that came before has been handled.
  BrokerStats Stats();
  std::uint32_t Descriptors() const;  // open in the child
  std::uint32_t Memfds() const;       // of them: regions
  std::uint64_t MappedRegions() const;

 private:
  [[nodiscard]] std::uint32_t CountFds(const std::string& containing) const;
  pid_t pid_ = -1;
  UniqueFd line_;
  bool ready_ = false;
};

// Tries until `condition` holds, yielding in between; false after ten seconds. For what another process or thread does in its own time.
bool Eventually(const std::function<bool()>& condition);

}  // namespace vsocket::broker::testing
