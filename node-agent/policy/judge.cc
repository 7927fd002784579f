#include "node-agent/policy/judge.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "node-agent/policy/cluster_diff.h"
#include "node-agent/policy/peer_table.h"

namespace vsocket::policy {
namespace {

// One end of a flow as policies see it.
struct End {
  std::optional<model::IpAddress> address;  // nothing: judged by selectors alone
  PodId pod = kNone;
};

struct Target {
  std::uint16_t port;
  model::Protocol protocol;
};

// One direction: `self` is the pod that is judged, `remote` the other end, `target` the port at the destination of the two.
model::DirectionVerdict JudgeOne(const Tables& tables, Direction direction, const End& self, const End& remote, Target target) {
  model::DirectionVerdict verdict;
  if (self.pod == kNone) {
    verdict.allowed = true;
    verdict.decided_by = "not a pod";
    return verdict;
  }
  verdict.pod = FullName(tables.PodAt(self.pod));
  const auto& policies = tables.Isolating(self.pod, direction);
  if (policies.empty()) {
    verdict.allowed = true;
    verdict.decided_by = "no policy selects the pod";
    return verdict;
  }
  const PodId destination = direction == Direction::kIngress ? self.pod : remote.pod;
  PeerTable::Question question;
  question.address = remote.address ? &*remote.address : nullptr;
  question.groups = remote.pod == kNone ? nullptr : &tables.GroupsOf(remote.pod);
  question.destination = destination == kNone ? nullptr : &tables.PodAt(destination);
  question.protocol = target.protocol;
  question.port = target.port;
  for (const PolicyId id : policies) {
    const CompiledPolicy& policy = tables.Policies().At(id);
    verdict.isolated_by.push_back(policy.name);
    if (verdict.allowed) continue;
    const auto found = policy.Peers(direction).Find(question);
    if (!found) continue;
    verdict.allowed = true;
    verdict.policy = policy.name;
    verdict.rule = found->rule;
    verdict.peer = found->peer;
    verdict.decided_by = "policy " + policy.name + ", " + (direction == Direction::kIngress ? "ingress" : "egress") + " rule " +
                         std::to_string(found->rule) + ", " + (found->peer == 0 ? "any peer" : "peer " + std::to_string(found->peer));
  }
  if (!verdict.allowed) verdict.decided_by = "no rule matches";
  return verdict;
}

model::Verdict AllowedBecause(const Tables& tables, const End& source, const End& destination, const std::string& why) {
  model::Verdict verdict;
  verdict.allowed = verdict.egress.allowed = verdict.ingress.allowed = true;
  verdict.egress.decided_by = verdict.ingress.decided_by = why;
  if (source.pod != kNone) verdict.egress.pod = FullName(tables.PodAt(source.pod));
  if (destination.pod != kNone) verdict.ingress.pod = FullName(tables.PodAt(destination.pod));
  return verdict;
}

model::Verdict JudgeBoth(const Tables& tables, const std::vector<model::IpAddress>& node_addresses, const End& source,
                         const End& destination, Target target) {
  if (source.pod != kNone && source.pod == destination.pod) {
    return AllowedBecause(tables, source, destination, "a pod may always talk to itself");
  }
  model::Verdict verdict;
  verdict.egress = JudgeOne(tables, Direction::kEgress, source, destination, target);
  verdict.ingress = JudgeOne(tables, Direction::kIngress, destination, source, target);
  if (source.address && std::binary_search(node_addresses.begin(), node_addresses.end(), *source.address) && destination.pod != kNone) {
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

std::string Qualified(const std::string& pod) {
  return pod.find('/') == std::string::npos ? "default/" + pod : pod;
}

model::Verdict Judge(const Tables& tables, const std::vector<model::IpAddress>& node_addresses, const model::Flow& flow) {
  const auto ends = [&](const model::IpAddress& address) {
    std::vector<End> claimants;
    for (const PodId pod : tables.PodsAt(address)) claimants.push_back({address, pod});
    if (claimants.empty()) claimants.push_back({address, kNone});
    return claimants;
  };
  const std::vector<End> sources = ends(flow.source), destinations = ends(flow.destination);
  if (flow.source.IsLoopback() || flow.destination.IsLoopback()) {
    return AllowedBecause(tables, sources[0], destinations[0], "loopback");
  }
  if (flow.source == flow.destination) {
    return AllowedBecause(tables, sources[0], destinations[0], "a pod may always talk to itself");
  }
  std::optional<model::Verdict> first;
  for (const End& source : sources) {
    for (const End& destination : destinations) {
      model::Verdict verdict = JudgeBoth(tables, node_addresses, source, destination, {flow.destination_port, flow.protocol});
      if (!verdict.allowed) return verdict;
      if (!first) first = std::move(verdict);
    }
  }
  return *std::move(first);
}

Result<model::Verdict, model::ApiError> TraceByName(const Tables& tables, const std::vector<model::IpAddress>& node_addresses,
                                                    const std::string& source_pod, const std::string& destination_pod,
                                                    const std::string& port) {
  const std::string names[] = {Qualified(source_pod), Qualified(destination_pod)};
  PodId pods[2];
  for (int i = 0; i < 2; ++i) {
    pods[i] = tables.Pods().Named(names[i]);
    if (pods[i] == kNone) return Fail(model::ApiErrorKind::kNotFound, "no pod " + names[i]);
    if (tables.PodAt(pods[i]).finished) return Fail(model::ApiErrorKind::kInvalid, "pod " + names[i] + " has finished");
  }
  const auto question = ParsePort(port);
  if (!question)
    return Fail(model::ApiErrorKind::kInvalid,
                "not a port: \"" + port + "\" (a number from 1 to 65535 or a name, then /tcp, /udp or /sctp if not TCP)");

  const model::Pod& source = tables.PodAt(pods[0]);
  const model::Pod& destination = tables.PodAt(pods[1]);
  Target target{question->number.value_or(0), question->protocol.value_or(model::Protocol::kTcp)};
  if (!question->number) {
    const auto named = std::find_if(destination.ports.begin(), destination.ports.end(), [&](const model::ContainerPort& offered) {
      return offered.name == question->name && (!question->protocol || offered.protocol == *question->protocol);
    });
    if (named == destination.ports.end()) {
      return Fail(model::ApiErrorKind::kNotFound, "pod " + names[1] + " has no port named " + question->name);
    }
    if (!NumberOf(destination, question->name, named->protocol)) {
      return Fail(model::ApiErrorKind::kInvalid,
                  "pod " + names[1] + " calls several ports " + question->name + ", so that rules which name it match none; ask by number");
    }
    target = {named->number, named->protocol};
  }
  End from{std::nullopt, tables.InPodNetwork(pods[0]) ? pods[0] : kNone};
  End to{std::nullopt, tables.InPodNetwork(pods[1]) ? pods[1] : kNone};
  PickAddresses(source, destination, from, to);
  model::Verdict verdict = JudgeBoth(tables, node_addresses, from, to, target);
  verdict.asked = {from.address.value_or(model::IpAddress()), to.address.value_or(model::IpAddress()), target.port, target.protocol};
  return verdict;
}

}  // namespace vsocket::policy
