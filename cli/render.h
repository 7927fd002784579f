// The agent's answers as text for people and as JSON for programs. Pure functions.
//
// JSON keys are part of the tool's interface: they are only ever added. Byte counts are plain numbers, states the words of the table.
#pragma once

#include <vsocket/v1/agent.pb.h>

#include <string>
#include <vector>

namespace vsocket::cli {

enum class Format { kTable, kJson };

std::string RenderStatus(const v1::StatusResponse& status, Format format);
std::string RenderPods(const std::vector<v1::PodStatus>& pods, Format format);
// In the order of pods, then of local ports. `compact` puts the JSON on one line, for --watch.
std::string RenderConnections(std::vector<v1::Connection> connections, Format format, bool compact = false);
std::string RenderTrace(const v1::TracePolicyRequest& request, const v1::TracePolicyResponse& verdict, Format format);

}  // namespace vsocket::cli
