// What the plugin answers when it fails: CNI spec 1.1.0, section "Error". Codes below 100 are the spec's, the others ours.
#pragma once

#include <string>

namespace vsocket::cni {

enum class Code : unsigned {
  kIncompatibleVersion = 1,
  kUnknownContainer = 3,  // also: its network namespace is gone
  kInvalidEnvironment = 4,
  kIo = 5,
  kUndecodable = 6,
  kInvalidConfig = 7,
  kTryAgainLater = 11,          // no agent, or one that does not answer in time
  kUnavailable = 50,            // STATUS: no agent, or it is not ready
  kUnavailableAndLimited = 51,  // STATUS: the agent is there and does not serve, so pods that are wired already are not attended either
  kOtherAgentVersion = 100,     // waiting does not help: plugin and agent must be of one release
  kAgentRefused = 101,          // the agent answered that it cannot
  kWiredDifferently = 102,      // CHECK: the agent knows another pod under this attachment
};

struct Error {
  Code code = Code::kIo;
  std::string message;  // one sentence
  std::string details;  // empty: none
};

}  // namespace vsocket::cni
