// What vsocketctl and the metrics see.
#include <algorithm>
#include <unordered_set>

#include "node-agent/broker/broker.h"

namespace vsocket::broker {

using model::ConnectionInfo;
using model::ConnectionState;

namespace {
constexpr std::uint64_t kSurelyProvenBytes = 2 * 65536;  // twice the shim's VSOCKET_UPGRADE_AFTER when that is not set
}

std::vector<ConnectionInfo> Broker::Connections() {
  std::map<model::IpAddress, std::string> names;
  for (const auto& [uid, pod] : pods_) {
    for (const auto& ip : pod.pod.ips) names.emplace(ip, pod.pod.ns + "/" + pod.pod.name);
  }
  std::vector<ConnectionInfo> connections;
  for (auto& [uid, pod] : pods_) {
    for (const TcpSocket& socket : pod.sockets->Connections()) {
      ConnectionInfo info;
      info.pod = pod.pod.ns + "/" + pod.pod.name;
      info.pod_uid = uid;
      info.local = socket.tuple.local.address;
      info.local_port = socket.tuple.local.port;
      info.remote = socket.tuple.remote.address;
      info.remote_port = socket.tuple.remote.port;
      if (const auto name = names.find(info.remote); name != names.end()) info.remote_pod = name->second;
      if (socket.tuple.StaysInNamespace()) info.remote_pod = info.pod;
      info.cookie = socket.cookie;
      info.tcp_sent = socket.bytes_acked;
      info.tcp_received = socket.bytes_received;
      // A shim with the usual settings would have asked by now.
      const bool proven = socket.bytes_acked + socket.bytes_received > kSurelyProvenBytes;
      info.reason = static_cast<std::uint16_t>(proven ? channel::Reason::kNotAsked : channel::Reason::kNotProven);

      const Session* holder = nullptr;
      std::uint32_t side = 0;
      if (const Channel* channel = table_.ByCookie(socket.cookie, &side); channel != nullptr && channel->end[side].pod == uid) {
        const model::RingTraffic traffic = channel->region->memory->Traffic(channel->slot);
        info.ring_sent = traffic.sent[side];
        info.ring_received = traffic.sent[1 - side];
        info.state = channel->TwoSided() ? ConnectionState::kRing : ConnectionState::kUpgrading;
        info.reason = static_cast<std::uint16_t>(channel->TwoSided() ? channel::Reason::kNone : channel::Reason::kPeerSilent);
        if (channel->revoked) {
          info.state = ConnectionState::kTcp;
          info.reason = static_cast<std::uint16_t>(channel::Reason::kRevoked);
        }
        info.limited_by = LimitedBy(*channel, side);
        holder = SessionOf(channel->end[side].session);
      } else if (const PendingEnd* pending = pending_.Find(socket.cookie); pending != nullptr && pending->end.pod == uid) {
        info.state = ConnectionState::kUpgrading;
        info.reason = static_cast<std::uint16_t>(channel::Reason::kPeerSilent);
        holder = SessionOf(pending->end.session);
      } else {
        for (const SessionId id : pod.sessions) {
          const Session* session = SessionOf(id);
          const auto note = session->notes.find(socket.cookie);
          if (note == session->notes.end()) continue;
          info.reason = note->second;
          holder = session;
        }
      }
      if (holder != nullptr) {
        info.program = holder->comm;
        info.pid = holder->pid;
      }
      connections.push_back(std::move(info));
    }
  }
  return connections;
}

BrokerStats Broker::Stats() {
  BrokerStats stats = stats_;
  const TableTotals totals = table_.Totals();
  stats.pods = static_cast<std::uint32_t>(pods_.size());
  stats.processes = static_cast<std::uint32_t>(sessions_.size());
  stats.pending = static_cast<std::uint32_t>(pending_.Size());
  stats.channels = totals.channels;
  stats.regions = totals.regions;
  stats.bytes_reserved = totals.bytes_reserved;
  stats.ring_bytes = totals.ring_bytes;
  stats.revoked_memory = watch_.Stats();
  stats.bandwidth = pacer_.Stats();
  return stats;
}

PodLoad Broker::LoadOf(const std::string& uid) const {
  const Usage usage = table_.UsageOf(uid);
  const auto pod = pods_.find(uid);
  if (pod == pods_.end()) return {0, usage.channels, usage.bytes, {}};
  return {static_cast<std::uint32_t>(pod->second.sessions.size()), usage.channels, usage.bytes, pod->second.bandwidth};
}

}  // namespace vsocket::broker
