// Looking into another network namespace without leaving one's own: a short-lived thread enters it (setns(2)) and makes sockets there,
// which stay bound to it.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace vsocket::broker {

struct OpenedNetns {
  std::uint64_t cookie = 0;  // SO_NETNS_COOKIE of a socket made inside
  std::uint64_t inode = 0;   // as in /proc/PID/ns/net
  UniqueFd diag;             // NETLINK_SOCK_DIAG socket inside; it keeps the namespace alive
};

// `path` is a bind mount or /proc/PID/ns/net. The error is a sentence. Needs CAP_SYS_ADMIN.
Result<OpenedNetns, std::string> OpenNetns(const std::string& path);

// The inode of a process's network namespace; 0 when the process is gone or cannot be seen.
std::uint64_t NetnsInodeOfProcess(int pid);

}  // namespace vsocket::broker
