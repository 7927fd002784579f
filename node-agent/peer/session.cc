#include "node-agent/peer/session.h"

#include <algorithm>
#include <utility>

namespace vsocket::peer {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kHeartbeatsOfSilence = 4;
// However slow a heartbeat the far side announces, it is not waited for longer.
constexpr std::uint64_t kLongestSilence = 15'000 * kMillisecond;

std::string Range(std::uint32_t min, std::uint32_t max) {
  return min == max ? std::to_string(min) : std::to_string(min) + " to " + std::to_string(max);
}

std::string InCommon(const std::vector<std::string>& callers, const std::vector<std::string>& listeners) {
  for (const std::string& transport : callers) {
    if (std::find(listeners.begin(), listeners.end(), transport) != listeners.end()) return transport;
  }
  return {};
}

}  // namespace

Session::Session(Role role, const SessionOptions& options, std::string far_node, SessionSink& sink, std::uint64_t now_ns)
    : role_(role), options_(options), far_node_(std::move(far_node)), sink_(sink), heard_ns_(now_ns), silence_ns_(options.greeting_ns) {
  if (role_ == Role::kCaller) sink_.Send(OwnHello());
}

Hello Session::OwnHello() const {
  Hello hello;
  hello.min_version = options_.min_version;
  hello.max_version = options_.max_version;
  hello.node = options_.node;
  hello.instance = options_.instance;
  hello.agent_version = options_.agent_version;
  hello.heartbeat_ms = options_.heartbeat_ms;
  hello.transports = options_.transports;
  return hello;
}

void Session::Receive(const Message& message, std::uint64_t now_ns) {
  if (state_ == State::kClosed) return;
  heard_ns_ = now_ns;
  if (const auto* goodbye = std::get_if<Goodbye>(&message)) return Close(goodbye->why, "the other agent says: " + goodbye->text);
  if (const auto* hello = std::get_if<Hello>(&message)) {
    if (state_ == State::kOpen) return End(Farewell::kBrokeProtocol, "a second Hello");
    return Greet(*hello, now_ns);
  }
  if (state_ == State::kGreeting) return End(Farewell::kBrokeProtocol, "a message before Hello");
  if (std::holds_alternative<Heartbeat>(message)) return;
  std::string why;
  if (!sink_.Deliver(message, &why)) End(Farewell::kBrokeProtocol, why);
}

void Session::ReceivedGarbage(const std::string& why) {
  if (state_ != State::kClosed) End(Farewell::kBrokeProtocol, why);
}

void Session::Greet(const Hello& hello, std::uint64_t now_ns) {
  if (hello.node != far_node_) {
    return End(Farewell::kWrongNode, "the certificate is that of node " + far_node_ + ", Hello that of " + hello.node);
  }
  terms_.version = std::min(options_.max_version, hello.max_version);
  if (terms_.version < options_.min_version || terms_.version < hello.min_version) {
    return End(Farewell::kVersion, "node " + options_.node + " speaks version " + Range(options_.min_version, options_.max_version) +
                                       " of the protocol, node " + far_node_ + " " + Range(hello.min_version, hello.max_version));
  }
  terms_.far_instance = hello.instance;
  terms_.far_version = hello.agent_version;
  terms_.transport =
      role_ == Role::kCaller ? InCommon(options_.transports, hello.transports) : InCommon(hello.transports, options_.transports);
  silence_ns_ = std::min(kLongestSilence, std::max(options_.silence_ns, kHeartbeatsOfSilence * hello.heartbeat_ms * kMillisecond));
  next_heartbeat_ns_ = now_ns + options_.heartbeat_ms * kMillisecond;
  state_ = State::kOpen;
  if (role_ == Role::kListener) sink_.Send(OwnHello());
  sink_.Opened(terms_);
}

void Session::Tick(std::uint64_t now_ns) {
  if (state_ == State::kClosed) return;
  if (now_ns >= heard_ns_ + silence_ns_) {
    const auto seconds = std::to_string((now_ns - heard_ns_) / (1000 * kMillisecond));
    return End(Farewell::kSilent, state_ == State::kGreeting ? "no Hello within " + seconds + " s" : "nothing heard for " + seconds + " s");
  }
  if (state_ == State::kOpen && now_ns >= next_heartbeat_ns_) {
    next_heartbeat_ns_ = now_ns + options_.heartbeat_ms * kMillisecond;
    sink_.Send(Heartbeat{++heartbeats_});
  }
}

std::uint64_t Session::NextTick() const {
  if (state_ == State::kClosed) return UINT64_MAX;
  const std::uint64_t dead = heard_ns_ + silence_ns_;
  return state_ == State::kOpen ? std::min(dead, next_heartbeat_ns_) : dead;
}

void Session::End(Farewell why, const std::string& text) {
  if (state_ == State::kClosed) return;
  sink_.Send(Goodbye{why, text});
  Close(why, text);
}

void Session::Broken(const std::string& why) {
  if (state_ != State::kClosed) Close(Farewell::kNone, why);
}

void Session::Close(Farewell why, const std::string& text) {
  state_ = State::kClosed;
  sink_.Ended(why, text);
}

}  // namespace vsocket::peer
