// What the judges are asked and answer (exchange/exchange.go says the form), from and to the agent's own values.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "node-agent/model/cluster.h"
#include "node-agent/model/verdict.h"

namespace vsocket::oracles {

struct Case {
  std::string name;
  model::ClusterState state;
  std::vector<model::IpAddress> nodes;
  std::vector<model::Flow> flows;
};

// The objects are read as the agent reads a manifest. Throws std::runtime_error when anything is wrong with one.
Case CaseFrom(const nlohmann::json& json);

// Kubernetes objects. Everything must be valid.
nlohmann::json ToJson(const Case& one);

}  // namespace vsocket::oracles
