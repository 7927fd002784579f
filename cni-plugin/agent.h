// The node agent as the plugin sees it: a seam, so that the commands are tested without gRPC.
#pragma once

#include <string>
#include <vector>

#include "cni-plugin/invocation.h"

namespace vsocket::cni {

struct NetnsFacts {
  std::uint64_t cookie = 0;  // SO_NETNS_COOKIE of a socket made inside; 0: this kernel has none, or we may not enter
  std::uint64_t inode = 0;
};

struct Pod {
  std::string uid, ns, name;
  Attachment attachment;
  std::string netns;
  NetnsFacts netns_facts;
  std::vector<std::string> ips;
};

// What became of a question.
struct Answer {
  enum class Kind {
    kOk,
    kUnreachable,   // nobody listens, or the agent is starting or stopping
    kTimedOut,      // somebody listens and does not answer in time
    kOtherVersion,  // the agent speaks another protocol version, or lacks the method
    kNotFound,
    kDiffers,  // CheckPod: known, but not as asked
    kRefused,  // any other answer of the agent
  };
  Kind kind = Kind::kOk;
  std::string message;  // in words, unless kOk
};

class Agent {
 public:
  virtual ~Agent() = default;
  virtual Answer AddPod(const Pod& pod) = 0;
  virtual Answer RemovePod(const Attachment& attachment) = 0;
  virtual Answer CheckPod(const Pod& pod) = 0;
  virtual Answer CollectPods(const std::vector<Attachment>& keep) = 0;
  // kOk when the agent can wire pods; kUnreachable when it is not ready yet.
  virtual Answer Status() = 0;
};

}  // namespace vsocket::cni
