// Who is where, by the cluster's state: which node an address belongs to, and where that node's agent listens.
//
// Thread safety: a value; const methods from any thread.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/model/cluster.h"
#include "node-agent/model/peer.h"
#include "node-agent/peer/agreement.h"

namespace vsocket::peer {

class Directory final : public Whereabouts {
 public:
  Directory() = default;
  // A node whose object says nothing of its agent has it at the node's first address and kDefaultPeerPort; one without an address has none.
  explicit Directory(const model::ClusterState& state);
  // Pods that have finished, have no node, or use their node's network are no pods here. An address that two pods have is nobody's: one of
  // them is about to go, and which cannot be known.
  Directory(const std::vector<model::Shared<model::Pod>>& pods, std::vector<model::NodeAgent> nodes);

  [[nodiscard]] std::optional<model::PodPlace> PodAt(const model::IpAddress& ip) const override;
  [[nodiscard]] bool IsAddressOf(const std::string& node, const model::IpAddress& ip) const override;
  [[nodiscard]] const std::vector<model::NodeAgent>& Nodes() const { return nodes_; }
  [[nodiscard]] const model::NodeAgent* Find(const std::string& node) const;

 private:
  std::map<model::IpAddress, std::optional<model::PodPlace>> pods_;
  std::vector<model::NodeAgent> nodes_;
};

}  // namespace vsocket::peer
