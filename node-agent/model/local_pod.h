// A pod wired on this node, as the CNI plugin told the agent. This, not anything a pod says, ties a network namespace to addresses.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "node-agent/model/ip_address.h"

namespace vsocket::model {

struct LocalPod {
  std::string uid;  // K8S_POD_UID; the key. Directory name of its socket: only [A-Za-z0-9-_.]
  std::string ns;
  std::string name;
  std::string container_id;  // CNI_CONTAINERID of the sandbox
  std::string ifname;
  std::string netns_path;          // CNI_NETNS
  std::uint64_t netns_cookie = 0;  // SO_NETNS_COOKIE of a socket made inside; what an UPGRADE's socket must show
  std::uint64_t netns_inode = 0;
  std::vector<IpAddress> ips;
  bool operator==(const LocalPod&) const = default;
};

}  // namespace vsocket::model
