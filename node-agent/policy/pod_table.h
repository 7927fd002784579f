// Pods as policies see them: what the cluster says of them, and what this node knows better of those it has wired itself.
//
// - A wired pod has the addresses it was wired with. It is the object of its name, and of its uid when both have one.
// - A wired pod that the cluster does not know (its object is not there yet, or is of another uid) is there without labels or ports, so
// that
//   a namespace-wide policy holds for it from its first packet. An object of a wired name and another uid is out of date: it is not there.
// - A wired pod is not in the host's network, whatever its object says: no CNI plugin is called for one that is.
// - An address of a wired pod is nobody else's. Of the others, each that claims an address counts.
// - A finished pod, and one in the host's network, has no address here.
//
// Thread safety: none; const methods may run at the same time.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "node-agent/model/cluster.h"
#include "node-agent/model/local_pod.h"
#include "node-agent/policy/ids.h"
#include "node-agent/policy/membership.h"
#include "node-agent/policy/peer_table.h"

namespace vsocket::policy {

struct EffectivePod {
  model::Shared<model::Pod> pod;
  bool wired = false;
};
// All that is there under one name: usually one pod. `object`: null when the cluster has none.
std::vector<EffectivePod> EffectivePods(const model::Shared<model::Pod>* object, const std::vector<const model::LocalPod*>& wired);

// What a change of pods touches.
struct PodChanges {
  std::set<model::IpAddress> addresses;  // with other pods behind them, or the same with other labels or ports
  std::set<std::string> names;           // of pods that are new, gone, or others now
  std::set<IdentityId> identities;       // that are new
};

class PodTable {
 public:
  explicit PodTable(Membership& membership) : membership_(membership) {}
  PodTable(const PodTable&) = delete;
  PodTable& operator=(const PodTable&) = delete;

  // Makes what is there under `name` ("ns/name") follow from these two.
  void Set(const std::string& name, const model::Shared<model::Pod>* object, const std::vector<const model::LocalPod*>& wired,
           PodChanges& changes);

  [[nodiscard]] const model::Pod& At(PodId pod) const { return *pods_[pod].pod; }
  [[nodiscard]] bool IsWired(PodId pod) const { return pods_[pod].wired; }
  [[nodiscard]] const model::Shared<model::Pod>* ObjectOf(const std::string& name) const;
  // kNone: not in the pod network (finished, or in the host's).
  [[nodiscard]] IdentityId IdentityOf(PodId pod) const { return pods_[pod].identity; }
  // Pods in the pod network that claim the address; usually none or one. In the order of their names.
  [[nodiscard]] std::span<const PodId> At(const model::IpAddress& address) const;
  [[nodiscard]] PodId Named(const std::string& name) const;                          // any pod; kNone when there is none
  [[nodiscard]] PodId Wired(const std::string& name, const std::string& uid) const;  // kNone when there is none
  [[nodiscard]] const std::vector<PodId>& WithIdentity(IdentityId identity) const;
  // Every address, and who has it.
  template <typename F>
  void ForEachAddress(F&& visit) const {
    for (const auto& [address, claim] : addresses_) visit(address);
  }
  [[nodiscard]] const std::set<model::IpAddress>& Contested() const { return contested_; }
  // Pods with a port name that means several numbers.
  [[nodiscard]] const std::map<std::string, std::vector<std::string>>& AmbiguousPorts() const { return ambiguous_; }
  [[nodiscard]] std::size_t Count() const { return pods_.Count(); }

 private:
  struct Entry {
    model::Shared<model::Pod> pod = NoPod();
    bool wired = false;
    IdentityId identity = kNone;
    std::uint32_t place = 0;  // among those of the identity
  };
  struct Name {
    std::optional<model::Shared<model::Pod>> object;
    std::vector<PodId> pods;
  };
  struct Claim {
    std::vector<PodId> pods;  // wired ones first, then by name
    std::uint32_t wired = 0;  // so many of them are
  };
  static const model::Shared<model::Pod>& NoPod();

  PodId Add(EffectivePod pod, PodChanges& changes);
  void Remove(PodId pod, PodChanges& changes);
  void NoteContest(const model::IpAddress& address);
  [[nodiscard]] static bool SameForPolicies(const model::Pod& a, const model::Pod& b);

  Membership& membership_;
  Slots<Entry> pods_;
  std::unordered_map<std::string, Name> names_;
  std::unordered_map<model::IpAddress, Claim, IpAddressHash> addresses_;
  std::vector<std::vector<PodId>> by_identity_;
  std::set<model::IpAddress> contested_;
  std::map<std::string, std::vector<std::string>> ambiguous_;
};

}  // namespace vsocket::policy
