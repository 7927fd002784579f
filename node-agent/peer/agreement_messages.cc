// What the far agent says, and what follows from it.
#include <algorithm>
#include <utility>

#include "node-agent/peer/agreement.h"

namespace vsocket::peer {

using channel::Reason;
using model::PeerChannel;
using model::PeerEnd;
using model::PeerRefusal;

namespace {

constexpr std::uint32_t kRetryMs = 1000;
constexpr std::uint32_t kRetryUnknownMs = 2000;  // the two agents do not learn of a pod at the same moment

bool Breach(std::string* why, const char* what) {
  *why = what;
  return false;
}

}  // namespace

// Whether the end is the far node's to offer. Its own kernel's word for the addresses is taken only as far as the cluster's state agrees.
std::optional<PeerRefusal> Agreement::Objection(const std::string& node, const PeerEnd& end) const {
  const auto far = where_.PodAt(end.socket.local.ip);
  if (!far || far->node != node || far->pod != end.pod) {
    return PeerRefusal{Reason::kUnknownPod, end.socket.local.ip.ToString() + " is not known to be pod " + end.pod + " on node " + node,
                       kRetryUnknownMs};
  }
  if (end.wire.local.ip != end.socket.local.ip && !where_.IsAddressOf(node, end.wire.local.ip)) {
    return PeerRefusal{Reason::kNotPodAddress, end.wire.local.ip.ToString() + " is not an address of node " + node, 0};
  }
  const auto near = where_.PodAt(end.wire.remote.ip);
  const bool ours = near ? near->node == node_ : where_.IsAddressOf(node_, end.wire.remote.ip);
  if (!ours) return PeerRefusal{Reason::kUnknownPod, end.wire.remote.ip.ToString() + " is not on node " + node_, kRetryUnknownMs};
  return std::nullopt;
}

bool Agreement::On(const std::string& node, Peer& peer, const Offer& offer, std::uint64_t now_ns, std::string* why) {
  if (offer.offer <= peer.last_far_offer) return Breach(why, "an offer with an old number");
  peer.last_far_offer = offer.offer;
  ++counters_.offers_received;
  const auto refuse = [&](std::uint64_t& counter, const PeerRefusal& refusal) {
    ++counter;
    out_.SendTo(node, Refuse{offer.offer, refusal.reason, refusal.text, refusal.retry_after_ms});
    return true;
  };
  if (peer.offers.size() >= limits_.offers_per_peer) {
    return refuse(counters_.refused_flood, {Reason::kQuota, "too many ends wait", kRetryMs});
  }
  if (const auto objection = Objection(node, offer.end)) return refuse(counters_.refused_foreign, *objection);
  if (peer.taken.contains(SocketOf(offer.end)) || peer.taken_wire.contains(offer.end.wire)) {
    return refuse(counters_.refused_double, {Reason::kBadRequest, "the connection or its socket is offered or in use already", kRetryMs});
  }
  peer.taken.insert(SocketOf(offer.end));
  peer.taken_wire.insert(offer.end.wire);
  peer.by_wire[offer.end.wire] = offer.offer;
  peer.offers.emplace(offer.offer, offer.end);
  if (const auto own = own_by_wire_.find({node, offer.end.wire.Mirror()}); own != own_by_wire_.end()) {
    TryMatch(node, peer, own->second, now_ns);
  }
  return true;
}

void Agreement::TryMatch(const std::string& node, Peer& peer, std::uint64_t offer, std::uint64_t now_ns) {
  if (!Leads(node)) return;  // the other will say so
  const auto own = own_.find(offer);
  if (own == own_.end()) return;
  const auto far = peer.by_wire.find(own->second.end.wire.Mirror());
  if (far != peer.by_wire.end()) Begin(node, peer, offer, far->second, now_ns);
}

void Agreement::Begin(const std::string& node, Peer& peer, std::uint64_t own_offer, std::uint64_t far_offer, std::uint64_t now_ns) {
  Channel channel;
  channel.own = own_.at(own_offer).end;
  channel.far = peer.offers.at(far_offer);
  channel.own_offer = own_offer;
  channel.far_offer = far_offer;
  channel.deadline_ns = now_ns + limits_.answer_ns;
  DropOwn(own_offer);
  DropFar(peer, far_offer);
  const auto deny = [&](const PeerRefusal& why) {
    out_.SendTo(node, Refuse{far_offer, why.reason, why.text, why.retry_after_ms});
    out_.SendTo(node, Withdraw{own_offer});
    host_.Refused(channel.own, why);
  };
  if (peer.channels.size() >= limits_.channels_per_peer) {
    return deny({Reason::kQuota, "too many channels between the two nodes", kRetryMs});
  }
  // The cluster may have changed since the offer came.
  if (const auto objection = Objection(node, channel.far)) return deny(*objection);
  if (const auto forbidden = host_.Judge(channel.own, channel.far)) {
    ++counters_.denied;
    return deny(*forbidden);
  }
  const std::uint64_t number = ++peer.last_channel;
  PeerRefusal why{Reason::kNoMemory, "", kRetryMs};
  const auto setup = host_.Prepare({node, number}, channel.own, channel.far, peer.terms.transport, nullptr, &why);
  if (!setup) return deny(why);
  Add(node, peer, number, std::move(channel));
  out_.SendTo(node, Accept{number, own_offer, far_offer, peer.terms.transport, *setup});
}

bool Agreement::On(const std::string& node, Peer& peer, const Withdraw& withdraw, std::uint64_t, std::string* why) {
  if (withdraw.offer > peer.last_far_offer) return Breach(why, "a withdrawal of what was not offered");
  static_cast<void>(node);
  DropFar(peer, withdraw.offer);
  return true;
}

bool Agreement::On(const std::string& node, Peer&, const Refuse& refuse, std::uint64_t, std::string* why) {
  if (refuse.offer > last_offer_) return Breach(why, "a refusal of what was not offered");
  const auto own = own_.find(refuse.offer);
  if (own == own_.end() || own->second.node != node) return true;  // it was withdrawn, or is another's to refuse
  const PeerEnd end = own->second.end;
  DropOwn(refuse.offer);
  host_.Refused(end, {refuse.reason, "node " + node + ": " + refuse.text, refuse.retry_after_ms});
  return true;
}

bool Agreement::On(const std::string& node, Peer& peer, const Accept& accept, std::uint64_t now_ns, std::string* why) {
  if (accept.transport != peer.terms.transport) return Breach(why, "an acceptance by another transport");
  return Leads(node) ? OnAnswer(node, peer, accept, why) : OnFirstAccept(node, peer, accept, now_ns, why);
}

bool Agreement::OnFirstAccept(const std::string& node, Peer& peer, const Accept& accept, std::uint64_t now_ns, std::string* why) {
  if (accept.channel <= peer.last_channel) return Breach(why, "a channel with an old number");
  const auto far = peer.offers.find(accept.own_offer);
  if (far == peer.offers.end()) return Breach(why, "an acceptance without an offer");
  if (accept.other_offer > last_offer_) return Breach(why, "an acceptance of what was not offered");
  peer.last_channel = accept.channel;
  const PeerChannel name{node, accept.channel};
  Channel channel;
  channel.state = Channel::State::kAnswered;
  channel.far = far->second;
  channel.far_offer = accept.own_offer;
  channel.own_offer = accept.other_offer;
  channel.deadline_ns = now_ns + limits_.answer_ns;
  const auto own = own_.find(accept.other_offer);
  if (own == own_.end()) {
    DropFar(peer, accept.own_offer);
    out_.SendTo(node, Abort{accept.channel, Reason::kPeerSilent, "the other end has been withdrawn"});
    return true;
  }
  if (own->second.node != node || own->second.end.wire != channel.far.wire.Mirror()) {
    return Breach(why, "an acceptance of two ends that are not one connection");
  }
  channel.own = own->second.end;
  DropOwn(accept.other_offer);
  DropFar(peer, accept.own_offer);
  const auto abort = [&](const PeerRefusal& refusal) {
    out_.SendTo(node, Abort{accept.channel, refusal.reason, refusal.text});
    host_.Refused(channel.own, refusal);
    return true;
  };
  if (peer.channels.size() >= limits_.channels_per_peer) {
    return abort({Reason::kQuota, "too many channels between the two nodes", kRetryMs});
  }
  if (const auto objection = Objection(node, channel.far)) return abort(*objection);
  if (const auto forbidden = host_.Judge(channel.own, channel.far)) {
    ++counters_.denied;
    return abort(*forbidden);
  }
  PeerRefusal refusal{Reason::kNoMemory, "", kRetryMs};
  const auto setup = host_.Prepare(name, channel.own, channel.far, accept.transport, &accept.setup, &refusal);
  if (!setup) return abort(refusal);
  Add(node, peer, accept.channel, std::move(channel));
  out_.SendTo(node, Accept{accept.channel, accept.other_offer, accept.own_offer, accept.transport, *setup});
  return true;
}

bool Agreement::OnAnswer(const std::string& node, Peer& peer, const Accept& accept, std::string* why) {
  Channels::iterator at;
  if (!Find(peer, accept.channel, &at, why)) return false;
  if (at == peer.channels.end()) return true;  // this side has aborted, and the other will hear of it
  Channel& channel = at->second;
  if (channel.state != Channel::State::kAccepted) return Breach(why, "a second answer");
  if (accept.own_offer != channel.far_offer || accept.other_offer != channel.own_offer)
    return Breach(why, "an answer to another acceptance");
  const PeerChannel name{node, accept.channel};
  if (!host_.Complete(name, accept.setup)) {
    out_.SendTo(node, Abort{accept.channel, Reason::kPeerBroke, "the set-up is no use"});
    End(node, peer, at, {Reason::kPeerBroke, "the set-up of node " + node + " is no use", kRetryMs});
    return true;
  }
  channel.state = Channel::State::kOpen;
  ++counters_.granted;
  out_.SendTo(node, Commit{accept.channel});
  host_.Granted(name);
  return true;
}

bool Agreement::Find(Peer& peer, std::uint64_t number, Channels::iterator* at, std::string* why) {
  if (number > peer.last_channel) return Breach(why, "a channel that never was");
  *at = peer.channels.find(number);
  return true;
}

bool Agreement::On(const std::string& node, Peer& peer, const Commit& commit, std::uint64_t, std::string* why) {
  if (Leads(node)) return Breach(why, "a commit to the one who commits");
  Channels::iterator at;
  if (!Find(peer, commit.channel, &at, why)) return false;
  if (at == peer.channels.end()) {
    out_.SendTo(node, Close{commit.channel, Reason::kClosing});
    return true;
  }
  if (at->second.state != Channel::State::kAnswered) return Breach(why, "a second commit");
  at->second.state = Channel::State::kOpen;
  ++counters_.granted;
  host_.Granted({node, commit.channel});
  return true;
}

bool Agreement::On(const std::string& node, Peer& peer, const Abort& abort, std::uint64_t, std::string* why) {
  Channels::iterator at;
  if (!Find(peer, abort.channel, &at, why)) return false;
  if (at != peer.channels.end()) End(node, peer, at, {abort.reason, "node " + node + ": " + abort.text, kRetryMs});
  return true;
}

bool Agreement::On(const std::string& node, Peer& peer, const Close& close, std::uint64_t, std::string* why) {
  Channels::iterator at;
  if (!Find(peer, close.channel, &at, why)) return false;
  if (at != peer.channels.end()) End(node, peer, at, {close.reason, "closed by node " + node, 0});
  return true;
}

bool Agreement::On(const std::string& node, Peer& peer, const Note& note, std::uint64_t, std::string* why) {
  Channels::iterator at;
  if (!Find(peer, note.channel, &at, why)) return false;
  if (at == peer.channels.end()) return true;
  if (at->second.state != Channel::State::kOpen) return Breach(why, "a note on a channel that is not in use");
  host_.Noted({node, note.channel}, note.note);
  return true;
}

bool Agreement::On(const std::string& node, Peer& peer, const LinkSetup& link, std::uint64_t, std::string* why) {
  if (link.transport != peer.terms.transport) return Breach(why, "a link of another transport");
  host_.LinkSetup(node, link.transport, link.data);
  return true;
}

bool Agreement::On(const std::string& node, Peer& peer, const Resume& resume, std::uint64_t, std::string* why) {
  if (peer.resumed) return Breach(why, "a second Resume");
  peer.resumed = true;
  const std::set<std::uint64_t> theirs(resume.channels.begin(), resume.channels.end());
  for (auto at = peer.channels.begin(); at != peer.channels.end();) {
    // All are of an earlier stream: none begins before both sides have said Resume.
    if (theirs.contains(at->first)) {
      ++at;
    } else {
      at = End(node, peer, at, {Reason::kNoPeer, "the agent of node " + node + " does not know the channel any more", kRetryMs});
    }
  }
  for (const std::uint64_t number : theirs) {
    if (!peer.channels.contains(number)) out_.SendTo(node, Close{number, Reason::kNoPeer});
  }
  return true;
}

}  // namespace vsocket::peer
