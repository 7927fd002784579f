// The agents of other nodes: found by the directory, called or waited for, spoken to as long as they live, called again when they are gone.
//
// Of two nodes the one with the smaller name calls. Each pair has one stream; a new one from the same node takes the place of the old.
// gRPC, TLS and threads stay inside.
//
// Thread safety: every method from any thread. PeerHost is called on this object's own thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "node-agent/model/peer.h"
#include "node-agent/peer/agreement.h"
#include "node-agent/peer/directory.h"

namespace vsocket::peer {

struct PeersOptions {
  std::string node;                                    // this one
  std::string trust_domain;                            // of the cluster: "cluster.local"
  std::string listen;                                  // "ADDRESS:PORT"; port 0: one that is free
  std::string certificate_file, key_file, roots_file;  // PEM; read anew when they change
  std::string agent_version;
  std::uint64_t instance = 0;           // random at each start, not 0
  std::vector<std::string> transports;  // best first
  std::uint32_t min_version = kPeerProtocol, max_version = kPeerProtocol;
  std::uint32_t heartbeat_ms = 500;
  std::uint32_t silence_ms = 3000;  // how long a peer may say nothing
  std::uint32_t first_retry_ms = 200, longest_retry_ms = 30'000;
  AgreementLimits limits;
  // A line for the log: what has come up, gone, been refused. On several threads.
  std::function<void(const std::string& line)> say;
};

struct PeersCounters {
  AgreementCounters agreement;
  std::uint64_t dials = 0, sessions = 0;
  std::uint64_t refused_certificates = 0;
  std::uint64_t breaches = 0;  // sessions ended because the far agent broke the protocol
  std::uint64_t pauses = 0;    // a peer was not read from, because it left answers unread
  std::uint32_t connected = 0;
};

class Peers final : public model::PeerLinks {
 public:
  // Listens at once; nobody is known before SetCluster. `host` outlives it. The error: the address cannot be had. Certificates that are
  // missing or wrong are no error: they may come, and until then nobody can be spoken to.
  static Result<std::unique_ptr<Peers>, std::string> Start(PeersOptions options, model::PeerHost& host);
  // Says goodbye to everybody. PeerHost is not called any more when it returns.
  ~Peers() override;

  void SetCluster(Directory directory);

  void Ask(const model::PeerEnd& end) override;
  void TakeBack(std::uint64_t netns_cookie, std::uint64_t socket_cookie) override;
  void CloseChannel(const model::PeerChannel& channel, channel::Reason reason) override;
  void Send(const model::PeerChannel& channel, const model::PeerNote& note) override;
  void SendLink(const std::string& node, const std::string& data) override;
  void Reconsider() override;

  [[nodiscard]] std::vector<model::PeerInfo> List() const;
  [[nodiscard]] PeersCounters Counters() const;
  [[nodiscard]] std::uint16_t Port() const;

 private:
  class Impl;
  explicit Peers(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vsocket::peer
