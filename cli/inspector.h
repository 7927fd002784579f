// The agent's Inspect service as calls that answer or say why not. No gRPC in this header.
#pragma once

#include <vsocket/v1/agent.pb.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace vsocket::cli {

// Exit statuses of vsocketctl. Part of its interface.
enum class Exit : int { kOk = 0, kFailed = 1, kUsage = 2, kUnreachable = 3, kNotFound = 4, kOtherVersion = 5 };

struct CallError {
  Exit exit = Exit::kFailed;
  std::string message;  // a sentence, with a hint where there is one
};

// Each call connects anew, so a long watch outlives a restart of the agent. Thread safety: none.
class Inspector {
 public:
  Inspector(std::string socket_path, std::chrono::milliseconds timeout);

  Result<v1::StatusResponse, CallError> Status();
  Result<std::vector<v1::PodStatus>, CallError> Pods();
  // `pod`: "ns/name", or empty for all. kNotFound when the agent knows no such pod.
  Result<std::vector<v1::Connection>, CallError> Connections(const std::string& pod);
  Result<v1::TracePolicyResponse, CallError> TracePolicy(v1::TracePolicyRequest request);
  Result<std::vector<v1::Policy>, CallError> Policies();
  // Calls `page` with each page as it comes, until there is no more, it returns false, or the agent goes away (kUnreachable). With `follow`
  // it may last for ever.
  Result<bool, CallError> Flows(v1::WatchFlowsRequest request, const std::function<bool(const v1::FlowsPage&)>& page);

 private:
  const std::string socket_path_;
  const std::chrono::milliseconds timeout_;
};

}  // namespace vsocket::cli
