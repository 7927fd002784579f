// The agent's answers as text for people and as JSON for programs. Pure functions.
//
// JSON keys are part of the tool's interface: they are only ever added. Byte counts are plain numbers, states the words of the table.
#pragma once

#include <vsocket/v1/agent.pb.h>

#include <cstdint>
#include <string>
#include <vector>

namespace vsocket::cli {

enum class Format { kTable, kJson };

std::string RenderStatus(const v1::StatusResponse& status, Format format);
std::string RenderPods(const std::vector<v1::PodStatus>& pods, Format format);
// In the order of pods, then of local ports. `compact` puts the JSON on one line, for --watch.
std::string RenderConnections(std::vector<v1::Connection> connections, Format format, bool compact = false);
// `all`: policies that select no pod of this node too. `status`: for what is wrong in the source.
std::string RenderPolicies(const std::vector<v1::Policy>& policies, const v1::StatusResponse& status, bool all, Format format);
std::string RenderTrace(const v1::TracePolicyRequest& request, const v1::TracePolicyResponse& verdict, Format format);

// One line each, ended by a newline; JSON objects by themselves, so that a stream of them can be read line by line.
std::string RenderFlow(const v1::FlowEvent& event, Format format);
std::string RenderLostFlows(std::uint64_t lost, Format format);

}  // namespace vsocket::cli
