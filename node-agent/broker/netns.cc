#include "node-agent/broker/netns.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/netlink.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <thread>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace vsocket::broker {
namespace {

std::string Why(const char* what, const std::string& path) {
  return std::string(what) + " " + path + ": " + std::strerror(errno);
}

// Runs in the thread that is inside.
std::optional<std::string> ReadInside(OpenedNetns* out) {
  UniqueFd diag(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!diag.Valid()) return std::string("cannot make a sock_diag socket: ") + std::strerror(errno);
  // Netlink answers in the caller's context; the timeout only keeps a kernel fault from hanging the agent.
  const timeval timeout{2, 0};
  ::setsockopt(diag.Get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  socklen_t length = sizeof out->cookie;
  if (::getsockopt(diag.Get(), SOL_SOCKET, SO_NETNS_COOKIE, &out->cookie, &length) != 0) {
    return std::string("cannot read the namespace's cookie (Linux 5.14 or later is needed): ") + std::strerror(errno);
  }
  out->diag = std::move(diag);
  return std::nullopt;
}

}  // namespace

Result<OpenedNetns, std::string> OpenNetns(const std::string& path) {
  const UniqueFd netns(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!netns.Valid()) return Failure(Why("cannot open the network namespace", path));
  struct statfs file_system {};
  if (::fstatfs(netns.Get(), &file_system) != 0 || file_system.f_type != NSFS_MAGIC) {
    return Failure(std::string("not a network namespace: ") + path);
  }
  struct stat status {};
  if (::fstat(netns.Get(), &status) != 0) return Failure(Why("cannot stat the network namespace", path));

  OpenedNetns opened;
  opened.inode = status.st_ino;
  std::optional<std::string> error;
  // A thread of its own: the namespace is a property of a thread, and this one ends with the visit, so no pool is left inside.
  std::thread([&] {
    if (::setns(netns.Get(), CLONE_NEWNET) != 0) {
      error = Why("cannot enter the network namespace", path);
      return;
    }
    error = ReadInside(&opened);
  }).join();
  if (error) return Failure(std::move(*error));
  return opened;
}

std::uint64_t NetnsInodeOfProcess(int pid) {
  struct stat status {};
  const std::string path = "/proc/" + std::to_string(pid) + "/ns/net";
  return pid > 0 && ::stat(path.c_str(), &status) == 0 ? status.st_ino : 0;
}

}  // namespace vsocket::broker
