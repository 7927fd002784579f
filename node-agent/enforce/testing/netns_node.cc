#include "node-agent/enforce/testing/netns_node.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <thread>

#include "base/unique_fd.h"

namespace vsocket::enforce::testing {
namespace {

void Run(const std::string& command) {
  if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
}

}  // namespace

std::string NetnsNode::NameOf(int index) const {
  return names_[static_cast<std::size_t>(index + 1)];
}

NetnsNode::NetnsNode(int pods) {
  const std::string prefix = "vsen" + std::to_string(::getpid()) + "-";
  for (int i = -1; i < pods; ++i) {
    names_.push_back(prefix + (i < 0 ? "node" : std::to_string(i)));
    Run("ip netns add " + names_.back() + " && ip -n " + names_.back() + " link set lo up");
  }
  const std::string node = "ip -n " + NameOf(-1) + " ";
  Run(node + "link add br0 type bridge && " + node + "addr add 10.77.0.1/24 dev br0 && " + node + "addr add fd77::1/64 dev br0 nodad && " +
      node + "link set br0 up");
  for (int i = 0; i < pods; ++i) {
    const std::string host = std::to_string(10 + i), veth = "v" + std::to_string(i), inside = "ip -n " + NameOf(i) + " ";
    Run(node + "link add " + veth + " type veth peer name eth0 netns " + NameOf(i) + " && " + node + "link set " + veth + " master br0 up");
    Run(inside + "addr add 10.77.0." + host + "/24 dev eth0 && " + inside + "addr add fd77::" + host + "/64 dev eth0 nodad && " + inside +
        "link set eth0 up && " + inside + "route add default via 10.77.0.1");
    model::LocalPod pod;
    pod.ns = "test";
    pod.name = "pod" + std::to_string(i);
    pod.uid = "uid" + std::to_string(i);
    pod.container_id = "box" + std::to_string(i);
    pod.ifname = "eth0";
    pod.netns_path = "/run/netns/" + NameOf(i);
    pod.ips = {model::IpAddress::Parse("10.77.0." + host).value(), model::IpAddress::Parse("fd77::" + host).value()};
    pods_.push_back(pod);
  }
}

NetnsNode::~NetnsNode() {
  for (const std::string& name : names_) {
    if (std::system(("ip netns del " + name + " 2>/dev/null").c_str()) != 0) continue;  // nothing more can be done in a destructor
  }
}

void NetnsNode::Inside(int index, const std::function<void()>& work) const {
  const std::string path = "/run/netns/" + NameOf(index);
  bool entered = false;
  std::thread thread([&] {
    const UniqueFd ns(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    entered = ns.Valid() && ::setns(ns.Get(), CLONE_NEWNET) == 0;
    if (entered) work();
  });
  thread.join();
  if (!entered) throw std::runtime_error("cannot enter " + path);
}

}  // namespace vsocket::enforce::testing
