// The messages on agent.sock, the pod's UNIX socket (SOCK_SEQPACKET: one message a packet, at most kMaxMessage bytes).
//
// A process connects when a connection of its has proved itself worth an upgrade, says HELLO, is answered WELCOME or REJECT, and then
// sends UPGRADE with the TCP socket itself as SCM_RIGHTS. The agent reads both addresses, SO_COOKIE and SO_NETNS_COOKIE from the
// kernel and closes its copy at once (a copy kept would hold back the FIN). When both ends of a connection have asked and the policy
// allows it, each gets GRANT. All is asynchronous; the shim reads answers inside the program's own socket calls.
//
// Integers are in host byte order: both parties are on one machine. Every struct is plain, has no padding and is asserted.
// A receiver checks the size against the type (`MessageSize`), and treats each member as untrusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace vsocket::channel {

inline constexpr std::uint32_t kControlMagic = 0x56534341;  // "VSCA"
inline constexpr std::uint16_t kControlVersion = 1;
inline constexpr std::size_t kMaxMessage = 128;
inline constexpr std::size_t kMaxMessageFds = 2;

enum class MessageType : std::uint16_t {
  // shim -> agent
  kHello = 1,
  kUpgrade = 2,    // + fd: the TCP socket
  kRelease = 3,    // this end lets go of its slot
  kReattach = 4,   // + fds: the TCP socket, the region's memfd. After an agent restart: "we hold this live channel"
  kCancel = 5,     // an UPGRADE not yet answered is withdrawn
  kNote = 6,       // why a connection stays on TCP or came down; shown by vsocketctl, believed for nothing else
  kWakeOffer = 7,  // + fd: the ringing end (UNIX stream) of wake object `index` of this side of the region
  kWakeWant = 8,   // asks for the other side's wake object `index`
  kAskGrant = 9,   // this end sends, has used its bandwidth grant up, and is not watched (grant.h). No answer but the grant
  // agent -> shim
  kWelcome = 64,
  kReject = 65,  // wrong version or unknown pod; the agent closes after it
  kGrant = 66,   // + fd: the region's memfd, when kGrantHasMemory is set
  kDeny = 67,
  kWake = 68,  // answer to kWakeWant: + fd, or none when the other side has not offered it
};

struct MessageHeader {
  std::uint32_t magic;
  std::uint16_t version;
  MessageType type;
};

struct Hello {
  MessageHeader header;
  std::uint32_t layout_version;
  std::int32_t pid;  // as the process sees it; the agent takes SO_PEERCRED's for decisions
  char comm[16];     // program name, not terminated when full; display only
};

struct Upgrade {
  MessageHeader header;
  std::uint64_t cookie;  // SO_COOKIE, for matching answers; the agent takes its own from the fd
};

struct ChannelRef {
  std::uint64_t region_id;
  std::uint32_t slot;      // < kSlots
  std::uint32_t epoch;     // not 0
  std::uint32_t side;      // 0 or 1
  std::uint32_t reserved;  // 0
};

struct Release {
  MessageHeader header;
  std::uint64_t cookie;
  ChannelRef channel;
  std::uint16_t reason;  // channel::Reason; kNone for an ordinary close
  std::uint16_t reserved[3];
};

struct Reattach {
  MessageHeader header;
  std::uint64_t cookie;
  ChannelRef channel;
};

struct AskGrant {
  MessageHeader header;
  std::uint64_t cookie;
  ChannelRef channel;
};

struct Cancel {
  MessageHeader header;
  std::uint64_t cookie;
};

struct Note {
  MessageHeader header;
  std::uint64_t cookie;
  std::uint16_t reason;  // channel::Reason
  std::uint16_t reserved[3];
};

struct WakeRef {  // kWakeOffer, kWakeWant, kWake
  MessageHeader header;
  std::uint64_t region_id;
  std::uint32_t side;   // whose wake object it is
  std::uint32_t index;  // < kWakeFdsPerSide
};

struct Welcome {
  MessageHeader header;
  std::uint64_t agent_instance;  // random at each agent start
};

struct Reject {
  MessageHeader header;
  std::uint16_t reason;  // channel::Reason
  std::uint16_t min_version;
  std::uint16_t max_version;
  std::uint16_t reserved;
};

inline constexpr std::uint32_t kGrantHasMemory = 1;

struct Grant {
  MessageHeader header;
  std::uint64_t cookie;
  ChannelRef channel;
  std::uint32_t flags;
  std::uint32_t reserved;
};

struct Deny {
  MessageHeader header;
  std::uint64_t cookie;
  std::uint16_t reason;  // channel::Reason
  std::uint16_t reserved;
  std::uint32_t retry_after_ms;  // 0: not again for this connection
};

// The exact size of a message of this type; 0 for an unknown type.
constexpr std::size_t MessageSize(MessageType type) {
  switch (type) {
    case MessageType::kHello:
      return sizeof(Hello);
    case MessageType::kUpgrade:
      return sizeof(Upgrade);
    case MessageType::kRelease:
      return sizeof(Release);
    case MessageType::kReattach:
      return sizeof(Reattach);
    case MessageType::kAskGrant:
      return sizeof(AskGrant);
    case MessageType::kCancel:
      return sizeof(Cancel);
    case MessageType::kNote:
      return sizeof(Note);
    case MessageType::kWakeOffer:
    case MessageType::kWakeWant:
    case MessageType::kWake:
      return sizeof(WakeRef);
    case MessageType::kWelcome:
      return sizeof(Welcome);
    case MessageType::kReject:
      return sizeof(Reject);
    case MessageType::kGrant:
      return sizeof(Grant);
    case MessageType::kDeny:
      return sizeof(Deny);
  }
  return 0;
}

constexpr MessageHeader HeaderOf(MessageType type) {
  return {kControlMagic, kControlVersion, type};
}

static_assert(sizeof(MessageHeader) == 8 && sizeof(Hello) == 32 && sizeof(Upgrade) == 16 && sizeof(ChannelRef) == 24 &&
              sizeof(Release) == 48 && sizeof(Reattach) == 40 && sizeof(AskGrant) == 40 && sizeof(Cancel) == 16 && sizeof(Note) == 24 &&
              sizeof(WakeRef) == 24 && sizeof(Welcome) == 16 && sizeof(Reject) == 16 && sizeof(Grant) == 48 && sizeof(Deny) == 24);
static_assert(std::is_trivially_copyable_v<Grant> && std::is_trivially_copyable_v<Release>);

}  // namespace vsocket::channel
