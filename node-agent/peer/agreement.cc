#include "node-agent/peer/agreement.h"

#include <algorithm>
#include <utility>

namespace vsocket::peer {

using channel::Reason;
using model::PeerChannel;
using model::PeerEnd;
using model::PeerRefusal;

namespace {

constexpr std::uint32_t kRetryMs = 1000;  // after what can pass

}  // namespace

Agreement::Agreement(std::string node, const AgreementLimits& limits, const Whereabouts& where, model::PeerHost& host, Outgoing& out)
    : node_(std::move(node)), limits_(limits), where_(where), host_(host), out_(out) {}

std::size_t Agreement::OffersOf(const std::string& node) const {
  const auto peer = peers_.find(node);
  return peer == peers_.end() ? 0 : peer->second.offers.size();
}

std::size_t Agreement::ChannelsOf(const std::string& node) const {
  const auto peer = peers_.find(node);
  return peer == peers_.end() ? 0 : peer->second.channels.size();
}

// --- this node's ends ---

std::optional<PeerRefusal> Agreement::Ask(const PeerEnd& end, std::uint64_t now_ns) {
  TakeBack(end.netns_cookie, end.socket_cookie);
  const auto place = where_.PodAt(end.wire.remote.ip);
  if (!place) {
    const bool translated = end.wire != end.socket;
    return PeerRefusal{translated ? Reason::kNotPodAddress : Reason::kPeerSilent, end.wire.remote.ip.ToString() + " is no pod's", 0};
  }
  if (place->node == node_ || place->node.empty()) return PeerRefusal{Reason::kNotPodAddress, place->pod + " is not on another node", 0};
  // Two sockets cannot have one pair of addresses between two nodes: the older one is dead.
  if (const auto older = own_by_wire_.find({place->node, end.wire}); older != own_by_wire_.end()) {
    const PeerEnd dead = own_.at(older->second).end;
    TakeBack(dead.netns_cookie, dead.socket_cookie);
  }
  Peer& peer = peers_[place->node];
  if (peer.up && peer.terms.transport.empty()) {
    return PeerRefusal{Reason::kNoPeer, "no transport in common with node " + place->node, 0};
  }
  Remember({place->node, end});
  const std::uint64_t offer = last_offer_;
  if (peer.up) {
    OfferTo(place->node, offer);
    TryMatch(place->node, peer, offer, now_ns);
  }
  return std::nullopt;
}

void Agreement::Remember(Own own) {
  const std::uint64_t offer = ++last_offer_;
  own_by_socket_[SocketOf(own.end)] = offer;
  own_by_wire_[{own.node, own.end.wire}] = offer;
  own_.emplace(offer, std::move(own));
}

void Agreement::OfferTo(const std::string& node, std::uint64_t offer) {
  ++counters_.offers_sent;
  out_.SendTo(node, Offer{offer, own_.at(offer).end});
}

void Agreement::DropOwn(std::uint64_t offer) {
  const auto at = own_.find(offer);
  if (at == own_.end()) return;
  own_by_socket_.erase(SocketOf(at->second.end));
  own_by_wire_.erase({at->second.node, at->second.end.wire});
  own_.erase(at);
}

void Agreement::DropFar(Peer& peer, std::uint64_t offer) {
  const auto at = peer.offers.find(offer);
  if (at == peer.offers.end()) return;
  peer.by_wire.erase(at->second.wire);
  Release(peer, at->second);
  peer.offers.erase(at);
}

void Agreement::Release(Peer& peer, const PeerEnd& far) {
  peer.taken.erase(SocketOf(far));
  peer.taken_wire.erase(far.wire);
}

void Agreement::TakeBack(std::uint64_t netns_cookie, std::uint64_t socket_cookie) {
  const Socket socket{netns_cookie, socket_cookie};
  if (const auto waiting = own_by_socket_.find(socket); waiting != own_by_socket_.end()) {
    const std::uint64_t offer = waiting->second;
    const std::string node = own_.at(offer).node;
    DropOwn(offer);
    if (peers_[node].up) out_.SendTo(node, Withdraw{offer});
    return;
  }
  if (const auto held = channel_by_own_socket_.find(socket); held != channel_by_own_socket_.end()) {
    CloseChannel(PeerChannel(held->second), Reason::kClosing);
  }
}

void Agreement::CloseChannel(const PeerChannel& channel, Reason reason) {
  const auto peer = peers_.find(channel.node);
  if (peer == peers_.end()) return;
  const auto at = peer->second.channels.find(channel.number);
  if (at == peer->second.channels.end()) return;
  if (peer->second.up) out_.SendTo(channel.node, Close{channel.number, reason});
  End(channel.node, peer->second, at, {reason, "closed here", 0});
}

void Agreement::Send(const PeerChannel& channel, const model::PeerNote& note) {
  const auto peer = peers_.find(channel.node);
  if (peer == peers_.end() || !peer->second.up) return;
  const auto at = peer->second.channels.find(channel.number);
  if (at != peer->second.channels.end() && at->second.state == Channel::State::kOpen) out_.SendTo(channel.node, Note{channel.number, note});
}

void Agreement::SendLink(const std::string& node, const std::string& data) {
  const auto peer = peers_.find(node);
  if (peer != peers_.end() && peer->second.up) out_.SendTo(node, LinkSetup{peer->second.terms.transport, data});
}

void Agreement::Reconsider() {
  for (auto& [node, peer] : peers_) {
    for (auto at = peer.channels.begin(); at != peer.channels.end();) {
      auto why = Objection(node, at->second.far);
      if (!why) why = host_.Judge(at->second.own, at->second.far);
      if (!why) {
        ++at;
        continue;
      }
      if (peer.up) out_.SendTo(node, Close{at->first, Reason::kRevoked});
      at = End(node, peer, at, {Reason::kRevoked, why->text, why->retry_after_ms});
    }
  }
}

void Agreement::Add(const std::string& node, Peer& peer, std::uint64_t number, Channel channel) {
  peer.taken.insert(SocketOf(channel.far));
  peer.taken_wire.insert(channel.far.wire);
  channel_by_own_socket_[SocketOf(channel.own)] = {node, number};
  deadlines_.emplace_back(channel.deadline_ns, PeerChannel{node, number});
  peer.channels.emplace(number, std::move(channel));
}

Agreement::Channels::iterator Agreement::End(const std::string& node, Peer& peer, Channels::iterator at, const PeerRefusal& why) {
  const PeerChannel channel{node, at->first};
  ++(at->second.state == Channel::State::kOpen ? counters_.closed : counters_.aborted);
  Release(peer, at->second.far);
  channel_by_own_socket_.erase(SocketOf(at->second.own));
  const auto next = peer.channels.erase(at);
  host_.Closed(channel, why);
  return next;
}

// --- streams ---

void Agreement::SessionOpened(const std::string& node, const Terms& terms) {
  Peer& peer = peers_[node];
  if (peer.known_instance != terms.far_instance) {
    for (auto at = peer.channels.begin(); at != peer.channels.end();) {
      at = End(node, peer, at, {Reason::kNoPeer, "the agent of node " + node + " has been restarted", kRetryMs});
    }
    if (!Leads(node)) peer.last_channel = 0;  // it counts anew
  }
  peer.known_instance = terms.far_instance;
  peer.up = true;
  peer.resumed = false;
  peer.terms = terms;
  peer.last_far_offer = 0;
  Resume resume;
  for (const auto& [number, channel] : peer.channels) resume.channels.push_back(number);
  out_.SendTo(node, resume);
  host_.PeerUp(node, terms.far_instance, terms.transport);
  std::vector<std::uint64_t> waiting;
  for (const auto& [offer, own] : own_) {
    if (own.node == node) waiting.push_back(offer);
  }
  for (const std::uint64_t offer : waiting) {
    if (!terms.transport.empty()) {
      OfferTo(node, offer);
      continue;
    }
    const PeerEnd end = own_.at(offer).end;
    DropOwn(offer);
    host_.Refused(end, {Reason::kNoPeer, "no transport in common with node " + node, 0});
  }
}

void Agreement::SessionLost(const std::string& node, const std::string& why, std::uint64_t now_ns) {
  Peer& peer = peers_[node];
  if (!peer.up) return;
  peer.up = false;
  peer.lost_ns = now_ns;
  while (!peer.offers.empty()) DropFar(peer, peer.offers.begin()->first);
  for (auto at = peer.channels.begin(); at != peer.channels.end();) {
    if (at->second.state == Channel::State::kOpen) {
      ++at;
      continue;
    }
    at = End(node, peer, at, {Reason::kNoPeer, why, kRetryMs});
  }
  host_.PeerDown(node, why);
}

bool Agreement::Receive(const std::string& node, const Message& message, std::uint64_t now_ns, std::string* why) {
  Peer& peer = peers_[node];
  if (!peer.up) {
    *why = "a message without a session";
    return false;
  }
  if (!peer.resumed && !std::holds_alternative<Resume>(message)) {
    *why = "a message before Resume";
    return false;
  }
  return std::visit(
      [&](const auto& one) {
        if constexpr (requires { On(node, peer, one, now_ns, why); }) {
          return On(node, peer, one, now_ns, why);
        } else {
          *why = "a message of Session's";
          return false;
        }
      },
      message);
}

Agreement::Channel* Agreement::Waits(const PeerChannel& channel) {
  auto& channels = peers_[channel.node].channels;
  const auto at = channels.find(channel.number);
  return at == channels.end() || at->second.state == Channel::State::kOpen ? nullptr : &at->second;
}

void Agreement::Tick(std::uint64_t now_ns) {
  while (!deadlines_.empty() && now_ns >= deadlines_.front().first) {
    const auto [deadline_ns, name] = deadlines_.front();
    deadlines_.pop_front();
    const Channel* channel = Waits(name);
    if (channel == nullptr || channel->deadline_ns != deadline_ns) continue;
    Peer& peer = peers_[name.node];
    out_.SendTo(name.node, Abort{name.number, Reason::kNoPeer, "no answer in time"});
    End(name.node, peer, peer.channels.find(name.number),
        {Reason::kNoPeer, "the agent of node " + name.node + " does not answer", kRetryMs});
  }
  for (auto& [node, peer] : peers_) {
    // Only channels in use outlive a stream.
    if (peer.up || now_ns < peer.lost_ns + limits_.resume_ns) continue;
    for (auto at = peer.channels.begin(); at != peer.channels.end();) {
      at = End(node, peer, at, {Reason::kNoPeer, "the agent of node " + node + " has been away too long", kRetryMs});
    }
  }
}

std::uint64_t Agreement::NextTick() {
  while (!deadlines_.empty() && Waits(deadlines_.front().second) == nullptr) deadlines_.pop_front();
  std::uint64_t next = deadlines_.empty() ? UINT64_MAX : deadlines_.front().first;
  for (const auto& [node, peer] : peers_) {
    if (!peer.up && !peer.channels.empty()) next = std::min(next, peer.lost_ns + limits_.resume_ns);
  }
  return next;
}

}  // namespace vsocket::peer
