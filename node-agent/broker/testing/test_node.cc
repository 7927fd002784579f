#include "node-agent/broker/testing/test_node.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace vsocket::broker::testing {

namespace fs = std::filesystem;

bool EnterTestNamespace() {
  static const bool entered = [] {
    if (::unshare(CLONE_NEWNET) != 0) return false;
    return std::system(
               "ip link set lo up && ip addr add 10.77.0.1/32 dev lo && ip addr add 10.77.0.2/32 dev lo && "
               "ip addr add fd77::1/128 dev lo nodad && ip addr add fd77::2/128 dev lo nodad") == 0;
  }();
  return entered;
}

TempDir::TempDir() {
  char pattern[] = "/tmp/vsocket-test-XXXXXX";
  path_ = ::mkdtemp(pattern);
}

TempDir::~TempDir() {
  std::error_code error;
  fs::remove_all(path_, error);
}

model::LocalPod PodOf(const std::string& uid) {
  model::LocalPod pod;
  pod.uid = uid;
  pod.ns = "default";
  pod.name = uid;
  pod.container_id = "container-" + uid;
  pod.ifname = "eth0";
  pod.netns_path = "/proc/" + std::to_string(::getpid()) + "/ns/net";
  pod.ips = {*model::IpAddress::Parse(uid == "a" ? kIpA : kIpB), *model::IpAddress::Parse(uid == "a" ? "fd77::1" : "fd77::2")};
  return pod;
}

NodeOptions OptionsIn(const std::string& dir) {
  NodeOptions options;
  options.run_dir = dir + "/run";
  options.state_dir = dir + "/state";
  options.version = "test";
  options.broker.verdict = [](const model::Flow&) {
    model::Verdict verdict;
    verdict.allowed = verdict.egress.allowed = verdict.ingress.allowed = true;
    return verdict;
  };
  return options;
}

std::string SocketOf(const std::string& dir, const std::string& uid) {
  return dir + "/run/pods/" + uid + "/agent.sock";
}

namespace {

[[noreturn]] void ServeUntilKilled(const std::string& dir, const std::function<void(NodeOptions*)>& adjust, int line, pid_t parent) {
  NodeOptions options = OptionsIn(dir);
  if (adjust) adjust(&options);
  auto node = Node::Open(options, {});
  if (!node) ::_exit(2);
  for (const char* uid : {"a", "b"}) {
    model::LocalPod pod = PodOf(uid);
    // The same path in every agent of the test, so that a restarted one finds its stored pods good.
    pod.netns_path = "/proc/" + std::to_string(parent) + "/ns/net";
    if (!(*node)->AddPod(pod)) ::_exit(3);
  }
  (*node)->Serve();
  char question = 'r';
  do {
    const BrokerStats stats = (*node)->Stats();
    if (::send(line, &stats, sizeof stats, MSG_NOSIGNAL) != sizeof stats) ::_exit(0);
  } while (::recv(line, &question, 1, 0) == 1);
  ::_exit(0);  // the test has gone
}

}  // namespace

AgentProcess::AgentProcess(const std::string& dir, const std::function<void(NodeOptions*)>& adjust) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return;
  line_ = UniqueFd(ends[0]);
  UniqueFd child_end(ends[1]);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) {
    // Nothing of the test's: an inherited copy of a socket or a region would keep it alive and be counted as the agent's.
    constexpr int kLine = 3;
    if (child_end.Get() != kLine && ::dup2(child_end.Get(), kLine) != kLine) ::_exit(4);
    ::close_range(kLine + 1, ~0U, 0);
    ServeUntilKilled(dir, adjust, kLine, parent);
  }
  child_end.Reset();
  BrokerStats stats;
  ready_ = pid_ > 0 && ::recv(line_.Get(), &stats, sizeof stats, 0) == sizeof stats;
}

void AgentProcess::Kill() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

BrokerStats AgentProcess::Stats() {
  BrokerStats stats;
  const char question = 's';
  if (::send(line_.Get(), &question, 1, MSG_NOSIGNAL) != 1 || ::recv(line_.Get(), &stats, sizeof stats, 0) != sizeof stats) return {};
  return stats;
}

std::uint32_t AgentProcess::CountFds(const std::string& containing) const {
  std::uint32_t count = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc/" + std::to_string(pid_) + "/fd", error)) {
    std::error_code gone;
    if (fs::read_symlink(entry.path(), gone).string().find(containing) != std::string::npos) ++count;
  }
  return count;
}

std::uint32_t AgentProcess::Descriptors() const {
  return CountFds("");
}
std::uint32_t AgentProcess::Memfds() const {
  return CountFds("vsocket-region");
}

std::uint64_t AgentProcess::MappedRegions() const {
  std::ifstream maps("/proc/" + std::to_string(pid_) + "/maps");
  std::uint64_t count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find("vsocket-region") != std::string::npos ? 1 : 0;
  return count;
}

bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    ::poll(nullptr, 0, 1);
  }
  return true;
}

}  // namespace vsocket::broker::testing
