// How two agents come to agree on channels: which offered ends are two ends of one connection, whether both allow it, who says what, and
// what becomes of it when either side, or the stream between them, goes. Pure: messages and calls in, messages and calls out.
//
// The agent whose node's name is smaller leads the pair: only it accepts first, and it numbers the channels.
//
// What a far agent may make this one do is bounded by what its node could do anyway:
//   - an end that it offers must be of a pod that the cluster's state puts on its node, and be connected to one of this node;
//   - it must not be an end, nor have a socket, that is offered or in a channel already;
//   - a channel comes to be only with an end that this node's own pod has asked for, whose kernel named the same two addresses, and which
//     this agent's own judgement allows. So an agent can harm connections between pods of the two nodes, and no others;
//   - offers and channels are counted against limits.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/model/peer.h"
#include "node-agent/peer/messages.h"
#include "node-agent/peer/session.h"

namespace vsocket::peer {

struct AgreementLimits {
  std::size_t offers_per_peer = 4096;        // of the far agent's
  std::size_t channels_per_peer = 4096;      // beginning and in use
  std::uint64_t answer_ns = 5'000'000'000;   // how long an acceptance waits for what must follow
  std::uint64_t resume_ns = 10'000'000'000;  // how long channels in use go on with no stream to the far agent
};

struct AgreementCounters {
  std::uint64_t offers_sent = 0, offers_received = 0;
  std::uint64_t refused_flood = 0;    // offers beyond the limit
  std::uint64_t refused_foreign = 0;  // offers of ends that are not the far node's to offer
  std::uint64_t refused_double = 0;   // offers of an end, or a socket, that is taken
  std::uint64_t granted = 0, aborted = 0, closed = 0;
  std::uint64_t denied = 0;  // matches that this side's policy did not allow
};

// Where pods and nodes are, by the cluster's state.
class Whereabouts {
 public:
  virtual ~Whereabouts() = default;
  [[nodiscard]] virtual std::optional<model::PodPlace> PodAt(const model::IpAddress& ip) const = 0;
  [[nodiscard]] virtual bool IsAddressOf(const std::string& node, const model::IpAddress& ip) const = 0;
};

class Outgoing {
 public:
  virtual ~Outgoing() = default;
  virtual void SendTo(const std::string& node, const Message& message) = 0;
};

class Agreement {
 public:
  Agreement(std::string node, const AgreementLimits& limits, const Whereabouts& where, model::PeerHost& host, Outgoing& out);

  // --- this node's ends ---
  // The end waits for its other end until it is granted, refused or withdrawn. A refusal that is known at once is returned, and nothing
  // else follows. An earlier offer of the same socket is withdrawn.
  std::optional<model::PeerRefusal> Ask(const model::PeerEnd& end, std::uint64_t now_ns);
  // It does not wait any more, or its channel is over.
  void TakeBack(std::uint64_t netns_cookie, std::uint64_t socket_cookie);
  void CloseChannel(const model::PeerChannel& channel, channel::Reason reason);
  void Send(const model::PeerChannel& channel, const model::PeerNote& note);
  void SendLink(const std::string& node, const std::string& data);
  // Policy or pods have changed: channels that would not be agreed on now are closed.
  void Reconsider();

  // --- streams ---
  void SessionOpened(const std::string& node, const Terms& terms);
  void SessionLost(const std::string& node, const std::string& why, std::uint64_t now_ns);
  // False: the far agent breaks the protocol, and the stream must end.
  [[nodiscard]] bool Receive(const std::string& node, const Message& message, std::uint64_t now_ns, std::string* why);

  void Tick(std::uint64_t now_ns);
  [[nodiscard]] std::uint64_t NextTick();  // UINT64_MAX: never by itself

  [[nodiscard]] const AgreementCounters& Counters() const { return counters_; }
  [[nodiscard]] std::size_t OffersOf(const std::string& node) const;    // the far agent's that wait here
  [[nodiscard]] std::size_t ChannelsOf(const std::string& node) const;  // beginning and in use
  [[nodiscard]] std::size_t Waiting() const { return own_.size(); }     // this node's ends

 private:
  using Socket = std::pair<std::uint64_t, std::uint64_t>;  // netns cookie, socket cookie
  static Socket SocketOf(const model::PeerEnd& end) { return {end.netns_cookie, end.socket_cookie}; }

  struct Own {
    std::string node;  // of the other end
    model::PeerEnd end;
  };
  struct Channel {
    enum class State : std::uint8_t { kAccepted, kAnswered, kOpen };  // the leader waits; the other waits; in use
    State state = State::kAccepted;
    model::PeerEnd own, far;
    std::uint64_t own_offer = 0, far_offer = 0;
    std::uint64_t deadline_ns = 0;  // not of kOpen
  };
  struct Peer {
    bool up = false;
    bool resumed = false;  // the far agent's Resume has come
    Terms terms;
    std::uint64_t known_instance = 0;  // of the agent that the channels were agreed on with
    std::uint64_t lost_ns = 0;
    std::uint64_t last_far_offer = 0;
    std::uint64_t last_channel = 0;  // the leader's last number, whoever leads
    std::map<std::uint64_t, model::PeerEnd> offers;
    std::map<model::AddressPair, std::uint64_t> by_wire;
    std::set<Socket> taken;  // far sockets of offers and channels
    std::set<model::AddressPair> taken_wire;
    std::map<std::uint64_t, Channel> channels;
  };
  using Channels = std::map<std::uint64_t, Channel>;

  [[nodiscard]] bool Leads(const std::string& far_node) const { return node_ < far_node; }
  void OfferTo(const std::string& node, std::uint64_t offer);
  void TryMatch(const std::string& node, Peer& peer, std::uint64_t offer, std::uint64_t now_ns);
  void Begin(const std::string& node, Peer& peer, std::uint64_t own_offer, std::uint64_t far_offer, std::uint64_t now_ns);
  [[nodiscard]] std::optional<model::PeerRefusal> Objection(const std::string& node, const model::PeerEnd& end) const;
  // The channel, if it still waits for an answer.
  Channel* Waits(const model::PeerChannel& channel);
  void DropOwn(std::uint64_t offer);
  void DropFar(Peer& peer, std::uint64_t offer);
  void Release(Peer& peer, const model::PeerEnd& far);
  void Add(const std::string& node, Peer& peer, std::uint64_t number, Channel channel);
  // Gives the iterator behind it. The channel's own end is told by PeerHost::Closed.
  Channels::iterator End(const std::string& node, Peer& peer, Channels::iterator at, const model::PeerRefusal& why);
  void Remember(Own own);

  // Of a far message. False with `*why`: a breach.
  bool On(const std::string& node, Peer& peer, const Offer& offer, std::uint64_t now_ns, std::string* why);
  bool On(const std::string& node, Peer& peer, const Withdraw& withdraw, std::uint64_t now_ns, std::string* why);
  bool On(const std::string& node, Peer& peer, const Refuse& refuse, std::uint64_t now_ns, std::string* why);
  bool On(const std::string& node, Peer& peer, const Accept& accept, std::uint64_t now_ns, std::string* why);
  bool On(const std::string& node, Peer& peer, const Commit& commit, std::uint64_t now_ns, std::string* why);
  bool On(const std::string& node, Peer& peer, const Abort& abort, std::uint64_t now_ns, std::string* why);
  bool On(const std::string& node, Peer& peer, const Close& close, std::uint64_t now_ns, std::string* why);
  bool On(const std::string& node, Peer& peer, const Note& note, std::uint64_t now_ns, std::string* why);
  bool On(const std::string& node, Peer& peer, const LinkSetup& link, std::uint64_t now_ns, std::string* why);
  bool On(const std::string& node, Peer& peer, const Resume& resume, std::uint64_t now_ns, std::string* why);
  bool OnFirstAccept(const std::string& node, Peer& peer, const Accept& accept, std::uint64_t now_ns, std::string* why);
  bool OnAnswer(const std::string& node, Peer& peer, const Accept& accept, std::string* why);
  // The channel that a message is about: end() when it is over already, which is no breach. False: it never was.
  bool Find(Peer& peer, std::uint64_t number, Channels::iterator* at, std::string* why);

  const std::string node_;
  const AgreementLimits limits_;
  const Whereabouts& where_;
  model::PeerHost& host_;
  Outgoing& out_;

  std::uint64_t last_offer_ = 0;
  std::map<std::uint64_t, Own> own_;  // that wait; by the offer's number
  std::map<Socket, std::uint64_t> own_by_socket_;
  std::map<std::pair<std::string, model::AddressPair>, std::uint64_t> own_by_wire_;
  std::map<std::string, Peer> peers_;
  std::map<Socket, model::PeerChannel> channel_by_own_socket_;
  // Whose answers are waited for, soonest first: all wait equally long. May hold channels that wait no more.
  std::deque<std::pair<std::uint64_t, model::PeerChannel>> deadlines_;
  AgreementCounters counters_;
};

}  // namespace vsocket::peer
