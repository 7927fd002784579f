// The nftables text (nft(8)) that holds one pod's kernel path to its policy, inside the pod's own network namespace.
//
// Table `inet vsocket`, hooks input and output. Invariants:
// 1. No packet sees a gap. There are two sets of names, slots, and the hooks' chains, which stay, lead to one of them. The other one is
//    filled in a first transaction (PrepareText), and only then, in a second one, the hooks' rules are exchanged (ActivateText). One
//    transaction for both is not enough: a set of concatenated intervals is empty for a moment after the generation that brings it in has
//    begun (nft_set_pipapo takes its new elements over at the end of the commit), and what is allowed would be refused meanwhile.
// 2. Always accepted: the loopback device, IPv6 neighbour discovery (RFC 4861), ICMP errors about accepted flows, the node's own addresses
//    inbound.
// 3. A fresh SYN is judged by the rules whatever conntrack remembers, so a connection that was cut cannot come back; other segments of an
//    established connection pass (cutting live connections is SOCK_DESTROY's part, not this table's).
// 4. A segment of a connection older than the table (conntrack has not seen its SYN) passes when either direction it may belong to is
//    allowed.
// 5. Datagrams are judged each time, a reply by the direction of the flow it answers, so that a policy change ends a UDP flow at once.
// 6. Refused TCP is answered with a reset, everything else is dropped.
// 7. The first packet of a refused flow of TCP (its SYN), UDP or SCTP is told to nfnetlink_log's group kDenialGroup with one of the
// prefixes
//    below: once in kToldAgainSeconds for the same remote, protocol and port, and at most kToldASecond times a second in each of the four
//    ways to be refused. So a flood costs a look-up in a set a packet, and no work of the agent.
// 8. A destination is judged as the pod sees it, before any translation in the node. So a Service's own address is judged by
//    ServiceRules, which say whether its backends are allowed, and by nothing else.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/model/allow_list.h"

namespace vsocket::enforce {

// The group is one of the pod's namespace, not of the node. "vs", so that it is not one that people count up from 0.
inline constexpr std::uint16_t kDenialGroup = 0x7673;
inline constexpr unsigned kToldAgainSeconds = 10;
inline constexpr unsigned kToldASecond = 50;
// By hook. `answer`: the packet belongs to a flow that began in the other direction, and that one is not allowed any more.
inline constexpr char kDeniedIn[] = "vsocket:in";
inline constexpr char kDeniedInAnswer[] = "vsocket:in-answer";
inline constexpr char kDeniedOut[] = "vsocket:out";
inline constexpr char kDeniedOutAnswer[] = "vsocket:out-answer";

enum class Slot : std::uint8_t { kA, kB };
constexpr Slot Other(Slot slot) {
  return slot == Slot::kA ? Slot::kB : Slot::kA;
}

// What a pod that is isolated for egress may do with the addresses of Services.
struct ServiceRules {
  std::vector<model::IpAddress> addresses;  // of all Services: what is sent there is allowed by `entries`, and by nothing else
  std::vector<model::AllowEntry> entries;   // each with a protocol
  bool operator==(const ServiceRules&) const = default;
};

// What the rules of one pod follow from. `tell`: with the rules of invariant 7.
struct RulesetInput {
  model::AllowList allow;
  ServiceRules services;
  bool tell = true;
  [[nodiscard]] bool Isolated() const { return allow.ingress.isolated || allow.egress.isolated; }
};

// Removes the table; succeeds when there is none.
std::string RemovalText();
// Fills a slot that the hooks do not lead to, whatever is in it. For an input that is isolated.
std::string PrepareText(const RulesetInput& input, Slot slot);
// Leads the hooks to a slot that is filled, whatever they led to before.
std::string ActivateText(Slot slot);
// Where the hooks lead, from what nft(8) lists of chain `inet vsocket input`; nothing when that is not ours.
std::optional<Slot> ActiveSlot(const std::string& listing);

}  // namespace vsocket::enforce
