#include "node-agent/policy/ports.h"

#include <algorithm>

namespace vsocket::policy {

bool PortMatches(const model::PolicyPort& port, model::Protocol protocol, std::uint16_t number, const model::Pod* destination) {
  if (port.protocol != protocol) return false;
  if (!port.name.empty()) {
    return destination != nullptr &&
           std::any_of(destination->ports.begin(), destination->ports.end(), [&](const model::ContainerPort& offered) {
             return offered.name == port.name && offered.protocol == protocol && offered.number == number;
           });
  }
  if (!port.number) return true;
  return *port.number <= number && number <= port.end.value_or(*port.number);
}

bool AnyPortMatches(const model::PolicyRule& rule, model::Protocol protocol, std::uint16_t number, const model::Pod* destination) {
  return rule.ports.empty() || std::any_of(rule.ports.begin(), rule.ports.end(),
                                           [&](const model::PolicyPort& port) { return PortMatches(port, protocol, number, destination); });
}

}  // namespace vsocket::policy
