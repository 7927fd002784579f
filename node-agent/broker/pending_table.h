// UPGRADEs that wait for the other end to ask too.
//
// Invariant: at most one entry a socket (cookie) and one a flow key. Thread safety: none; the broker's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>

#include "node-agent/broker/channel_table.h"
#include "node-agent/broker/endpoint.h"

namespace vsocket::broker {

struct PendingEnd {
  End end;
  TcpSocket socket;  // as the kernel showed it when the request came
};

class PendingTable {
 public:
  // Replaces an older entry of the same socket, and one of another socket with the same key: a 4-tuple belongs to one socket at a time,
  // so the older one is dead.
  void Add(PendingEnd pending);
  // The entry whose socket is the other end of this one; it is removed.
  std::optional<PendingEnd> TakeMirrorOf(const End& end);
  [[nodiscard]] const PendingEnd* Find(std::uint64_t cookie) const;
  void Remove(std::uint64_t cookie);
  void RemoveSession(SessionId session);

  [[nodiscard]] std::size_t OfSession(SessionId session) const;
  [[nodiscard]] std::size_t OfPod(const std::string& pod) const;
  [[nodiscard]] std::size_t Size() const { return by_key_.size(); }

 private:
  using ByKey = std::map<FlowKey, PendingEnd>;
  void Erase(ByKey::iterator entry);

  ByKey by_key_;
  std::unordered_map<std::uint64_t, FlowKey> by_cookie_;
  std::unordered_map<SessionId, std::size_t> of_session_;
  std::unordered_map<std::string, std::size_t> of_pod_;
};

}  // namespace vsocket::broker
