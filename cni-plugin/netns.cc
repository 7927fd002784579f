#include "cni-plugin/netns.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <thread>

#include "base/unique_fd.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace vsocket::cni {
namespace {

std::uint64_t CookieInside(int netns) {
  if (::setns(netns, CLONE_NEWNET) != 0) return 0;
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  std::uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (!socket.Valid() || ::getsockopt(socket.Get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) != 0) return 0;
  return cookie;
}

}  // namespace

Result<NetnsFacts, std::string> ReadNetns(const std::string& path) {
  const UniqueFd netns(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info {};
  if (!netns.Valid() || ::fstat(netns.Get(), &info) != 0) return Failure<std::string>(path + ": " + std::strerror(errno));
  NetnsFacts facts;
  facts.inode = info.st_ino;
  std::thread([&] { facts.cookie = CookieInside(netns.Get()); }).join();
  return facts;
}

}  // namespace vsocket::cni
