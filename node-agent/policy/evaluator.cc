#include "node-agent/policy/evaluator.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "node-agent/policy/allow_list.h"
#include "node-agent/policy/compiled_policies.h"
#include "node-agent/policy/ports.h"

namespace vsocket::policy {
namespace {

constexpr std::size_t kNoPod = CompiledPolicies::kNoPod;

// One end of a flow as policies see it.
struct End {
  std::optional<model::IpAddress> address;  // nothing: judged by selectors alone
  std::size_t pod = kNoPod;
};

struct Target {
  std::uint16_t port;
  model::Protocol protocol;
};

std::string FullName(const model::Pod& pod) {
  return pod.ns + "/" + pod.name;
}

bool PeerMatches(const CompiledPolicies& compiled, const CompiledPeer& peer, const End& remote) {
  if (peer.block != nullptr) return remote.address && model::Contains(*peer.block, *remote.address);
  return remote.pod != kNoPod && compiled.InGroup(remote.pod, peer.group);
}

// The 1-based peer that matches, 0 for a rule that is open to everyone, nothing when none does.
std::optional<std::size_t> MatchingPeer(const CompiledPolicies& compiled, const CompiledRule& rule, const End& remote) {
  if (rule.peers.empty()) return 0;
  for (std::size_t i = 0; i < rule.peers.size(); ++i) {
    if (PeerMatches(compiled, rule.peers[i], remote)) return i + 1;
  }
  return std::nullopt;
}

// One direction: `self` is the pod that is judged, `remote` the other end, `target` the port at the destination of the two.
model::DirectionVerdict Judge(const CompiledPolicies& compiled, Direction direction, const End& self, const End& remote, Target target) {
  model::DirectionVerdict verdict;
  if (self.pod == kNoPod) {
    verdict.allowed = true;
    verdict.decided_by = "not a pod";
    return verdict;
  }
  verdict.pod = FullName(compiled.PodAt(self.pod));
  const auto& policies = compiled.Isolating(self.pod, direction);
  if (policies.empty()) {
    verdict.allowed = true;
    verdict.decided_by = "no policy selects the pod";
    return verdict;
  }
  const std::size_t destination_pod = direction == Direction::kIngress ? self.pod : remote.pod;
  const model::Pod* destination = destination_pod == kNoPod ? nullptr : &compiled.PodAt(destination_pod);
  for (const CompiledPolicy* policy : policies) {
    verdict.isolated_by.push_back(policy->name);
    if (verdict.allowed) continue;
    const auto& rules = policy->Rules(direction);
    for (std::size_t i = 0; i < rules.size() && !verdict.allowed; ++i) {
      if (!AnyPortMatches(*rules[i].source, target.protocol, target.port, destination)) continue;
      const auto peer = MatchingPeer(compiled, rules[i], remote);
      if (!peer) continue;
      verdict.allowed = true;
      verdict.decided_by = "policy " + policy->name + ", " + (direction == Direction::kIngress ? "ingress" : "egress") + " rule " +
                           std::to_string(i + 1) + ", " + (*peer == 0 ? "any peer" : "peer " + std::to_string(*peer));
    }
  }
  if (!verdict.allowed) verdict.decided_by = "no rule matches";
  return verdict;
}

model::Verdict AllowedBecause(const CompiledPolicies& compiled, const End& source, const End& destination, const std::string& why) {
  model::Verdict verdict{.allowed = true, .egress = {true, {}, {}, why}, .ingress = {true, {}, {}, why}};
  if (source.pod != kNoPod) verdict.egress.pod = FullName(compiled.PodAt(source.pod));
  if (destination.pod != kNoPod) verdict.ingress.pod = FullName(compiled.PodAt(destination.pod));
  return verdict;
}

model::Verdict JudgeBoth(const CompiledPolicies& compiled, const std::vector<model::IpAddress>& node_addresses, const End& source,
                         const End& destination, Target target) {
  if (source.pod != kNoPod && source.pod == destination.pod) {
    return AllowedBecause(compiled, source, destination, "a pod may always talk to itself");
  }
  model::Verdict verdict;
  verdict.egress = Judge(compiled, Direction::kEgress, source, destination, target);
  verdict.ingress = Judge(compiled, Direction::kIngress, destination, source, target);
  if (source.address && std::binary_search(node_addresses.begin(), node_addresses.end(), *source.address) && destination.pod != kNoPod) {
    verdict.ingress.allowed = true;
    verdict.ingress.decided_by = "the pod's own node is always allowed in";
  }
  verdict.allowed = verdict.egress.allowed && verdict.ingress.allowed;
  return verdict;
}

// "80", "http", each optionally with "/udp" and the like.
struct PortQuestion {
  std::optional<std::uint16_t> number;
  std::string name;
  std::optional<model::Protocol> protocol;
};

std::optional<PortQuestion> ParsePort(const std::string& text) {
  PortQuestion question;
  std::string port = text;
  if (const auto slash = text.find('/'); slash != std::string::npos) {
    port = text.substr(0, slash);
    std::string protocol = text.substr(slash + 1);
    for (char& c : protocol) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    if (protocol == "tcp") {
      question.protocol = model::Protocol::kTcp;
    } else if (protocol == "udp") {
      question.protocol = model::Protocol::kUdp;
    } else if (protocol == "sctp") {
      question.protocol = model::Protocol::kSctp;
    } else {
      return std::nullopt;
    }
  }
  if (port.empty()) return std::nullopt;
  if (port.find_first_not_of("0123456789") != std::string::npos) {
    question.name = port;
    return question;
  }
  std::uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || end != port.data() + port.size() || number == 0) return std::nullopt;
  question.number = number;
  return question;
}

Failure<model::ApiError> Fail(model::ApiErrorKind kind, std::string message) {
  return Failure<model::ApiError>({kind, std::move(message)});
}

std::string Qualified(const std::string& pod) {
  return pod.find('/') == std::string::npos ? "default/" + pod : pod;
}

// Addresses of one family for both ends, so that ipBlocks are asked about a flow that can exist; none when there is no such pair.
void PickAddresses(const model::Pod& source, const model::Pod& destination, End& from, End& to) {
  for (const model::IpAddress& a : source.ips) {
    for (const model::IpAddress& b : destination.ips) {
      if (a.IsV4() != b.IsV4()) continue;
      from.address = a;
      to.address = b;
      return;
    }
  }
}

}  // namespace

Evaluator::Evaluator(std::shared_ptr<const model::ClusterState> state, std::vector<model::IpAddress> node_addresses)
    : state_(std::move(state)), node_addresses_(std::move(node_addresses)) {
  std::sort(node_addresses_.begin(), node_addresses_.end());
  node_addresses_.erase(std::unique(node_addresses_.begin(), node_addresses_.end()), node_addresses_.end());
  compiled_ = std::make_unique<const CompiledPolicies>(*state_);
}

Evaluator::~Evaluator() = default;

model::Verdict Evaluator::Evaluate(const model::Flow& flow) const {
  const auto ends = [&](const model::IpAddress& address) {
    std::vector<End> claimants;
    for (const std::size_t pod : compiled_->PodsAt(address)) claimants.push_back({address, pod});
    if (claimants.empty()) claimants.push_back({address, kNoPod});
    return claimants;
  };
  const std::vector<End> sources = ends(flow.source), destinations = ends(flow.destination);
  if (flow.source.IsLoopback() || flow.destination.IsLoopback()) {
    return AllowedBecause(*compiled_, sources[0], destinations[0], "loopback");
  }
  if (flow.source == flow.destination) {
    return AllowedBecause(*compiled_, sources[0], destinations[0], "a pod may always talk to itself");
  }
  std::optional<model::Verdict> first;
  for (const End& source : sources) {
    for (const End& destination : destinations) {
      model::Verdict verdict = JudgeBoth(*compiled_, node_addresses_, source, destination, {flow.destination_port, flow.protocol});
      if (!verdict.allowed) return verdict;
      if (!first) first = std::move(verdict);
    }
  }
  return *std::move(first);
}

Result<model::Verdict, model::ApiError> Evaluator::Trace(const std::string& source_pod, const std::string& destination_pod,
                                                         const std::string& port) const {
  const std::string names[] = {Qualified(source_pod), Qualified(destination_pod)};
  std::size_t pods[2];
  for (int i = 0; i < 2; ++i) {
    pods[i] = compiled_->PodNamed(names[i]);
    if (pods[i] == kNoPod) return Fail(model::ApiErrorKind::kNotFound, "no pod " + names[i]);
    if (compiled_->PodAt(pods[i]).finished) return Fail(model::ApiErrorKind::kInvalid, "pod " + names[i] + " has finished");
  }
  const auto question = ParsePort(port);
  if (!question)
    return Fail(model::ApiErrorKind::kInvalid,
                "not a port: \"" + port + "\" (a number from 1 to 65535 or a name, then /tcp, /udp or /sctp if not TCP)");

  const model::Pod& source = compiled_->PodAt(pods[0]);
  const model::Pod& destination = compiled_->PodAt(pods[1]);
  Target target{question->number.value_or(0), question->protocol.value_or(model::Protocol::kTcp)};
  if (!question->number) {
    const auto named = std::find_if(destination.ports.begin(), destination.ports.end(), [&](const model::ContainerPort& offered) {
      return offered.name == question->name && (!question->protocol || offered.protocol == *question->protocol);
    });
    if (named == destination.ports.end()) {
      return Fail(model::ApiErrorKind::kNotFound, "pod " + names[1] + " has no port named " + question->name);
    }
    target = {named->number, named->protocol};
  }
  End from{std::nullopt, compiled_->InPodNetwork(pods[0]) ? pods[0] : kNoPod};
  End to{std::nullopt, compiled_->InPodNetwork(pods[1]) ? pods[1] : kNoPod};
  PickAddresses(source, destination, from, to);
  return JudgeBoth(*compiled_, node_addresses_, from, to, target);
}

PodIsolation Evaluator::Isolation(const std::string& pod) const {
  PodIsolation isolation;
  const std::size_t index = compiled_->PodNamed(Qualified(pod));
  if (index == kNoPod || !compiled_->InPodNetwork(index)) return isolation;
  for (const CompiledPolicy* policy : compiled_->Isolating(index, Direction::kIngress)) isolation.ingress_by.push_back(policy->name);
  for (const CompiledPolicy* policy : compiled_->Isolating(index, Direction::kEgress)) isolation.egress_by.push_back(policy->name);
  isolation.ingress = !isolation.ingress_by.empty();
  isolation.egress = !isolation.egress_by.empty();
  return isolation;
}

model::AllowList Evaluator::AllowListFor(const std::string& pod) const {
  model::AllowList list = FlattenFor(*compiled_, compiled_->PodNamed(Qualified(pod)));
  list.pod = Qualified(pod);
  list.node_addresses = node_addresses_;
  return list;
}

}  // namespace vsocket::policy
