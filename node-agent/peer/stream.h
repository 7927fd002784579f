// One gRPC stream between two agents, made or taken: messages are written in order, one is read when it is asked for.
//
// Only peer/ sees this header. Thread safety: the methods of a stream from any thread. StreamEvents are called on gRPC's threads, one at a
// time for a stream; they must not block.
#pragma once

#include <grpcpp/grpcpp.h>
#include <vsocket/v1/peer.grpc.pb.h>

#include <cstddef>
#include <memory>
#include <string>

#include "base/result.h"
#include "node-agent/peer/identity.h"
#include "node-agent/peer/messages.h"

namespace vsocket::peer {

// Reading pauses when the peer leaves so many messages unread, and goes on when it has read most of them.
inline constexpr std::size_t kHighWater = 256;
inline constexpr std::size_t kLowWater = 32;

class Stream {
 public:
  virtual ~Stream() = default;
  virtual void Write(const Message& message) = 0;
  // The next message is wanted. At most one call before its OnMessage.
  virtual void ReadOn() = 0;
  // Ends it when everything has been written.
  virtual void Finish() = 0;
  // Ends it now.
  virtual void Cancel() = 0;
  [[nodiscard]] virtual std::size_t Backlog() const = 0;  // messages that are not written yet
};

class StreamEvents {
 public:
  virtual ~StreamEvents() = default;
  // The far agent's certificate, once it is known: for a made stream when the far agent has answered.
  virtual void OnIdentity(const NodeIdentity& identity) = 0;
  virtual void OnMessage(Result<Message, std::string> message) = 0;
  // The backlog has fallen to kLowWater after it was at kHighWater.
  virtual void OnDrained() = 0;
  // Last call; `why`: gRPC's words, empty when the far side ended it in good order. `last` keeps the stream, and with it a channel of
  // gRPC's, which must not be let go of on a thread of gRPC's: to end its threads it would wait for itself.
  virtual void OnEnd(const std::string& why, std::shared_ptr<Stream> last) = 0;
};

// Calls the agent at "ADDRESS:PORT". The events hold what they need themselves.
std::shared_ptr<Stream> Dial(const std::string& endpoint, const std::shared_ptr<grpc::ChannelCredentials>& credentials,
                             const std::string& trust_domain, std::shared_ptr<StreamEvents> events);

// Takes streams: one server, whose every call is offered to `accept`.
class Listener {
 public:
  // What to do with a stream from the node whose certificate it is. Called on gRPC's threads. nullptr: end it.
  using AcceptStream = std::function<std::shared_ptr<StreamEvents>(const NodeIdentity& identity, std::shared_ptr<Stream> stream)>;

  // "ADDRESS:PORT"; port 0: one that is free. The error says why it cannot be had.
  static Result<std::unique_ptr<Listener>, std::string> Start(const std::string& address,
                                                              const std::shared_ptr<grpc::ServerCredentials>& credentials,
                                                              const std::string& trust_domain, AcceptStream accept);
  virtual ~Listener() = default;
  [[nodiscard]] virtual std::uint16_t Port() const = 0;
  // Ends every stream; waits for it.
  virtual void Stop() = 0;
};

}  // namespace vsocket::peer
