// Proof of the two ends of a connection, their match, and the grant.
#include <algorithm>
#include <utility>

#include "node-agent/broker/broker.h"
#include "node-agent/broker/direction.h"

namespace vsocket::broker {

using channel::Reason;

namespace {

// How long a shim shall wait before it asks again after what can pass.
constexpr std::uint32_t kRetryAfterQuotaMs = 1000;
constexpr std::uint32_t kRetryAfterPolicyMs = 5000;

}  // namespace

std::string DecidedBy(const model::Verdict& verdict) {
  return !verdict.egress.allowed ? "egress of " + verdict.egress.pod + ": " + verdict.egress.decided_by
                                 : "ingress of " + verdict.ingress.pod + ": " + verdict.ingress.decided_by;
}

Result<Broker::Proof, Reason> Broker::Prove(const Session& session, int fd, bool half_closed_too) {
  const PodRuntime* pod = PodOf(session.pod);
  if (pod == nullptr) return Failure(Reason::kUnknownPod);
  const auto socket = probe_->Read(fd);
  if (!socket) return Failure(socket.Error() == ProbeError::kNotTcp ? Reason::kBadRequest : Reason::kClosing);
  const TcpSocket& proved = socket.Value();
  if (proved.netns_cookie != pod->pod.netns_cookie) return Failure(Reason::kUnknownPod);
  const auto& ips = pod->pod.ips;
  if (!proved.tuple.local.address.IsLoopback() && std::find(ips.begin(), ips.end(), proved.tuple.local.address) == ips.end()) {
    return Failure(Reason::kNotPodAddress);
  }
  if (half_closed_too ? !IsLive(proved.state) : proved.state != kEstablished) return Failure(Reason::kClosing);
  End end;
  end.session = session.id;
  end.pod = session.pod;
  end.tuple = proved.tuple;
  end.netns_cookie = proved.netns_cookie;
  end.cookie = proved.cookie;
  return Proof{std::move(end), proved};
}

bool Broker::Handle(Session& session, const channel::Upgrade& upgrade, std::span<UniqueFd> fds) {
  ++stats_.requests;
  PodRuntime* pod = PodOf(session.pod);
  auto proof = Prove(session, fds[0].Get(), false);
  // At once: while the agent holds it, the program's close does not send the FIN.
  if (pod != nullptr) {
    if (pod->foreign->Backlog() > ForeignFds::kBacklogLimit) return ProtocolError(session, "descriptors that do not close");
    pod->foreign->Close(std::move(fds[0]));
  }
  if (!proof) {
    Deny(session.id, upgrade.cookie, proof.Error(), 0);
    return true;
  }
  End& end = proof->end;
  // Answers are matched by the cookie that the shim wrote: it must be the kernel's.
  if (end.cookie != upgrade.cookie) {
    Deny(session.id, upgrade.cookie, Reason::kBadRequest, 0);
    return true;
  }
  std::uint32_t side = 0;
  if (Channel* held = table_.ByCookie(end.cookie, &side); held != nullptr) {
    if (held->end[side].session != session.id && held->end[side].session != 0) {
      Deny(session.id, end.cookie, Reason::kSharedAcrossFork, 0);
      return true;
    }
    ReleaseEnd(held, side);  // it has come down, or it would not ask
  }
  if (const PendingEnd* other = pending_.Find(end.cookie); other != nullptr && other->end.session != session.id) {
    Deny(session.id, end.cookie, Reason::kSharedAcrossFork, 0);
    return true;
  }
  PendingEnd asker{std::move(proof->end), proof->socket};
  if (auto first = pending_.TakeMirrorOf(asker.end)) {
    pending_.Remove(asker.end.cookie);
    Match(std::move(*first), std::move(asker));
    return true;
  }
  if (pending_.OfSession(session.id) >= options_.limits.pending_per_process ||
      pending_.OfPod(session.pod) >= options_.limits.pending_per_pod) {
    Deny(session.id, asker.end.cookie, Reason::kQuota, kRetryAfterQuotaMs);
    return true;
  }
  Remember(session, asker.end.cookie, Reason::kPeerSilent);
  pending_.Add(std::move(asker));
  return true;
}

model::Flow Broker::JudgedFlow(const TcpSocket& first, const TcpSocket& second, PodRuntime* first_pod, PodRuntime* second_pod) {
  const auto evidence = [](const TcpSocket& socket, PodRuntime* pod) {
    EndEvidence found;
    found.counted = socket.cookie != 0;
    found.bytes_acked = socket.bytes_acked;
    found.bytes_received = socket.bytes_received;
    found.listens = pod != nullptr && pod->sockets->Listens(socket.tuple.local);
    return found;
  };
  return FlowOf(first.tuple, FirstEndOpened(first.tuple, evidence(first, first_pod), evidence(second, second_pod)));
}

std::optional<model::Verdict> Broker::Judge(const Tuple& tuple, const model::Flow& flow) const {
  // A pod may always talk to itself (its traffic never leaves the pod).
  if (tuple.StaysInNamespace() || !options_.verdict) return std::nullopt;
  return options_.verdict(flow);
}

std::optional<model::Verdict> Broker::Forbidden(const Tuple& tuple, const model::Flow& flow) const {
  auto verdict = Judge(tuple, flow);
  return !verdict || verdict->allowed ? std::nullopt : std::move(verdict);
}

void Broker::Match(PendingEnd first, PendingEnd second) {
  const auto deny_both = [&](Reason reason, std::uint32_t retry_after_ms) {
    Deny(first.end.session, first.end.cookie, reason, retry_after_ms);
    Deny(second.end.session, second.end.cookie, reason, retry_after_ms);
  };
  const Tuple& tuple = first.end.tuple;
  model::Flow flow = FlowOf(tuple, true);
  std::optional<model::Verdict> verdict;
  const bool same_pod = first.end.pod == second.end.pod;
  if (!same_pod) {
    flow = JudgedFlow(first.socket, second.socket, PodOf(first.end.pod), PodOf(second.end.pod));
    verdict = Judge(tuple, flow);
    if (verdict && !verdict->allowed) {
      Say(Event::Level::kInfo, "upgrade denied", {{"connection", tuple.ToString()}, {"why", DecidedBy(*verdict)}});
      Record(model::FlowAction::kDenied, model::FlowPath::kRing, tuple, flow, *verdict);
      return deny_both(Reason::kPolicy, kRetryAfterPolicyMs);
    }
  }
  if (const auto reason = same_pod ? std::nullopt : WhyNoRing(first.end.pod, second.end.pod))
    return deny_both(*reason, kRetryAfterPolicyMs);
  auto opened = table_.Open(first.end, second.end, clock_());
  if (!opened) {
    Say(Event::Level::kWarning, "upgrade denied", {{"connection", tuple.ToString()}, {"why", channel::ReasonText(opened.Error())}});
    return deny_both(opened.Error(), kRetryAfterQuotaMs);
  }
  Channel* channel = opened.Value();
  channel->flow = flow;
  ApplyBandwidth(channel, false);
  for (std::uint32_t side = 0; side < 2; ++side) {
    if (const Session* session = SessionOf(channel->end[side].session)) channel->region->pid[side] = session->pid;
  }
  ++stats_.upgrades;
  if (verdict) Record(model::FlowAction::kAllowed, model::FlowPath::kRing, tuple, flow, *verdict);
  Say(Event::Level::kDebug, "channel granted",
      {{"connection", tuple.ToString()}, {"pod", first.end.pod}, {"peer_pod", second.end.pod}, {"channel", std::to_string(channel->id)}});
  Grant(channel, 0);
  Grant(channel, 1);
  Schedule(clock_() + 1'000'000'000);
}

bool Broker::Handle(Session& session, const channel::Reattach& reattach, std::span<UniqueFd> fds) {
  PodRuntime* pod = PodOf(session.pod);
  auto proof = Prove(session, fds[0].Get(), true);
  if (pod != nullptr) {
    if (pod->foreign->Backlog() > ForeignFds::kBacklogLimit) return ProtocolError(session, "descriptors that do not close");
    pod->foreign->Close(std::move(fds[0]));
  }
  if (!proof || proof->end.cookie != reattach.cookie) {
    Deny(session.id, reattach.cookie, proof ? Reason::kBadRequest : proof.Error(), 0);
    return true;
  }
  std::uint32_t held_side = 0;
  if (const Channel* held = table_.ByCookie(proof->end.cookie, &held_side); held != nullptr) {
    const channel::ChannelRef known = held->Ref(held_side);
    if (known.region_id != reattach.channel.region_id || known.slot != reattach.channel.slot || held_side != reattach.channel.side) {
      Deny(session.id, reattach.cookie, Reason::kBadRequest, 0);
      return true;
    }
  }
  // With no policy known it is neither cut nor kept on a ring that could not be revoked for a reason: its lease ends, and it goes on by
  // TCP, where the rules that an earlier agent left in the kernel hold. Its shim is made to ask again once there is a policy (Reevaluate).
  const model::Flow any = FlowOf(proof->end.tuple, true);
  if (const auto forbidden = Forbidden(proof->end.tuple, any); forbidden && !forbidden->known) {
    session.came_early = true;
    Deny(session.id, reattach.cookie, Reason::kPolicy, kRetryAfterPolicyMs);
    return true;
  }
  auto adopted = table_.Adopt(proof->end, reattach.channel, std::move(fds[1]), clock_());
  if (!adopted) {
    Deny(session.id, reattach.cookie, adopted.Error(), 0);
    return true;
  }
  Channel* channel = adopted.Value();
  channel->region->pid[reattach.channel.side] = session.pid;
  pending_.Remove(proof->end.cookie);
  ++stats_.reattached;
  Schedule(clock_() + 1'000'000'000);
  if (channel->revoked) return true;
  // The policy may have changed while no agent was there. The kernel named both addresses, so one end is enough to ask.
  PodRuntime* remote_pod = PodByAddress(proof->end.tuple.remote.address);
  TcpSocket remote;
  remote.tuple = proof->end.tuple.Mirror();
  channel->flow = JudgedFlow(proof->socket, remote, pod, remote_pod);
  // Nothing is answered when all is well: the renewed lease says it.
  if (const auto forbidden = Forbidden(proof->end.tuple, channel->flow)) {
    Cut(channel, DecidedBy(*forbidden), true);
    Record(model::FlowAction::kCut, model::FlowPath::kRing, proof->end.tuple, channel->flow, *forbidden);
  } else {
    ApplyBandwidth(channel, true);
  }
  return true;
}

}  // namespace vsocket::broker
