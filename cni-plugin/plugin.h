// What each CNI command does, over seams. CNI spec 1.1.0, section "CNI operations".
//
// The rule behind all of it: without the agent a pod runs on plain TCP, which is never wrong. So an agent that is down, hung or of another
// version stops nothing (a line on stderr says so, and the spool tells the agent later), unless the configuration says "required".
#pragma once

#include <functional>
#include <string>

#include "cni-plugin/agent.h"
#include "cni-plugin/invocation.h"
#include "cni-plugin/spool_writer.h"

namespace vsocket::cni {

struct Outcome {
  int exit_status = 0;
  std::string out;  // for stdout: the result or the error, or nothing
  std::string log;  // for stderr: a line each
};

struct Seams {
  Agent& agent;
  Spool& spool;
  std::function<Result<NetnsFacts, std::string>(const std::string& path)> read_netns;
};

Outcome Run(const Invocation& invocation, const Seams& seams);

// The outcome of a call that could not be parsed.
Outcome Refuse(const Error& error);

}  // namespace vsocket::cni
