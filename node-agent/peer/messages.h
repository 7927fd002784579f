// The messages of proto/vsocket/v1/peer.proto as plain values whose bounds have been checked (convert.h).
//
// Thread safety: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "channel/reason.h"
#include "node-agent/model/peer.h"

namespace vsocket::peer {

inline constexpr std::uint32_t kPeerProtocol = 1;

inline constexpr std::size_t kMaxNameBytes = 253;  // of a node, a transport, a version
inline constexpr std::size_t kMaxPodBytes = 2 * 253 + 1;
inline constexpr std::size_t kMaxTextBytes = 1024;
inline constexpr std::size_t kMaxTransports = 8;
inline constexpr std::size_t kMaxResumed = 8192;
inline constexpr std::size_t kMaxMessageBytes = 128 * 1024;  // serialised; Resume is the largest

// Why a stream is ended on purpose. Numbers cross versions: append only.
enum class Farewell : std::uint32_t {
  kNone = 0,
  kEnding = 1,         // the agent ends
  kVersion = 2,        // no version in common
  kWrongNode = 3,      // Hello names another node than the certificate
  kBrokeProtocol = 4,  // the other side did
  kSilent = 5,         // nothing was heard for too long
  kReplaced = 6,       // another stream has taken its place
  kExpired = 7,        // the other side's certificate has run out meanwhile
  kUnknownNode = 8,    // no such node is in the cluster
  kOverwhelmed = 9,    // the other side does not read what it is sent
};
inline constexpr std::uint32_t kLastFarewell = 9;

struct Hello {
  std::uint32_t min_version = kPeerProtocol, max_version = kPeerProtocol;
  std::string node;
  std::uint64_t instance = 0;
  std::string agent_version;
  std::uint32_t heartbeat_ms = 0;
  std::vector<std::string> transports;
  bool operator==(const Hello&) const = default;
};
struct Goodbye {
  Farewell why = Farewell::kNone;
  std::string text;
  bool operator==(const Goodbye&) const = default;
};
struct Heartbeat {
  std::uint64_t number = 0;
  bool operator==(const Heartbeat&) const = default;
};
struct LinkSetup {
  std::string transport, data;
  bool operator==(const LinkSetup&) const = default;
};
struct Offer {
  std::uint64_t offer = 0;
  model::PeerEnd end;
  bool operator==(const Offer&) const = default;
};
struct Withdraw {
  std::uint64_t offer = 0;
  bool operator==(const Withdraw&) const = default;
};
struct Refuse {
  std::uint64_t offer = 0;
  channel::Reason reason = channel::Reason::kNone;
  std::string text;
  std::uint32_t retry_after_ms = 0;
  bool operator==(const Refuse&) const = default;
};
struct Accept {
  std::uint64_t channel = 0, own_offer = 0, other_offer = 0;
  std::string transport, setup;
  bool operator==(const Accept&) const = default;
};
struct Commit {
  std::uint64_t channel = 0;
  bool operator==(const Commit&) const = default;
};
struct Abort {
  std::uint64_t channel = 0;
  channel::Reason reason = channel::Reason::kNone;
  std::string text;
  bool operator==(const Abort&) const = default;
};
struct Close {
  std::uint64_t channel = 0;
  channel::Reason reason = channel::Reason::kNone;
  bool operator==(const Close&) const = default;
};
struct Note {
  std::uint64_t channel = 0;
  model::PeerNote note;
  bool operator==(const Note&) const = default;
};
struct Resume {
  std::vector<std::uint64_t> channels;
  bool operator==(const Resume&) const = default;
};

using Message = std::variant<Hello, Goodbye, Heartbeat, LinkSetup, Offer, Withdraw, Refuse, Accept, Commit, Abort, Close, Note, Resume>;

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};

}  // namespace vsocket::peer
