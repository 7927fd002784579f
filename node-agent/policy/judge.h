// A verdict from the tables.
//
// Thread safety: pure functions of their arguments.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "node-agent/model/node_api.h"
#include "node-agent/model/verdict.h"
#include "node-agent/policy/tables.h"

namespace vsocket::policy {

// `node_addresses`: sorted. The cost does not depend on the number of pods, and hardly on that of rules.
model::Verdict Judge(const Tables& tables, const std::vector<model::IpAddress>& node_addresses, const model::Flow& flow);

// Evaluator::Trace.
Result<model::Verdict, model::ApiError> TraceByName(const Tables& tables, const std::vector<model::IpAddress>& node_addresses,
                                                    const std::string& source_pod, const std::string& destination_pod,
                                                    const std::string& port);

// "name" alone is a pod of the namespace default.
std::string Qualified(const std::string& pod);

}  // namespace vsocket::policy
