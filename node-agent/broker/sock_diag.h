// PodSockets over a NETLINK_SOCK_DIAG socket (sock_diag(7), linux/inet_diag.h).
#pragma once

#include <memory>

#include "base/unique_fd.h"
#include "node-agent/broker/kernel.h"

namespace vsocket::broker {

// `netlink` was made in the namespace to look at (OpenNetns). Destroying needs CAP_NET_ADMIN over that namespace and a kernel built with
// CONFIG_INET_DIAG_DESTROY.
std::unique_ptr<PodSockets> MakePodSockets(UniqueFd netlink);

}  // namespace vsocket::broker
