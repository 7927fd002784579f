#include "node-agent/enforce/service_rules.h"

#include <algorithm>
#include <map>

namespace vsocket::enforce {
namespace {

using model::AllowEntry;

// The entries of a list by what they cover: most are one address, a few are ranges.
class AllowIndex {
 public:
  explicit AllowIndex(const std::vector<AllowEntry>& entries) {
    for (const AllowEntry& entry : entries) {
      if (entry.remote.first == entry.remote.last) {
        by_address_[entry.remote.first].push_back(&entry);
      } else {
        ranges_.push_back(&entry);
      }
    }
  }
  [[nodiscard]] bool Allows(const model::ServiceBackend& backend, model::Protocol protocol) const {
    const auto covers = [&](const AllowEntry* entry) {
      return entry->remote.Contains(backend.address) && (!entry->protocol || entry->protocol == protocol) &&
             entry->first_port <= backend.port && backend.port <= entry->last_port;
    };
    const auto found = by_address_.find(backend.address);
    if (found != by_address_.end() && std::any_of(found->second.begin(), found->second.end(), covers)) return true;
    return std::any_of(ranges_.begin(), ranges_.end(), covers);
  }

 private:
  std::map<model::IpAddress, std::vector<const AllowEntry*>> by_address_;
  std::vector<const AllowEntry*> ranges_;
};

const char* NameOf(model::Protocol protocol) {
  return protocol == model::Protocol::kTcp ? "TCP" : protocol == model::Protocol::kUdp ? "UDP" : "SCTP";
}

}  // namespace

ServiceVerdicts JudgeServices(const model::AllowList& allow, const model::ServiceTable& services) {
  ServiceVerdicts verdicts;
  if (!allow.egress.isolated) return verdicts;
  verdicts.rules.addresses = services.Addresses();
  const AllowIndex index(allow.egress.entries);
  for (const model::ServiceEntry& entry : services.Entries()) {
    std::size_t allowed = 0;
    const model::ServiceBackend* refused = nullptr;
    for (const model::ServiceBackend& backend : entry.backends) {
      if (index.Allows(backend, entry.protocol)) {
        ++allowed;
      } else {
        refused = &backend;
      }
    }
    if (allowed == 0) continue;
    if (refused == nullptr) {
      verdicts.rules.entries.push_back({{entry.address, entry.address}, entry.protocol, entry.port, entry.port});
    } else {
      verdicts.mixed.push_back(entry.service + " port " + std::to_string(entry.port) + "/" + NameOf(entry.protocol) + ": backend " +
                               refused->address.ToString() + " port " + std::to_string(refused->port) + " is not allowed, and " +
                               std::to_string(allowed) + " of " + std::to_string(entry.backends.size()) + " are");
    }
  }
  std::sort(verdicts.rules.entries.begin(), verdicts.rules.entries.end());
  return verdicts;
}

}  // namespace vsocket::enforce
