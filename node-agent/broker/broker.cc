#include "node-agent/broker/broker.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "node-agent/broker/loop.h"

namespace vsocket::broker {

using channel::MessageType;
using channel::Reason;

Broker::Broker(BrokerOptions options, std::unique_ptr<SocketProbe> probe, std::function<std::uint64_t()> clock, std::uint64_t instance)
    : options_(std::move(options)),
      probe_(std::move(probe)),
      clock_(std::move(clock)),
      instance_(instance),
      watch_(options_.revocation, options_.mappings, options_.events, MonotonicNow),
      table_(options_.quota, options_.lease_ns, options_.regions, [this](const RegionRecord& region) { WatchMemory(region); }) {
  watch_.Start();
}

Broker::~Broker() = default;

Broker::PodRuntime* Broker::PodOf(const std::string& uid) {
  const auto found = pods_.find(uid);
  return found == pods_.end() ? nullptr : &found->second;
}

Broker::PodRuntime* Broker::PodByAddress(const model::IpAddress& address) {
  for (auto& [uid, pod] : pods_) {
    if (std::find(pod.pod.ips.begin(), pod.pod.ips.end(), address) != pod.pod.ips.end()) return &pod;
  }
  return nullptr;
}

Broker::Session* Broker::SessionOf(SessionId id) {
  const auto found = sessions_.find(id);
  return found == sessions_.end() ? nullptr : &found->second;
}

ForeignFds* Broker::ForeignFdsOf(const std::string& pod_uid) {
  PodRuntime* pod = PodOf(pod_uid);
  return pod == nullptr ? nullptr : pod->foreign.get();
}

void Broker::Say(Event::Level level, std::string what, Event::Fields fields) const {
  if (options_.events) options_.events({level, std::move(what), std::move(fields)});
}

void Broker::Record(model::FlowAction action, model::FlowPath path, const Tuple& tuple, const model::Flow& flow,
                    const model::Verdict& verdict) {
  if (!options_.flows) return;
  model::FlowEvent event;
  event.action = action;
  event.path = path;
  event.flow = flow;
  const bool local_opened = flow.source == tuple.local.address && flow.destination_port == tuple.remote.port;
  event.source_port = (local_opened ? tuple.local : tuple.remote).port;
  event.source_pod = verdict.egress.pod;
  event.destination_pod = verdict.ingress.pod;
  event.egress = verdict.egress;
  event.ingress = verdict.ingress;
  event.reason = verdict.allowed ? "allowed on a ring" : DecidedBy(verdict);
  const PodRuntime* source = PodByAddress(flow.source);
  const PodRuntime* destination = PodByAddress(flow.destination);
  if (source != nullptr) event.source_uid = source->pod.uid;
  if (destination != nullptr) event.destination_uid = destination->pod.uid;
  const PodRuntime* seen = source != nullptr && (destination == nullptr || model::DecidedByEgress(event)) ? source : destination;
  if (seen != nullptr) event.pod = seen->pod.ns + "/" + seen->pod.name;
  options_.flows(std::move(event));
}

void Broker::AddPod(const model::LocalPod& pod, std::unique_ptr<PodSockets> sockets) {
  RemovePod(pod.uid, "replaced by a new sandbox");
  PodRuntime& runtime = pods_[pod.uid];
  runtime.pod = pod;
  runtime.sockets = std::move(sockets);
  runtime.foreign = std::make_unique<ForeignFds>();
}

SessionId Broker::Connect(const std::string& pod_uid, std::int32_t pid, std::uint64_t netns_inode, ShimLink* link, Reason* refusal) {
  PodRuntime* pod = PodOf(pod_uid);
  if (pod == nullptr || netns_inode != pod->pod.netns_inode) {
    // The directory of one pod was mounted into another, or a process outside the pod came by the socket.
    ++stats_.shims_refused;
    Say(Event::Level::kWarning, "process refused",
        {{"pod", pod_uid}, {"pid", std::to_string(pid)}, {"why", "it is not in the pod's network namespace"}});
    *refusal = Reason::kUnknownPod;
    return 0;
  }
  if (pod->sessions.size() >= options_.limits.processes_per_pod) {
    ++stats_.shims_refused;
    *refusal = Reason::kQuota;
    return 0;
  }
  Session session;
  session.id = next_session_++;
  session.pod = pod_uid;
  session.pid = pid;
  session.link = link;
  pod->sessions.insert(session.id);
  const SessionId id = session.id;
  sessions_.emplace(id, std::move(session));
  return id;
}

bool Broker::Receive(SessionId id, std::span<const std::byte> packet, std::span<UniqueFd> fds, bool truncated) {
  Session* session = SessionOf(id);
  if (session == nullptr) return false;
  const auto message = ParseShimMessage(packet, fds.size());
  if (!message) {
    if (message.Error() == ParseError::kFdCount && truncated) {
      // Not the shim's fault: the agent could not take the descriptors. Upgrade and Reattach have the cookie at the same place.
      channel::Upgrade request{};
      std::memcpy(&request, packet.data(), std::min(packet.size(), sizeof request));
      if (request.header.type != MessageType::kWakeOffer) Deny(id, request.cookie, Reason::kNoMemory, 1000);
      Say(Event::Level::kError, "out of file descriptors", {{"pod", session->pod}});
      return true;
    }
    if (message.Error() == ParseError::kVersion) {
      RejectWith(*session, Reason::kVersion);
      return false;
    }
    return ProtocolError(*session, ParseErrorText(message.Error()));
  }
  const bool is_hello = std::holds_alternative<channel::Hello>(message.Value());
  if (is_hello == session->greeted) return ProtocolError(*session, is_hello ? "a second HELLO" : "a request before HELLO");
  return std::visit([&](const auto& request) { return Handle(*session, request, fds); }, message.Value());
}

bool Broker::ProtocolError(Session& session, const char* what) {
  ++stats_.protocol_errors;
  Say(Event::Level::kWarning, "control protocol error", {{"pod", session.pod}, {"pid", std::to_string(session.pid)}, {"why", what}});
  return false;
}

void Broker::RejectWith(Session& session, Reason reason) {
  ++stats_.shims_refused;
  Say(Event::Level::kWarning, "process refused",
      {{"pod", session.pod}, {"pid", std::to_string(session.pid)}, {"why", channel::ReasonText(reason)}});
  channel::Reject reject{channel::HeaderOf(MessageType::kReject), static_cast<std::uint16_t>(reason), channel::kControlVersion,
                         channel::kControlVersion, 0};
  Send(session, reject);
}

template <typename Message>
void Broker::Send(Session& session, const Message& message, std::shared_ptr<const UniqueFd> fd) {
  session.link->Send(std::as_bytes(std::span(&message, 1)), std::move(fd));
}

void Broker::Deny(SessionId id, std::uint64_t cookie, Reason reason, std::uint32_t retry_after_ms) {
  ++stats_.denials[static_cast<std::size_t>(reason) % kReasonCount];
  Session* session = SessionOf(id);
  if (session == nullptr) return;
  Remember(*session, cookie, reason);
  Send(*session, channel::Deny{channel::HeaderOf(MessageType::kDeny), cookie, static_cast<std::uint16_t>(reason), 0, retry_after_ms});
}

void Broker::Grant(Channel* channel, std::uint32_t side) {
  const End& end = channel->end[side];
  Session* session = SessionOf(end.session);
  if (session == nullptr) return;
  session->notes.erase(end.cookie);
  // The memory goes with every grant: a shim unmaps a region with its last connection, and its RELEASE may be on the way right now.
  Send(*session, channel::Grant{channel::HeaderOf(MessageType::kGrant), end.cookie, channel->Ref(side), channel::kGrantHasMemory, 0},
       channel->region->memory->Memory());
}

void Broker::Remember(Session& session, std::uint64_t cookie, Reason reason) {
  const auto number = static_cast<std::uint16_t>(reason);
  const auto [entry, added] = session.notes.insert_or_assign(cookie, number);
  if (!added) return;
  session.note_order.push_back(cookie);
  if (session.note_order.size() > options_.limits.notes_per_process) {
    session.notes.erase(session.note_order.front());
    session.note_order.pop_front();
  }
}

bool Broker::Handle(Session& session, const channel::Hello& hello, std::span<UniqueFd>) {
  if (hello.layout_version != channel::kLayoutVersion) {
    RejectWith(session, Reason::kVersion);
    return false;
  }
  session.greeted = true;
  session.comm.assign(hello.comm, ::strnlen(hello.comm, sizeof hello.comm));
  // Shown in tables and logs: nothing that could move a terminal's cursor.
  std::replace_if(
      session.comm.begin(), session.comm.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  Send(session, channel::Welcome{channel::HeaderOf(MessageType::kWelcome), instance_});
  return true;
}

bool Broker::Handle(Session& session, const channel::Note& note, std::span<UniqueFd>) {
  Remember(session, note.cookie, static_cast<Reason>(note.reason));
  return true;
}

bool Broker::Handle(Session& session, const channel::Cancel& cancel, std::span<UniqueFd>) {
  const PendingEnd* pending = pending_.Find(cancel.cookie);
  if (pending != nullptr && pending->end.session == session.id) pending_.Remove(cancel.cookie);
  return true;
}

bool Broker::Handle(Session& session, const WakeOffer& offer, std::span<UniqueFd> fds) {
  RegionRecord* region = table_.RegionOf(session.id, offer.region_id);
  // An unknown region is no error: it may have been let go while the message was on its way.
  if (region == nullptr || region->owner[offer.side] != session.id) return true;
  if (!probe_->IsWakeSocket(fds[0].Get())) return ProtocolError(session, "a wake object that is no UNIX stream socket");
  ForeignFds* foreign = ForeignFdsOf(session.pod);
  if (foreign == nullptr) return true;
  auto wake_fd = foreign->Hold(std::move(fds[0]));
  if (!table_.OfferWake(region, offer.side, offer.index, session.pod, options_.limits.wake_fds_per_pod, std::move(wake_fd))) {
    Say(Event::Level::kWarning, "too many wake objects", {{"pod", session.pod}});
  }
  return true;
}

bool Broker::Handle(Session& session, const WakeWant& want, std::span<UniqueFd>) {
  channel::WakeRef answer = want;
  answer.header = channel::HeaderOf(MessageType::kWake);
  RegionRecord* region = table_.RegionOf(session.id, want.region_id);
  std::shared_ptr<const UniqueFd> wake_fd;
  if (region != nullptr && region->owner[1 - want.side] == session.id) wake_fd = region->wake[want.side][want.index];
  Send(session, answer, std::move(wake_fd));
  return true;
}

}  // namespace vsocket::broker
