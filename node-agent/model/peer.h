// Channels whose two ends are on different nodes, as the agent's other parts and peer/ speak of them: the ends as their kernels verified
// them, what is agreed, and who is asked what.
//
// Thread safety: plain values; the interfaces say whose thread calls.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "channel/reason.h"
#include "node-agent/model/ip_address.h"

namespace vsocket::model {

struct SocketAddress {
  IpAddress ip;
  std::uint16_t port = 0;  // host byte order
  auto operator<=>(const SocketAddress&) const = default;
};

// Both addresses of one end.
struct AddressPair {
  SocketAddress local, remote;
  auto operator<=>(const AddressPair&) const = default;
  [[nodiscard]] AddressPair Mirror() const { return {remote, local}; }
};

// One end of a connection, as the kernel of its node showed it to its agent.
struct PeerEnd {
  std::string pod;  // "ns/name"
  std::string pod_uid;
  std::uint64_t netns_cookie = 0;   // SO_NETNS_COOKIE: with socket_cookie, which socket of that node
  std::uint64_t socket_cookie = 0;  // SO_COOKIE
  AddressPair socket;               // as the socket has them; the remote one may be a Service's
  AddressPair wire;                 // as packets have them between the nodes: by this node's connection tracking, else the same
  // Evidence of who opened the connection (broker/direction.h).
  bool listens = false;
  std::uint64_t bytes_acked = 0, bytes_received = 0;
  bool operator==(const PeerEnd&) const = default;
};

// Which channel of which pair of nodes. The number is chosen by one of the two and known to both.
struct PeerChannel {
  std::string node;  // the other one
  std::uint64_t number = 0;
  auto operator<=>(const PeerChannel&) const = default;
};

struct PeerNote {
  enum class Kind : std::uint8_t { kEofQuestion = 1, kEofAnswer = 2, kConsumed = 3, kLeave = 4, kBell = 5 };
  Kind kind = Kind::kEofQuestion;
  std::uint32_t generation = 0;
  std::uint64_t position = 0;  // kEofAnswer, kConsumed: of the stream
  std::uint32_t detail = 0;    // kEofAnswer: channel::EofAnswer
  bool operator==(const PeerNote&) const = default;
};

// Where an address belongs, by the cluster's state.
struct PodPlace {
  std::string node;
  std::string pod;  // "ns/name"
  bool operator==(const PodPlace&) const = default;
};

inline constexpr std::uint16_t kDefaultPeerPort = 9810;  // where agents listen for each other

// A node with an agent that can be spoken to.
struct NodeAgent {
  std::string node;
  std::string endpoint;              // "ADDRESS:PORT" of its agent
  std::vector<IpAddress> addresses;  // the node's own, where packets of its pods may seem to come from
  bool operator==(const NodeAgent&) const = default;
};

// Why an end stays on TCP, for now.
struct PeerRefusal {
  channel::Reason reason = channel::Reason::kNone;
  std::string text;                  // for the log; may quote the other agent
  std::uint32_t retry_after_ms = 0;  // 0: whenever it likes
};

// What peer/ asks of the agent: policy, memory and transport. Called on peer/'s thread, never re-entrantly; must not block.
class PeerHost {
 public:
  virtual ~PeerHost() = default;

  // May this node's pod, whose end is `own`, have this connection? Each agent judges its own pod's direction only. nullopt: it may.
  virtual std::optional<PeerRefusal> Judge(const PeerEnd& own, const PeerEnd& far) = 0;

  // Both ends are here: makes this side of the channel and gives what the far side's transport must know of it (at most
  // kMaxSetupBytes). `far_setup` is there on the side that is asked second; its side must be able to take what the far one sends as soon as
  // this has returned. nullopt: it cannot be had, and `*why` is set.
  virtual std::optional<std::string> Prepare(const PeerChannel& channel, const PeerEnd& own, const PeerEnd& far,
                                             const std::string& transport, const std::string* far_setup, PeerRefusal* why) = 0;
  // On the side that was asked first: what the other has answered. False: it is no use; Closed follows.
  virtual bool Complete(const PeerChannel& channel, const std::string& far_setup) = 0;
  // Both sides are open: the pod's end may be told.
  virtual void Granted(const PeerChannel& channel) = 0;
  // After Prepare, once: the channel is over, or never came to be. The end may be offered again.
  virtual void Closed(const PeerChannel& channel, const PeerRefusal& why) = 0;
  // An offered end will not become a channel.
  virtual void Refused(const PeerEnd& own, const PeerRefusal& why) = 0;
  virtual void Noted(const PeerChannel& channel, const PeerNote& note) = 0;

  // The far agent can be spoken to (`transport`: what both have in common and like best; empty: nothing), or no more. Channels that are in
  // use go on without it for a while.
  virtual void PeerUp(const std::string& node, std::uint64_t instance, const std::string& transport) = 0;
  virtual void PeerDown(const std::string& node, const std::string& why) = 0;
  virtual void LinkSetup(const std::string& node, const std::string& transport, const std::string& data) = 0;
};

inline constexpr std::size_t kMaxSetupBytes = 1024;
inline constexpr std::size_t kMaxLinkBytes = 16384;

// What the agent's other parts ask of peer/. Every method from any thread; what follows comes by PeerHost, later and on its thread.
class PeerLinks {
 public:
  virtual ~PeerLinks() = default;
  // This end waits for its other end, on another node, until Granted, Refused or Closed, or it is taken back. An earlier wish of the same
  // socket is taken back, a channel that it has is closed.
  virtual void Ask(const PeerEnd& end) = 0;
  virtual void TakeBack(std::uint64_t netns_cookie, std::uint64_t socket_cookie) = 0;
  // Closed follows.
  virtual void CloseChannel(const PeerChannel& channel, channel::Reason reason) = 0;
  virtual void Send(const PeerChannel& channel, const PeerNote& note) = 0;
  // To the counterpart of the transport that PeerUp named; dropped when there is none. At most kMaxLinkBytes.
  virtual void SendLink(const std::string& node, const std::string& data) = 0;
  // Policies or pods have changed: everything is judged again.
  virtual void Reconsider() = 0;
};

// A peer as vsocketctl shows it.
struct PeerInfo {
  std::string node;
  std::string endpoint;
  std::string state;  // "connected", "connecting", "waiting", in words for people
  std::string why;    // of the last end, or of what stands in the way; empty: nothing
  std::string version;
  std::string transport;
  std::uint64_t instance = 0;
  std::uint32_t offers = 0, channels = 0;
  std::uint64_t sessions = 0;  // since start
};

}  // namespace vsocket::model
