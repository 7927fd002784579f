// The addresses of Services and what stands behind them. A policy means the backends; a packet on its way out still has the Service's
// address, which the node translates later.
//
// Thread safety: immutable after construction.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "node-agent/model/cluster.h"
#include "node-agent/model/verdict.h"

namespace vsocket::model {

struct ServiceBackend {
  IpAddress address;
  std::uint16_t port = 0;
  auto operator<=>(const ServiceBackend&) const = default;
};

// One port at one of a Service's addresses.
struct ServiceEntry {
  std::string service;  // "ns/name"
  IpAddress address;
  Protocol protocol = Protocol::kTcp;
  std::uint16_t port = 0;
  // Of the address's family; those that are ready, or still serve. Sorted, without duplicates. Any of them may be the one that a
  // connection gets.
  std::vector<ServiceBackend> backends;
};

class ServiceTable {
 public:
  ServiceTable() = default;
  ServiceTable(const std::vector<Service>& services, const std::vector<EndpointSlice>& slices);

  [[nodiscard]] const std::vector<ServiceEntry>& Entries() const { return entries_; }
  [[nodiscard]] const std::vector<IpAddress>& Addresses() const { return addresses_; }  // sorted
  // What the flow's destination means; nullptr when it is no port of a Service.
  [[nodiscard]] const ServiceEntry* Find(const Flow& flow) const;

 private:
  using Key = std::tuple<IpAddress, Protocol, std::uint16_t>;
  std::vector<ServiceEntry> entries_;
  std::vector<IpAddress> addresses_;
  std::map<Key, std::size_t> by_key_;  // the first of two Services that claim one address
};

}  // namespace vsocket::model
