// The question a policy answers, and its answer with the explanation.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "node-agent/model/cluster.h"

namespace vsocket::model {

// One connection attempt, from the initiator's side.
struct Flow {
  IpAddress source;
  IpAddress destination;
  std::uint16_t destination_port = 0;
  Protocol protocol = Protocol::kTcp;
  auto operator<=>(const Flow&) const = default;
};

struct DirectionVerdict {
  bool allowed = false;
  std::string pod;                       // "ns/name" of the pod this direction judges; empty: not a pod, nothing to judge
  std::vector<std::string> isolated_by;  // policies that select the pod in this direction, "ns/name"
  std::string decided_by;                // "policy ns/name, ingress rule 2, peer 1" or "no policy selects the pod" or "no rule matches"
  // Where a rule decided; empty and 0 where none did. Numbers count from 1 within the policy's list of this direction.
  std::string policy;  // "ns/name"
  std::uint32_t rule = 0;
  std::uint32_t peer = 0;            // 0 beside a rule: it is open to everyone
  std::string rule_text, peer_text;  // the two in words; only where somebody asked for an explanation
};

struct Verdict {
  bool allowed = false;      // egress.allowed && ingress.allowed
  bool known = true;         // false: no policy has been read, so nothing new is allowed, and nothing that exists is cut for it
  DirectionVerdict egress;   // of the source pod
  DirectionVerdict ingress;  // of the destination pod
  // What was judged when pods were asked about by name; 0.0.0.0 for both: they have no addresses of one family, and selectors decided.
  Flow asked;
};

}  // namespace vsocket::model
