// What a change of policy or of the pods takes away.
#include <algorithm>
#include <unordered_set>
#include <utility>

#include "node-agent/broker/broker.h"
#include "node-agent/broker/direction.h"

namespace vsocket::broker {

bool Broker::DestroySocket(const std::string& uid, const Tuple& tuple, std::uint64_t cookie) {
  PodRuntime* pod = PodOf(uid);
  if (pod == nullptr || !pod->sockets->Destroy(tuple, cookie)) return false;
  ++stats_.sockets_destroyed;
  return true;
}

void Broker::Cut(Channel* channel, const std::string& why, bool by_policy) {
  if (channel->revoked) return;
  ++stats_.revocations;
  ForgetBandwidth(channel->id);
  table_.Revoke(channel);
  // First the word, then the bells: whoever wakes sees why.
  for (std::uint32_t side = 0; side < 2; ++side) {
    const std::uint32_t armed = channel->region->memory->TakeArmedWakeFds(channel->slot, side);
    PodRuntime* pod = PodOf(channel->end[side].pod);
    for (std::uint32_t index = 0; index < channel::kWakeFdsPerSide; ++index) {
      const auto& wake_fd = channel->region->wake[side][index];
      if ((armed >> index & 1) != 0 && wake_fd && pod != nullptr) pod->foreign->Ring(wake_fd);
    }
  }
  // The bells are known: from here on the memory is not needed.
  if (by_policy) table_.Condemn(channel, why);
  Say(Event::Level::kWarning, "channel revoked",
      {{"connection", channel->end[channel->end[0].cookie == 0 ? 1 : 0].tuple.ToString()},
       {"pod", channel->end[0].pod},
       {"peer_pod", channel->end[1].pod},
       {"why", why}});
  // Wakes who waits in the kernel.
  for (const End& end : channel->end) {
    if (end.cookie != 0) DestroySocket(end.pod, end.tuple, end.cookie);
  }
}

std::uint32_t Broker::CutChannels(const model::Affected& affected) {
  std::uint32_t cut = 0;
  for (const auto& [id, channel] : table_.All()) {
    if (channel->revoked || !affected.Concerns(channel->flow) || (channel->TwoSided() && channel->end[0].pod == channel->end[1].pod))
      continue;
    const End& known = channel->end[channel->end[0].cookie == 0 ? 1 : 0];
    if (const auto forbidden = Forbidden(known.tuple, channel->flow)) {
      Cut(channel.get(), DecidedBy(*forbidden), true);
      Record(model::FlowAction::kCut, model::FlowPath::kRing, known.tuple, channel->flow, *forbidden);
      ++cut;
    }
  }
  return cut;
}

std::uint32_t Broker::CutKernelConnections(const model::Affected& affected) {
  if (affected.None()) return 0;
  struct Found {
    const std::string* pod;
    TcpSocket socket;
  };
  std::map<Endpoint, bool> listens;  // by local endpoint of a local pod: asked of the kernel once
  std::vector<Found> connections;
  for (auto& [uid, pod] : pods_) {
    for (TcpSocket& socket : pod.sockets->Connections()) {
      const auto& ips = pod.pod.ips;
      if (!affected.Concerns(socket.tuple.local.address) && !affected.Concerns(socket.tuple.remote.address)) continue;
      if (socket.tuple.StaysInNamespace() || std::find(ips.begin(), ips.end(), socket.tuple.local.address) == ips.end()) continue;
      if (!listens.contains(socket.tuple.local)) listens[socket.tuple.local] = pod.sockets->Listens(socket.tuple.local);
      connections.push_back({&uid, std::move(socket)});
    }
  }
  std::uint32_t cut = 0;
  for (const Found& found : connections) {
    const Tuple& tuple = found.socket.tuple;
    EndEvidence here;
    EndEvidence there;
    here.listens = listens[tuple.local];
    const auto remote = listens.find(tuple.remote);
    there.listens = remote != listens.end() && remote->second;
    // Nothing listens here and the other end is not on this node: it must be the one that does.
    if (remote == listens.end() && !here.listens) there.listens = true;
    const model::Flow flow = FlowOf(tuple, FirstEndOpened(tuple, here, there));
    const auto forbidden = Forbidden(tuple, flow);
    if (!forbidden) continue;
    // False: the other end's cut has ended it already, and it is counted there.
    if (!DestroySocket(*found.pod, tuple, found.socket.cookie)) continue;
    ++cut;
    Record(model::FlowAction::kCut, model::FlowPath::kKernel, tuple, flow, *forbidden);
    Say(Event::Level::kWarning, "connection cut", {{"connection", tuple.ToString()}, {"pod", *found.pod}, {"why", DecidedBy(*forbidden)}});
  }
  return cut;
}

void Broker::WatchMemory(const RegionRecord& region) {
  if (region.last_pod[0] == region.last_pod[1]) return;  // within one pod: no policy's business
  ForsakenMemory memory{region.memory->Memory(), region.last_pod, region.pid, region.last_tuple, region.last_flow};
  if (region.revoked_why.empty()) {
    if (PodOf(region.last_pod[0]) != nullptr && PodOf(region.last_pod[1]) != nullptr) watch_.AddLeft(std::move(memory));
    return;
  }
  watch_.AddRevoked(std::move(memory), region.revoked_why);
}

// A shim gives its channels back to an agent when it connects. So the line is ended: it connects again at its next chance.
void Broker::AskAgainWhoCameEarly() {
  std::vector<SessionId> early;
  for (const auto& [id, session] : sessions_) {
    if (session.came_early) early.push_back(id);
  }
  for (const SessionId id : early) {
    ShimLink* link = SessionOf(id)->link;
    Disconnected(id);
    link->Close();
  }
}

std::uint32_t Broker::Reevaluate(const model::Affected& affected) {
  AskAgainWhoCameEarly();
  const std::uint32_t channels = CutChannels(affected);
  const auto forbids = [this](const Tuple& tuple, const model::Flow& flow) -> std::optional<std::string> {
    const auto forbidden = Forbidden(tuple, flow);
    return forbidden ? std::optional(DecidedBy(*forbidden)) : std::nullopt;
  };
  table_.RetireUnused(forbids);
  watch_.Judge(forbids);
  return channels + CutKernelConnections(affected);
}

void Broker::RemovePod(const std::string& uid, const std::string& why) {
  PodRuntime* pod = PodOf(uid);
  if (pod == nullptr) return;
  std::vector<ChannelId> channels;
  for (const auto& [id, channel] : table_.All()) {
    if (channel->end[0].pod == uid || channel->end[1].pod == uid) channels.push_back(id);
  }
  for (const ChannelId id : channels) Cut(table_.ById(id), why, false);
  for (const TcpSocket& socket : pod->sockets->Connections()) {
    const auto& ips = pod->pod.ips;
    if (!socket.tuple.local.address.IsLoopback() && std::find(ips.begin(), ips.end(), socket.tuple.local.address) != ips.end()) {
      DestroySocket(uid, socket.tuple, socket.cookie);
    }
  }
  const std::set<SessionId> sessions = pod->sessions;
  for (const SessionId session : sessions) {
    ShimLink* link = SessionOf(session)->link;
    Disconnected(session);
    link->Close();
  }
  for (const ChannelId id : channels) {
    for (std::uint32_t side = 0; side < 2; ++side) {
      Channel* channel = table_.ById(id);
      if (channel != nullptr && channel->end[side].pod == uid) ReleaseEnd(channel, side);
    }
  }
  SetBandwidth(uid, {});
  std::erase_if(over_limit_until_, [&](const auto& entry) { return entry.first.first == uid || entry.first.second == uid; });
  pods_.erase(uid);
  watch_.ForgetLeftBy(uid);
}

}  // namespace vsocket::broker
