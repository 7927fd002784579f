#include "node-agent/model/service_table.h"

#include <algorithm>
#include <utility>

namespace vsocket::model {
namespace {

using SlicesByService = std::map<std::pair<std::string, std::string>, std::vector<const EndpointSlice*>>;

std::vector<ServiceBackend> BackendsOf(const ServicePort& port, bool ipv4, const std::vector<const EndpointSlice*>& slices) {
  std::vector<ServiceBackend> backends;
  for (const EndpointSlice* slice : slices) {
    for (const ServicePort& target : slice->ports) {
      if (target.name != port.name || target.protocol != port.protocol) continue;
      for (const Endpoint& endpoint : slice->endpoints) {
        if (!endpoint.ready && !endpoint.serving) continue;
        for (const IpAddress& address : endpoint.addresses) {
          if (address.IsV4() == ipv4) backends.push_back({address, target.number == 0 ? port.number : target.number});
        }
      }
    }
  }
  std::sort(backends.begin(), backends.end());
  backends.erase(std::unique(backends.begin(), backends.end()), backends.end());
  return backends;
}

}  // namespace

ServiceTable::ServiceTable(const std::vector<Service>& services, const std::vector<EndpointSlice>& slices) {
  SlicesByService by_service;
  for (const EndpointSlice& slice : slices) by_service[{slice.ns, slice.service}].push_back(&slice);
  static const std::vector<const EndpointSlice*> kNone;
  for (const Service& service : services) {
    const auto found = by_service.find({service.ns, service.name});
    const auto& own = found == by_service.end() ? kNone : found->second;
    for (const IpAddress& address : service.cluster_ips) {
      addresses_.push_back(address);
      for (const ServicePort& port : service.ports) {
        if (!by_key_.try_emplace({address, port.protocol, port.number}, entries_.size()).second) continue;
        entries_.push_back({service.ns + "/" + service.name, address, port.protocol, port.number, BackendsOf(port, address.IsV4(), own)});
      }
    }
  }
  std::sort(addresses_.begin(), addresses_.end());
  addresses_.erase(std::unique(addresses_.begin(), addresses_.end()), addresses_.end());
}

const ServiceEntry* ServiceTable::Find(const Flow& flow) const {
  const auto found = by_key_.find({flow.destination, flow.protocol, flow.destination_port});
  return found == by_key_.end() ? nullptr : &entries_[found->second];
}

}  // namespace vsocket::model
