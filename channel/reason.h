// Why a connection is not accelerated. One list for the shim, the agent, vsocketctl and docs/reasons.md.
#pragma once

#include <cstdint>

namespace vsocket::channel {

// Append only: the numbers cross process boundaries and versions.
#define VSOCKET_REASONS(X)                                                                                                         \
  X(kNone, 0, "accelerated, or nothing stands in the way")                                                                         \
  X(kNotProven, 1, "has not moved enough data yet to be worth an upgrade")                                                         \
  X(kPeerSilent, 2, "the other end has not asked for an upgrade: it is outside this node, has no shim, or is below the threshold") \
  X(kNoAgent, 3, "no agent answers on agent.sock")                                                                                 \
  X(kVersion, 4, "the shim and the agent speak different protocol versions")                                                       \
  X(kPolicy, 5, "a NetworkPolicy does not allow this connection")                                                                  \
  X(kQuota, 6, "the pod's quota of accelerated connections or memory is used up")                                                  \
  X(kNoMemory, 7, "no shared memory or file descriptor could be had")                                                              \
  X(kForeignUse, 8, "the program uses the socket behind the shim's back (the kernel's byte counts differ)")                        \
  X(kUnsupportedCall, 9, "the program made a call that only kernel TCP can serve")                                                 \
  X(kHandedOver, 10, "the socket was handed to a program without the shim (exec, SCM_RIGHTS)")                                     \
  X(kSharedAcrossFork, 11, "two processes share the socket and it was not accelerated before the fork")                            \
  X(kNotPodAddress, 12, "an address of the connection is not the pod's own or is translated on the way")                           \
  X(kLeaseOver, 13, "the agent has been gone for longer than the lease")                                                           \
  X(kRevoked, 14, "the agent revoked the channel after a policy or pod change")                                                    \
  X(kClosing, 15, "one direction of the connection is already closed")                                                             \
  X(kDisabled, 16, "upgrades are switched off (VSOCKET_UPGRADE=off)")                                                              \
  X(kPeerBroke, 17, "the peer wrote impossible values into the channel")                                                           \
  X(kBadRequest, 18, "the agent could not understand or verify the request")                                                       \
  X(kUnknownPod, 19, "the agent does not know the pod this socket belongs to")                                                     \
  X(kNotAsked, 20, "this end has not asked for an upgrade: it has no shim, or upgrades are off, or it asks later")                 \
  X(kBadBandwidth, 21, "a bandwidth annotation of one of the two pods cannot be understood, so no ring could hold it")             \
  X(kOverLimit, 22, "a sender went past the bandwidth limit on a ring between these two pods; they stay on TCP for a while")       \
  X(kNoPeer, 23, "the agent of the other end's node cannot be reached, speaks another version, or shares no transport with this one")

enum class Reason : std::uint16_t {
#define VSOCKET_REASON_ENUM(name, number, text) name = number,
  VSOCKET_REASONS(VSOCKET_REASON_ENUM)
#undef VSOCKET_REASON_ENUM
};

// A sentence for people. Any number is accepted; an unknown one gives "unknown reason".
constexpr const char* ReasonText(std::uint16_t number) {
  switch (number) {
#define VSOCKET_REASON_TEXT(name, number, text) \
  case number:                                  \
    return text;
    VSOCKET_REASONS(VSOCKET_REASON_TEXT)
#undef VSOCKET_REASON_TEXT
    default:
      return "unknown reason";
  }
}
constexpr const char* ReasonText(Reason reason) {
  return ReasonText(static_cast<std::uint16_t>(reason));
}

}  // namespace vsocket::channel
