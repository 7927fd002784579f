#include "node-agent/peer/convert.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

namespace vsocket::peer {
namespace {

constexpr std::uint32_t kMaxHeartbeatMs = 60'000;
constexpr std::uint32_t kMaxRetryMs = 3'600'000;

using Error = Failure<std::string>;

// A field that does not hold ends the conversion; the first one is what is reported.
class Checks {
 public:
  void Require(bool holds, const char* field) {
    if (!holds && field_ == nullptr) field_ = field;
  }
  // Printable, because it comes to be in logs and on terminals; UTF-8 beyond ASCII is let through (protobuf has checked it).
  std::string Text(const std::string& text, std::size_t longest, const char* field) {
    const bool printable = std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f; });
    Require(text.size() <= longest && printable, field);
    return text;
  }
  std::string Name(const std::string& text, const char* field, std::size_t longest = kMaxNameBytes) {
    Require(!text.empty(), field);
    return Text(text, longest, field);
  }
  std::string Data(const std::string& bytes, std::size_t longest, const char* field) {
    Require(bytes.size() <= longest, field);
    return bytes;
  }
  std::uint64_t Number(std::uint64_t number, const char* field) {
    Require(number != 0, field);
    return number;
  }
  // A reason of a newer agent is still a reason.
  channel::Reason Reason(std::uint32_t number, const char* field) {
    Require(number != 0 && number <= 0xffff, field);
    return static_cast<channel::Reason>(number);
  }
  model::SocketAddress Address(const v1::SocketAddress& from, const char* field) {
    model::SocketAddress address;
    Require(from.port() >= 1 && from.port() <= 65535, field);
    address.port = static_cast<std::uint16_t>(from.port());
    if (from.ip().size() == 4) {
      std::array<std::uint8_t, 4> bytes{};
      std::memcpy(bytes.data(), from.ip().data(), bytes.size());
      address.ip = model::IpAddress::V4(bytes);
    } else if (from.ip().size() == 16) {
      std::array<std::uint8_t, 16> bytes{};
      std::memcpy(bytes.data(), from.ip().data(), bytes.size());
      address.ip = model::IpAddress::V6(bytes);
    } else {
      Require(false, field);
    }
    // A connection that is said to stay within a pod has no business here.
    Require(!address.ip.IsLoopback(), field);
    return address;
  }
  [[nodiscard]] const char* Failed() const { return field_; }

 private:
  const char* field_ = nullptr;
};

model::PeerEnd EndFrom(const v1::End& from, Checks& checks) {
  model::PeerEnd end;
  end.pod = checks.Name(from.pod(), "end.pod", kMaxPodBytes);
  const auto slash = end.pod.find('/');
  checks.Require(
      slash != std::string::npos && slash != 0 && slash + 1 != end.pod.size() && end.pod.find('/', slash + 1) == std::string::npos,
      "end.pod");
  end.pod_uid = checks.Text(from.pod_uid(), kMaxNameBytes, "end.pod_uid");
  end.netns_cookie = checks.Number(from.netns_cookie(), "end.netns_cookie");
  end.socket_cookie = checks.Number(from.socket_cookie(), "end.socket_cookie");
  end.socket.local = checks.Address(from.local(), "end.local");
  end.socket.remote = checks.Address(from.remote(), "end.remote");
  end.wire.local = from.has_wire_local() ? checks.Address(from.wire_local(), "end.wire_local") : end.socket.local;
  end.wire.remote = from.has_wire_remote() ? checks.Address(from.wire_remote(), "end.wire_remote") : end.socket.remote;
  checks.Require(end.wire.local.ip.IsV4() == end.wire.remote.ip.IsV4(), "end.wire_remote");
  end.listens = from.listens();
  end.bytes_acked = from.bytes_acked();
  end.bytes_received = from.bytes_received();
  return end;
}

Hello From(const v1::Hello& from, Checks& checks) {
  Hello hello;
  hello.min_version = from.min_version();
  hello.max_version = from.max_version();
  checks.Require(from.min_version() >= 1 && from.min_version() <= from.max_version(), "hello.max_version");
  hello.node = checks.Name(from.node(), "hello.node");
  hello.instance = checks.Number(from.instance(), "hello.instance");
  hello.agent_version = checks.Text(from.agent_version(), kMaxNameBytes, "hello.agent_version");
  hello.heartbeat_ms = from.heartbeat_ms();
  checks.Require(from.heartbeat_ms() >= 1 && from.heartbeat_ms() <= kMaxHeartbeatMs, "hello.heartbeat_ms");
  checks.Require(static_cast<std::size_t>(from.transports_size()) <= kMaxTransports, "hello.transports");
  if (checks.Failed() != nullptr) return hello;
  for (const std::string& transport : from.transports()) hello.transports.push_back(checks.Name(transport, "hello.transports"));
  return hello;
}

Note From(const v1::Note& from, Checks& checks) {
  Note note;
  note.channel = checks.Number(from.channel(), "note.channel");
  checks.Require(from.kind() >= v1::Note::KIND_EOF_QUESTION && from.kind() <= v1::Note::KIND_BELL, "note.kind");
  note.note.kind = static_cast<model::PeerNote::Kind>(from.kind());
  note.note.generation = from.generation();
  note.note.position = from.position();
  note.note.detail = from.detail();
  return note;
}

Resume From(const v1::Resume& from, Checks& checks) {
  Resume resume;
  checks.Require(static_cast<std::size_t>(from.channels_size()) <= kMaxResumed, "resume.channels");
  if (checks.Failed() == nullptr) resume.channels.assign(from.channels().begin(), from.channels().end());
  return resume;
}

Accept From(const v1::Accept& from, Checks& checks) {
  Accept accept;
  accept.channel = checks.Number(from.channel(), "accept.channel");
  accept.own_offer = checks.Number(from.own_offer(), "accept.own_offer");
  accept.other_offer = checks.Number(from.other_offer(), "accept.other_offer");
  accept.transport = checks.Name(from.transport(), "accept.transport");
  accept.setup = checks.Data(from.setup(), model::kMaxSetupBytes, "accept.setup");
  return accept;
}

Goodbye From(const v1::Goodbye& from, Checks& checks) {
  // A farewell that this version does not know is still one.
  const auto why = from.why() <= kLastFarewell ? static_cast<Farewell>(from.why()) : Farewell::kNone;
  return {why, checks.Text(from.text(), kMaxTextBytes, "goodbye.text")};
}

std::optional<Message> Kind(const v1::PeerMessage& from, Checks& checks) {
  using v1::PeerMessage;
  switch (from.kind_case()) {
    case PeerMessage::kHello:
      return From(from.hello(), checks);
    case PeerMessage::kGoodbye:
      return From(from.goodbye(), checks);
    case PeerMessage::kHeartbeat:
      return Heartbeat{from.heartbeat().number()};
    case PeerMessage::kLink:
      return LinkSetup{checks.Name(from.link().transport(), "link.transport"),
                       checks.Data(from.link().data(), model::kMaxLinkBytes, "link.data")};
    case PeerMessage::kOffer:
      return Offer{checks.Number(from.offer().offer(), "offer.offer"), EndFrom(from.offer().end(), checks)};
    case PeerMessage::kWithdraw:
      return Withdraw{checks.Number(from.withdraw().offer(), "withdraw.offer")};
    case PeerMessage::kRefuse:
      checks.Require(from.refuse().retry_after_ms() <= kMaxRetryMs, "refuse.retry_after_ms");
      return Refuse{checks.Number(from.refuse().offer(), "refuse.offer"), checks.Reason(from.refuse().reason(), "refuse.reason"),
                    checks.Text(from.refuse().text(), kMaxTextBytes, "refuse.text"), from.refuse().retry_after_ms()};
    case PeerMessage::kAccept:
      return From(from.accept(), checks);
    case PeerMessage::kCommit:
      return Commit{checks.Number(from.commit().channel(), "commit.channel")};
    case PeerMessage::kAbort:
      return Abort{checks.Number(from.abort().channel(), "abort.channel"), checks.Reason(from.abort().reason(), "abort.reason"),
                   checks.Text(from.abort().text(), kMaxTextBytes, "abort.text")};
    case PeerMessage::kClose:
      return Close{checks.Number(from.close().channel(), "close.channel"), checks.Reason(from.close().reason(), "close.reason")};
    case PeerMessage::kNote:
      return From(from.note(), checks);
    case PeerMessage::kResume:
      return From(from.resume(), checks);
    case PeerMessage::KIND_NOT_SET:
      break;
  }
  return std::nullopt;
}

void To(const model::SocketAddress& address, v1::SocketAddress* out) {
  out->set_ip(address.ip.Bytes().data(), address.ip.IsV4() ? 4 : 16);
  out->set_port(address.port);
}

void To(const model::PeerEnd& end, v1::End* out) {
  out->set_pod(end.pod);
  out->set_pod_uid(end.pod_uid);
  out->set_netns_cookie(end.netns_cookie);
  out->set_socket_cookie(end.socket_cookie);
  To(end.socket.local, out->mutable_local());
  To(end.socket.remote, out->mutable_remote());
  if (end.wire.local != end.socket.local) To(end.wire.local, out->mutable_wire_local());
  if (end.wire.remote != end.socket.remote) To(end.wire.remote, out->mutable_wire_remote());
  out->set_listens(end.listens);
  out->set_bytes_acked(end.bytes_acked);
  out->set_bytes_received(end.bytes_received);
}

// Ours may quote what is longer than what we would take. Not within a character of UTF-8: protobuf would refuse the whole message.
std::string Shortened(const std::string& text) {
  if (text.size() <= kMaxTextBytes) return text;
  std::size_t end = kMaxTextBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
  return text.substr(0, end);
}

void To(const Hello& message, v1::PeerMessage* out) {
  v1::Hello* hello = out->mutable_hello();
  hello->set_min_version(message.min_version);
  hello->set_max_version(message.max_version);
  hello->set_node(message.node);
  hello->set_instance(message.instance);
  hello->set_agent_version(message.agent_version);
  hello->set_heartbeat_ms(message.heartbeat_ms);
  for (const std::string& transport : message.transports) hello->add_transports(transport);
}
void To(const Goodbye& message, v1::PeerMessage* out) {
  out->mutable_goodbye()->set_why(static_cast<std::uint32_t>(message.why));
  out->mutable_goodbye()->set_text(Shortened(message.text));
}
void To(const Heartbeat& message, v1::PeerMessage* out) {
  out->mutable_heartbeat()->set_number(message.number);
}
void To(const LinkSetup& message, v1::PeerMessage* out) {
  out->mutable_link()->set_transport(message.transport);
  out->mutable_link()->set_data(message.data);
}
void To(const Offer& message, v1::PeerMessage* out) {
  out->mutable_offer()->set_offer(message.offer);
  To(message.end, out->mutable_offer()->mutable_end());
}
void To(const Withdraw& message, v1::PeerMessage* out) {
  out->mutable_withdraw()->set_offer(message.offer);
}
void To(const Refuse& message, v1::PeerMessage* out) {
  v1::Refuse* refuse = out->mutable_refuse();
  refuse->set_offer(message.offer);
  refuse->set_reason(static_cast<std::uint32_t>(message.reason));
  refuse->set_text(Shortened(message.text));
  refuse->set_retry_after_ms(message.retry_after_ms);
}
void To(const Accept& message, v1::PeerMessage* out) {
  v1::Accept* accept = out->mutable_accept();
  accept->set_channel(message.channel);
  accept->set_own_offer(message.own_offer);
  accept->set_other_offer(message.other_offer);
  accept->set_transport(message.transport);
  accept->set_setup(message.setup);
}
void To(const Commit& message, v1::PeerMessage* out) {
  out->mutable_commit()->set_channel(message.channel);
}
void To(const Abort& message, v1::PeerMessage* out) {
  out->mutable_abort()->set_channel(message.channel);
  out->mutable_abort()->set_reason(static_cast<std::uint32_t>(message.reason));
  out->mutable_abort()->set_text(Shortened(message.text));
}
void To(const Close& message, v1::PeerMessage* out) {
  out->mutable_close()->set_channel(message.channel);
  out->mutable_close()->set_reason(static_cast<std::uint32_t>(message.reason));
}
void To(const Note& message, v1::PeerMessage* out) {
  v1::Note* note = out->mutable_note();
  note->set_channel(message.channel);
  note->set_kind(static_cast<v1::Note::Kind>(message.note.kind));
  note->set_generation(message.note.generation);
  note->set_position(message.note.position);
  note->set_detail(message.note.detail);
}
void To(const Resume& message, v1::PeerMessage* out) {
  for (const std::uint64_t channel : message.channels) out->mutable_resume()->add_channels(channel);
  out->mutable_resume();
}

}  // namespace

Result<Message, std::string> FromProto(const v1::PeerMessage& from) {
  Checks checks;
  auto message = Kind(from, checks);
  if (!message) return Error("a message of no kind that this version knows");
  if (checks.Failed() != nullptr) return Error(std::string(checks.Failed()) + " is out of its bounds");
  return std::move(*message);
}

v1::PeerMessage ToProto(const Message& message) {
  v1::PeerMessage out;
  std::visit([&](const auto& one) { To(one, &out); }, message);
  return out;
}

}  // namespace vsocket::peer
