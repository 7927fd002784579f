// The conversation with one far agent on one stream: who it says it is, which version, whether it is alive. Pure: no gRPC, no clock.
//
//   kGreeting  waits for the far Hello (the listener answers it with its own)
//   kOpen      messages of Agreement pass in both directions
//   kClosed    nothing passes any more
//
// Liveness is this protocol's own: a queue pair does not notice a peer that is stopped (its device goes on acknowledging), and TCP does
// not notice one that is cut off for many minutes. Each side is heard at least every heartbeat_ms, or is dead.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "node-agent/peer/messages.h"

namespace vsocket::peer {

struct SessionOptions {
  std::string node;  // this one
  std::uint64_t instance = 0;
  std::string agent_version;
  std::uint32_t min_version = kPeerProtocol, max_version = kPeerProtocol;
  std::vector<std::string> transports;  // best first
  std::uint32_t heartbeat_ms = 500;
  // How long the far side may say nothing; at least four of its heartbeats.
  std::uint64_t silence_ns = 3'000'000'000;
  std::uint64_t greeting_ns = 5'000'000'000;  // how long its Hello may take
};

// What the two have settled.
struct Terms {
  std::uint32_t version = 0;
  std::uint64_t far_instance = 0;
  std::string far_version;  // of its program, for people
  std::string transport;    // in common; the caller's order decides; empty: none
};

class SessionSink {
 public:
  virtual ~SessionSink() = default;
  virtual void Send(const Message& message) = 0;
  virtual void Opened(const Terms& terms) = 0;
  // Of kOpen, and neither Hello, Goodbye nor Heartbeat. False: it breaks the protocol, for the reason given.
  [[nodiscard]] virtual bool Deliver(const Message& message, std::string* why) = 0;
  // The stream is to be ended after what was sent. Last call.
  virtual void Ended(Farewell why, const std::string& text) = 0;
};

class Session {
 public:
  enum class Role : std::uint8_t { kCaller, kListener };
  enum class State : std::uint8_t { kGreeting, kOpen, kClosed };

  // `far_node`: as its certificate says. The caller's Hello is sent at once.
  Session(Role role, const SessionOptions& options, std::string far_node, SessionSink& sink, std::uint64_t now_ns);

  void Receive(const Message& message, std::uint64_t now_ns);
  // What came was no message: `why` for the log.
  void ReceivedGarbage(const std::string& why);
  void Tick(std::uint64_t now_ns);
  [[nodiscard]] std::uint64_t NextTick() const;
  // Says goodbye to the far side.
  void End(Farewell why, const std::string& text);
  // The stream broke: nothing can be said any more.
  void Broken(const std::string& why);

  [[nodiscard]] State GetState() const { return state_; }
  [[nodiscard]] const Terms& GetTerms() const { return terms_; }

 private:
  void Greet(const Hello& hello, std::uint64_t now_ns);
  [[nodiscard]] Hello OwnHello() const;
  void Close(Farewell why, const std::string& text);

  const Role role_;
  const SessionOptions options_;
  const std::string far_node_;
  SessionSink& sink_;
  State state_ = State::kGreeting;
  Terms terms_;
  std::uint64_t heard_ns_;
  std::uint64_t silence_ns_;
  std::uint64_t next_heartbeat_ns_ = 0;
  std::uint64_t heartbeats_ = 0;
};

}  // namespace vsocket::peer
