#include "node-agent/enforce/nft_applier.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "base/unique_fd.h"

namespace vsocket::enforce {
namespace {

#ifndef SO_NETNS_COOKIE
constexpr int kSoNetnsCookie = 71;  // Linux 5.14; older C library headers lack it
#else
constexpr int kSoNetnsCookie = SO_NETNS_COOKIE;
#endif

constexpr std::size_t kShownOutput = 2000;

ApplyError Broken(std::string what) {
  return {false, std::move(what)};
}
ApplyError Gone(std::string what) {
  return {true, std::move(what)};
}
std::string ErrnoText(const char* what) {
  return std::string(what) + ": " + std::strerror(errno);
}

UniqueFd Memfd(const char* name) {
  return UniqueFd(::memfd_create(name, MFD_CLOEXEC));
}

bool WriteAll(int fd, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t wrote = ::write(fd, text.data() + done, text.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return false;
    done += static_cast<std::size_t>(wrote);
  }
  return ::lseek(fd, 0, SEEK_SET) == 0;
}

std::string FirstOf(int fd) {
  std::string text(kShownOutput, '\0');
  const ssize_t got = ::pread(fd, text.data(), text.size(), 0);
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// Moves the calling thread into the pod's namespace; the rules must land there or nowhere.
std::optional<ApplyError> Enter(const model::LocalPod& pod) {
  const UniqueFd ns(::open(pod.netns_path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!ns.Valid()) {
    const bool gone = errno == ENOENT;
    return ApplyError{gone, ErrnoText(("open " + pod.netns_path).c_str())};
  }
  struct stat theirs, own;
  if (::fstat(ns.Get(), &theirs) != 0 || ::stat("/proc/thread-self/ns/net", &own) != 0)
    return Broken(ErrnoText("stat of a network namespace"));
  if (theirs.st_dev == own.st_dev && theirs.st_ino == own.st_ino) return Broken(pod.netns_path + " is the agent's own network namespace");
  if (::setns(ns.Get(), CLONE_NEWNET) != 0) {
    // EINVAL: a plain file where the namespace was mounted before the pod ended.
    const bool gone = errno == EINVAL;
    return ApplyError{gone, ErrnoText(("enter " + pod.netns_path).c_str())};
  }
  if (pod.netns_cookie == 0) return std::nullopt;
  const UniqueFd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  std::uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (!probe.Valid() || ::getsockopt(probe.Get(), SOL_SOCKET, kSoNetnsCookie, &cookie, &size) != 0)
    return Broken(ErrnoText("SO_NETNS_COOKIE"));
  if (cookie != pod.netns_cookie) return Gone(pod.netns_path + " is another network namespace than the one the pod was wired in");
  return std::nullopt;
}

struct SpawnSetup {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  SpawnSetup() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnSetup() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnSetup(const SpawnSetup&) = delete;
  SpawnSetup& operator=(const SpawnSetup&) = delete;
};

// Waits for the child at most so long, then kills it. The wait status, or nothing after a kill.
std::optional<int> WaitFor(pid_t child, std::chrono::milliseconds timeout) {
  const UniqueFd handle(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  bool ended = false;
  if (handle.Valid()) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    pollfd fd{handle.Get(), POLLIN, 0};
    while (!ended) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      if (left.count() <= 0) break;
      const int ready = ::poll(&fd, 1, static_cast<int>(left.count()));
      ended = ready > 0;
      if (ready < 0 && errno != EINTR) break;
    }
  }
  if (!ended) ::kill(child, SIGKILL);  // not reaped yet, so the number is still this child's
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return ended ? std::optional<int>(status) : std::nullopt;
}

std::optional<ApplyError> RunNft(const std::string& nft_path, const std::string& text, std::chrono::milliseconds timeout) {
  const UniqueFd input = Memfd("vsocket-nft-input");
  const UniqueFd output = Memfd("vsocket-nft-output");
  if (!input.Valid() || !output.Valid() || !WriteAll(input.Get(), text)) return Broken(ErrnoText("memfd for nft"));

  SpawnSetup setup;
  posix_spawn_file_actions_adddup2(&setup.actions, input.Get(), 0);
  posix_spawn_file_actions_adddup2(&setup.actions, output.Get(), 1);
  posix_spawn_file_actions_adddup2(&setup.actions, output.Get(), 2);
  // The agent blocks or ignores signals of its own; nft starts with a clean slate.
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&setup.attributes, &none);
  posix_spawnattr_setsigdefault(&setup.attributes, &all);
  posix_spawnattr_setflags(&setup.attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::string program = "nft", flag = "-f", file = "-", locale = "LC_ALL=C";
  char* const argv[] = {program.data(), flag.data(), file.data(), nullptr};
  char* const environment[] = {locale.data(), nullptr};
  pid_t child = 0;
  const int error = ::posix_spawn(&child, nft_path.c_str(), &setup.actions, &setup.attributes, argv, environment);
  if (error != 0) return Broken(nft_path + " cannot be started: " + std::strerror(error));
  const auto status = WaitFor(child, timeout);
  if (!status) return Broken("nft took longer than " + std::to_string(timeout.count()) + " ms and was killed");
  if (WIFEXITED(*status) && WEXITSTATUS(*status) == 0) return std::nullopt;
  if (WIFSIGNALED(*status)) return Broken("nft was ended by signal " + std::to_string(WTERMSIG(*status)));
  return Broken("nft refused the rules: " + FirstOf(output.Get()));
}

}  // namespace

NftApplier::NftApplier(std::string nft_path, std::chrono::milliseconds timeout) : nft_path_(std::move(nft_path)), timeout_(timeout) {}

Result<Applied, ApplyError> NftApplier::Apply(const model::LocalPod& pod, const std::string& text) {
  std::optional<ApplyError> error;
  try {
    // A thread of its own, because it cannot come back: leaving the pod's namespace again could fail, and this process must never be left
    // in it.
    std::thread inside([&] {
      error = Enter(pod);
      if (!error) error = RunNft(nft_path_, text, timeout_);
    });
    inside.join();
  } catch (const std::system_error& failure) {
    error = Broken(std::string("cannot start a thread: ") + failure.what());
  }
  if (error) return Failure<ApplyError>(*std::move(error));
  return Applied{};
}

}  // namespace vsocket::enforce
