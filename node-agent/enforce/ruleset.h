// The nftables text (nft(8)) that holds one pod's kernel path to its policy, inside the pod's own network namespace.
//
// Table `inet vsocket`, hooks input and output. Invariants:
// 1. One transaction: the old table goes and the new one comes in the same batch, so that no packet sees a gap.
// 2. Always accepted: the loopback device, IPv6 neighbour discovery (RFC 4861), ICMP errors about accepted flows, the node's own addresses
//    inbound.
// 3. A fresh SYN is judged by the rules whatever conntrack remembers, so a connection that was cut cannot come back; other segments of an
//    established connection pass (cutting live connections is SOCK_DESTROY's part, not this table's).
// 4. A segment of a connection older than the table (conntrack has not seen its SYN) passes when either direction it may belong to is
//    allowed.
// 5. Datagrams are judged each time, a reply by the direction of the flow it answers, so that a policy change ends a UDP flow at once.
// 6. Refused TCP is answered with a reset, everything else is dropped.
// Known limit: the destination is judged as the pod sees it, before any translation in the node, so a pod isolated for egress reaches
// backends but not a ClusterIP.
//
// Thread safety: pure functions.
#pragma once

#include <string>

#include "node-agent/model/allow_list.h"

namespace vsocket::enforce {

// Removes the table; succeeds when there is none.
std::string RemovalText();

// RemovalText() when the pod is isolated in no direction.
std::string RulesetText(const model::AllowList& allow);

}  // namespace vsocket::enforce
