// How a source of cluster state tells what it knows.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "node-agent/model/cluster.h"

namespace vsocket::kube {

// `problems` is the complete list in force with this snapshot, not a delta. Called too when only the problems changed. `state` is null
// while none is known, and never null again after the first.
using SnapshotCallback = std::function<void(std::shared_ptr<const model::ClusterState> state, std::vector<model::SourceProblem> problems)>;
// Things worth a line in the log that are not wrong: an ignored kind, a policy that selects nothing.
using InfoLog = std::function<void(const std::string& line)>;

}  // namespace vsocket::kube
