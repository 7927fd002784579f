// The agent over gRPC. No gRPC in this header.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "cni-plugin/agent.h"

namespace vsocket::cni {

// Nothing is connected until the first question. All questions together take at most `timeout` from this call on.
// Thread safety: none.
std::unique_ptr<Agent> ConnectAgent(std::string socket_path, std::chrono::milliseconds timeout);

}  // namespace vsocket::cni
