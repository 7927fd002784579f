// The version of the protocol in vsocket/v1/agent.proto that this tree speaks.
#pragma once

#include <cstdint>

namespace vsocket::rpc {

// Grows when a message changes its meaning. Agent and plugin are installed together but not at the same instant, and an old plugin
// binary may stay on the host: a mismatch must be told apart from an agent that is down.
inline constexpr std::uint32_t kProtocolVersion = 1;

// Where the agent listens unless told otherwise.
inline constexpr char kDefaultAgentSocket[] = "/run/vsocket/agent-rpc.sock";

}  // namespace vsocket::rpc
