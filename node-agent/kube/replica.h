// The agent's copy of what the API server holds: one table a kind. Pure: no threads, no clock, no network.
//
// Invariants:
// 1. A list takes force as a whole, when its last page is there; until then the table stays as it was, and an abandoned list leaves no
//    trace.
// 2. There is no state before every kind has been listed once, and always one afterwards.
//
// Thread safety: none.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "node-agent/kube/resource.h"
#include "node-agent/model/cluster.h"

namespace vsocket::kube {

class Replica {
 public:
  // A kind's new list begins; one that had begun is abandoned.
  void BeginList(Kind kind);
  // An object of the list. False: there are too many of this kind.
  [[nodiscard]] bool AddToList(Kind kind, const Identity& identity, const YamlNode& object);
  void EndList(Kind kind);
  void AbandonList(Kind kind);

  // An event of a watch. False: there are too many of this kind.
  [[nodiscard]] bool Put(Kind kind, const Identity& identity, const YamlNode& object);
  // Does nothing when another object, known by its uid, bears that name by now.
  void Remove(Kind kind, const Identity& identity);

  [[nodiscard]] bool Complete() const;
  [[nodiscard]] bool Listed(Kind kind) const { return TableOf(kind).listed; }
  [[nodiscard]] std::size_t Count(Kind kind) const { return TableOf(kind).objects.size(); }

  // Grows with every change of what Assemble returns. An event that changes nothing that is kept does not count.
  [[nodiscard]] std::uint64_t Version() const { return version_; }
  struct View {
    model::ClusterState state;  // `revision` is left 0
    std::vector<model::SourceProblem> problems;
  };
  // Objects in the order of their names, shared with earlier snapshots where they have not changed. Where objects contradict each other:
  // - an address that a terminating pod and one that is not both have is the latter's: the former's network is gone already;
  // - an address of two pods that both live counts for both, which is a problem: whatever it does, both must be allowed to;
  // - the pods of a namespace that is not known are isolated: events of different kinds come in no order.
  [[nodiscard]] View Assemble() const;

 private:
  using Objects = std::map<std::string, StoredObjectPtr>;
  struct Table {
    bool listed = false;
    Objects objects;
    std::optional<Objects> arriving;
  };
  // Who has an address in the pods' network: how many pods that live, and how many that are terminating.
  struct Claim {
    std::uint32_t living = 0;
    std::uint32_t terminating = 0;
    [[nodiscard]] std::uint32_t Pods() const { return living + terminating; }
  };
  struct AddressHash {
    std::size_t operator()(const model::IpAddress& address) const;
  };
  Table& TableOf(Kind kind) { return tables_[static_cast<std::size_t>(kind)]; }
  [[nodiscard]] const Table& TableOf(Kind kind) const { return tables_[static_cast<std::size_t>(kind)]; }
  // The addresses of a pod, from here on or no longer.
  void AddClaims(const StoredObject& stored);
  void RemoveClaims(const StoredObject& stored);
  void AddPods(View& view) const;
  // Where the nodes are that have pods.
  void AddNodes(View& view) const;
  [[nodiscard]] model::Pod WithoutLostAddresses(const std::string& name, const StoredObject& stored, View& view,
                                                std::map<model::IpAddress, std::string>& first) const;
  static void IsolateUnknownNamespaces(View& view);

  std::array<Table, kKinds.size()> tables_;
  std::unordered_map<model::IpAddress, Claim, AddressHash> claims_;
  std::size_t contested_ = 0;  // addresses that more than one pod has
  std::uint64_t version_ = 0;
};

}  // namespace vsocket::kube
