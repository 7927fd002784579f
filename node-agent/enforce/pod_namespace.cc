#include "node-agent/enforce/pod_namespace.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
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

ApplyError Broken(std::string what) {
  return {false, std::move(what)};
}
ApplyError Gone(std::string what) {
  return {true, std::move(what)};
}
std::string ErrnoText(const char* what) {
  return std::string(what) + ": " + std::strerror(errno);
}

// Moves the calling thread into the pod's namespace; the work is done there or nowhere.
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

}  // namespace

std::optional<ApplyError> InsidePod(const model::LocalPod& pod, const std::function<void()>& work) {
  std::optional<ApplyError> error;
  try {
    // A thread of its own, because it cannot come back: leaving the pod's namespace again could fail, and this process must never be left
    // in it.
    std::thread inside([&] {
      error = Enter(pod);
      if (!error) work();
    });
    inside.join();
  } catch (const std::system_error& failure) {
    error = Broken(std::string("cannot start a thread: ") + failure.what());
  }
  return error;
}

}  // namespace vsocket::enforce
