// Which Services a pod that is isolated for egress may reach.
//
// The rules in the pod see a Service's address and cannot see which backend the node will choose. So a Service's port is let through when
// every backend that may be chosen is allowed; then whichever it is, it is right. Where only some are, none is: closing is the safe side,
// and it is said (`mixed`). The backend's own side is judged where the backend runs, by its true addresses, in either case.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <vector>

#include "node-agent/enforce/ruleset.h"
#include "node-agent/model/allow_list.h"
#include "node-agent/model/service_table.h"

namespace vsocket::enforce {

struct ServiceVerdicts {
  ServiceRules rules;
  std::vector<std::string> mixed;  // "ns/name port 80/TCP: 10.1.0.7:8080 is not allowed, others are"; sorted as the table
};

// Nothing for a pod that is not isolated for egress.
ServiceVerdicts JudgeServices(const model::AllowList& allow, const model::ServiceTable& services);

}  // namespace vsocket::enforce
