// Real network namespaces for root tests: a bridge namespace with pods behind it, each on a veth pair, as a node has them.
// Everything is named after the process and gone with the object.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "node-agent/model/local_pod.h"

namespace vsocket::enforce::testing {

class NetnsNode {
 public:
  // Pod i (0-based) has 10.77.0.(10+i) and fd77::(10+i); the bridge has 10.77.0.1 and fd77::1. Throws std::runtime_error.
  explicit NetnsNode(int pods);
  ~NetnsNode();
  NetnsNode(const NetnsNode&) = delete;
  NetnsNode& operator=(const NetnsNode&) = delete;

  [[nodiscard]] const model::LocalPod& Pod(int index) const { return pods_[static_cast<std::size_t>(index)]; }
  // Runs `work` in a thread inside the pod's namespace (-1: the bridge's) and waits for it. Sockets made there stay there.
  void Inside(int index, const std::function<void()>& work) const;

 private:
  std::string NameOf(int index) const;
  std::vector<std::string> names_;
  std::vector<model::LocalPod> pods_;
};

}  // namespace vsocket::enforce::testing
