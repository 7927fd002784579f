#include "shim/agent_link.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "channel/control.h"
#include "shim/config.h"
#include "shim/log.h"
#include "shim/own_fds.h"
#include "shim/regions.h"
#include "shim/sys.h"
#include "shim/upgrade.h"
#include "shim/wake_fds.h"

namespace vsocket::shim {
namespace {

using channel::MessageType;

constexpr std::uint64_t kEagerTicks = 40000;    // about 20 us: an answer is expected
constexpr std::uint64_t kLazyTicks = 20000000;  // about 10 ms: only the line's end
constexpr std::uint64_t kReconnectNs = 100ULL * 1000 * 1000;
constexpr std::uint64_t kRejectedNs = 60ULL * 1000 * 1000 * 1000;
constexpr std::uint64_t kEagerWaitNs = 2 * 1000 * 1000;
constexpr int kMaxPending = 4096;

struct Pending {
  std::uint64_t cookie;
  std::uint32_t sock;  // arena index
  std::uint32_t generation;
};

std::atomic<int> line{-1};
std::atomic<std::uint64_t> next_poll{0};
std::atomic<std::uint64_t> retry_at{0};
std::atomic<channel::Reason> refusal{channel::Reason::kNoAgent};  // since the last attempt to connect
std::uint64_t poll_interval = kEagerTicks;
Pending pending[kMaxPending];
Relaxed<int> pending_count = 0;  // read by who only asks whether an answer is due
Relaxed<bool> was_connected = false;
Lock reading;       // who reads the line, or replaces it
Lock pending_lock;  // the table; innermost

bool SendWithFds(const void* message, std::size_t size, const int* fds, int count) {
  const int fd = line.load(std::memory_order_acquire);
  if (fd < 0) return false;
  struct iovec part = {const_cast<void*>(message), size};
  alignas(struct cmsghdr) char control[CMSG_SPACE(channel::kMaxMessageFds * sizeof(int))] = {};
  struct msghdr packet = {};
  packet.msg_iov = &part;
  packet.msg_iovlen = 1;
  if (count != 0) {
    packet.msg_control = control;
    packet.msg_controllen = CMSG_SPACE(static_cast<std::size_t>(count) * sizeof(int));
    struct cmsghdr* header = CMSG_FIRSTHDR(&packet);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(static_cast<std::size_t>(count) * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds, static_cast<std::size_t>(count) * sizeof(int));
  }
  return Sys(SYS_sendmsg, fd, &packet, MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<long>(size);
}

template <typename T>
bool SendMessage(const T& message) {
  return SendWithFds(&message, sizeof message, nullptr, 0);
}

channel::ChannelRef RefOf(const Sock* sock) {
  return {sock->region_id, sock->slot, sock->epoch, sock->side, 0};
}

// reading
void Disconnect(std::uint64_t retry_after_ns) {
  const int fd = line.exchange(-1, std::memory_order_acq_rel);
  if (fd >= 0) DropOwnFd(fd);
  retry_at.store(MonotonicNs() + retry_after_ns, std::memory_order_relaxed);
  Holding hold(pending_lock);
  for (int i = 0; i < pending_count; ++i) {
    Sock* sock = SockAt(pending[i].sock);
    if (sock->generation.load(std::memory_order_relaxed) == pending[i].generation) NoteDenied(sock, WhyNoLine(), 100);
  }
  pending_count = 0;
}

void Reattach(int fd, SockRef ref, void*) {
  Sock* sock = ref.sock;
  if (sock->phase.load(std::memory_order_acquire) != Phase::kAttached || sock->dead.load(std::memory_order_relaxed) != 0) return;
  const int memory = RegionMemory(sock);
  if (memory < 0) return;
  const channel::Reattach message{channel::HeaderOf(MessageType::kReattach), sock->cookie, RefOf(sock)};
  const int fds[2] = {fd, memory};
  (void)SendWithFds(&message, sizeof message, fds, 2);
}

// reading
bool Connect() {
  if (line.load(std::memory_order_relaxed) >= 0) return true;
  if (MonotonicNs() < retry_at.load(std::memory_order_relaxed)) return false;
  retry_at.store(MonotonicNs() + kReconnectNs, std::memory_order_relaxed);
  refusal.store(channel::Reason::kNoAgent, std::memory_order_relaxed);
  const long made = Sys(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (made < 0) {
    refusal.store(channel::Reason::kNoMemory, std::memory_order_relaxed);
    return false;
  }
  struct sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, GetConfig().agent_path, sizeof address.sun_path);
  const long connected = Sys(SYS_connect, made, &address, sizeof address);
  if (connected < 0) {
    Log("agent: connect failed, errno %d", static_cast<int>(-connected));
    Sys(SYS_close, made);
    return false;
  }
  line.store(KeepOwnFd(static_cast<int>(made)), std::memory_order_release);
  channel::Hello hello = {};
  hello.header = channel::HeaderOf(MessageType::kHello);
  hello.layout_version = channel::kLayoutVersion;
  hello.pid = static_cast<std::int32_t>(Sys(SYS_getpid));
  Sys(SYS_prctl, PR_GET_NAME, hello.comm);
  if (!SendMessage(hello)) {
    Disconnect(kReconnectNs);
    return false;
  }
  if (was_connected) ForEachSock(Reattach, nullptr);
  was_connected = true;
  Log("agent: connected");
  return true;
}

Sock* TakePending(std::uint64_t cookie) {
  Holding hold(pending_lock);
  for (int i = 0; i < pending_count; ++i) {
    if (pending[i].cookie != cookie) continue;
    Sock* sock = SockAt(pending[i].sock);
    const bool current = sock->generation.load(std::memory_order_relaxed) == pending[i].generation;
    pending[i] = pending[--pending_count];
    return current ? sock : nullptr;
  }
  return nullptr;
}

void OnGrant(const channel::Grant& grant, int memfd) {
  int region = -1;
  if (memfd >= 0) {
    region = AddRegion(grant.channel.region_id, memfd);
  } else {
    region = FindRegion(grant.channel.region_id);
  }
  Sock* sock = TakePending(grant.cookie);
  const bool usable = region >= 0 && grant.channel.slot < channel::kSlots && grant.channel.side <= 1 && grant.channel.epoch != 0;
  if (sock == nullptr || !usable) Log("agent: a grant nobody waits for, slot %d", static_cast<int>(grant.channel.slot));
  if (sock == nullptr || !usable || sock->phase.load(std::memory_order_relaxed) != Phase::kAsked) {
    const channel::Release release{channel::HeaderOf(MessageType::kRelease),
                                   grant.cookie,
                                   grant.channel,
                                   static_cast<std::uint16_t>(usable ? channel::Reason::kClosing : channel::Reason::kNoMemory),
                                   {}};
    (void)SendMessage(release);
    if (sock != nullptr) NoteDenied(sock, channel::Reason::kNoMemory, 1000);
    return;
  }
  sock->region = static_cast<std::uint32_t>(region);
  sock->region_id = grant.channel.region_id;
  sock->slot = grant.channel.slot;
  sock->epoch = grant.channel.epoch;
  sock->side = grant.channel.side;
  HoldRegion(sock);
  Log("agent: channel granted, slot %d", static_cast<int>(sock->slot));
  NoteGrant(sock);
}

void Handle(const std::uint8_t* bytes, std::size_t size, int fd) {
  channel::MessageHeader header;
  std::memcpy(&header, bytes, sizeof header);
  if (header.magic != channel::kControlMagic || channel::MessageSize(header.type) != size) {
    if (fd >= 0) Sys(SYS_close, fd);
    return;
  }
  switch (header.type) {
    case MessageType::kGrant: {
      channel::Grant grant;
      std::memcpy(&grant, bytes, sizeof grant);
      return OnGrant(grant, fd);
    }
    case MessageType::kDeny: {
      channel::Deny deny;
      std::memcpy(&deny, bytes, sizeof deny);
      Log("agent: upgrade denied, reason %d", static_cast<int>(deny.reason));
      if (Sock* sock = TakePending(deny.cookie)) NoteDenied(sock, static_cast<channel::Reason>(deny.reason), deny.retry_after_ms);
      break;
    }
    case MessageType::kReject: {
      channel::Reject reject;
      std::memcpy(&reject, bytes, sizeof reject);
      Log("agent: rejected this shim: %s", channel::ReasonText(reject.reason));
      refusal.store(static_cast<channel::Reason>(reject.reason), std::memory_order_relaxed);
      Disconnect(kRejectedNs);
      break;
    }
    case MessageType::kWake: {
      channel::WakeRef wake;
      std::memcpy(&wake, bytes, sizeof wake);
      return LearnPeerWakeFd(wake.region_id, wake.side, wake.index, fd);
    }
    default:
      break;
  }
  if (fd >= 0) Sys(SYS_close, fd);
}

// reading. False: the line is down.
bool ReadOne(bool* got) {
  std::uint8_t bytes[channel::kMaxMessage];
  struct iovec part = {bytes, sizeof bytes};
  alignas(struct cmsghdr) char control[CMSG_SPACE(channel::kMaxMessageFds * sizeof(int))];
  struct msghdr packet = {};
  packet.msg_iov = &part;
  packet.msg_iovlen = 1;
  packet.msg_control = control;
  packet.msg_controllen = sizeof control;
  long size = Sys(SYS_recvmsg, line.load(std::memory_order_relaxed), &packet, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  // An agent that closes with a request of ours unread leaves this error in front of what it said last, such as why (unix(7)).
  if (size == -ECONNRESET) size = Sys(SYS_recvmsg, line.load(std::memory_order_relaxed), &packet, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  *got = false;
  if (size == -EAGAIN || size == -EINTR) return true;
  if (size <= 0) return false;
  int fd = -1;
  for (struct cmsghdr* header = CMSG_FIRSTHDR(&packet); header != nullptr; header = CMSG_NXTHDR(&packet, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t at = 0; CMSG_LEN(at + sizeof(int)) <= header->cmsg_len; at += sizeof(int)) {
      int received;
      std::memcpy(&received, CMSG_DATA(header) + at, sizeof received);
      if (fd >= 0) Sys(SYS_close, fd);
      fd = received;
    }
  }
  *got = true;
  if (static_cast<std::size_t>(size) < sizeof(channel::MessageHeader)) {
    if (fd >= 0) Sys(SYS_close, fd);
    return true;
  }
  Log("agent: message %d", static_cast<int>(bytes[6]));
  Handle(bytes, static_cast<std::size_t>(size), fd);
  return line.load(std::memory_order_relaxed) >= 0;
}

}  // namespace

channel::Reason WhyNoLine() {
  return refusal.load(std::memory_order_relaxed);
}

void AwaitAgent(const Sock* sock) {
  const std::uint64_t end = MonotonicNs() + kEagerWaitNs;
  while (sock->phase.load(std::memory_order_acquire) == Phase::kAsked) {
    struct pollfd item = {line.load(std::memory_order_acquire), POLLIN, 0};
    const std::uint64_t now = MonotonicNs();
    if (item.fd < 0 || now >= end) return;
    const struct timespec patience = {0, static_cast<long>(end - now)};
    Sys(SYS_ppoll, &item, 1, &patience, nullptr, 0);
    PollAgent();
  }
}

void PollAgent() {
  const bool eager = pending_count != 0 && GetConfig().upgrade_after_bytes == 0;
  if (!eager && Ticks() < next_poll.load(std::memory_order_relaxed)) return;
  if (line.load(std::memory_order_relaxed) < 0 && !was_connected) return;
  if (!reading.TryAcquire()) return;
  bool got = false;
  if (Connect()) {
    for (int i = 0; i < 64; ++i) {
      if (!ReadOne(&got)) {
        Log("agent: gone%s", "");
        Disconnect(0);
        break;
      }
      if (!got) break;
      poll_interval = kEagerTicks;
    }
  }
  poll_interval = pending_count == 0 ? kLazyTicks : (poll_interval >= kLazyTicks / 10 ? kLazyTicks / 10 : poll_interval * 2);
  next_poll.store(Ticks() + poll_interval, std::memory_order_relaxed);
  reading.Release();
}

bool AskUpgrade(Sock* sock, int fd) {
  if (line.load(std::memory_order_acquire) < 0) {
    if (!reading.TryAcquire()) return false;
    const bool connected = Connect();
    reading.Release();
    if (!connected) return false;
  }
  if (sock->cookie == 0) {
    std::uint64_t cookie = 0;
    int size = sizeof cookie;
    if (Sys(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0) return false;
    sock->cookie = cookie;
  }
  {
    Holding hold(pending_lock);
    if (pending_count == kMaxPending) return false;
    pending[pending_count++] = {sock->cookie, IndexOf(sock), sock->generation.load(std::memory_order_relaxed)};
  }
  Log("agent: asking for fd %d", fd);
  const channel::Upgrade message{channel::HeaderOf(MessageType::kUpgrade), sock->cookie};
  if (!SendWithFds(&message, sizeof message, &fd, 1)) {
    (void)TakePending(sock->cookie);
    next_poll.store(0, std::memory_order_relaxed);
    PollAgent();  // an agent that has gone may have said why
    return false;
  }
  next_poll.store(Ticks() + kEagerTicks, std::memory_order_relaxed);
  return true;
}

bool SendCancel(const Sock* sock) {
  if (sock->cookie == 0 || TakePending(sock->cookie) == nullptr) return false;
  (void)SendMessage(channel::Cancel{channel::HeaderOf(MessageType::kCancel), sock->cookie});
  return true;
}

void SendRelease(const Sock* sock, channel::Reason reason) {
  (void)SendMessage(
      channel::Release{channel::HeaderOf(MessageType::kRelease), sock->cookie, RefOf(sock), static_cast<std::uint16_t>(reason), {}});
}

void SendNote(const Sock* sock, channel::Reason reason) {
  if (sock->cookie == 0) return;
  (void)SendMessage(channel::Note{channel::HeaderOf(MessageType::kNote), sock->cookie, static_cast<std::uint16_t>(reason), {}});
}

bool SendWakeRef(MessageType type, std::uint64_t region_id, std::uint32_t side, std::uint32_t index, int fd) {
  const channel::WakeRef message{channel::HeaderOf(type), region_id, side, index};
  return SendWithFds(&message, sizeof message, &fd, fd >= 0 ? 1 : 0);
}

bool SendAskGrant(const Sock* sock) {
  return SendMessage(channel::AskGrant{channel::HeaderOf(MessageType::kAskGrant), sock->cookie, RefOf(sock)});
}

bool HaveAgent() {
  return line.load(std::memory_order_relaxed) >= 0;
}

void ForgetAgent() {
  const int fd = line.exchange(-1, std::memory_order_relaxed);
  if (fd >= 0) DropOwnFd(fd);
  reading.Reset();
  pending_lock.Reset();
  pending_count = 0;
  retry_at.store(0, std::memory_order_relaxed);
}

}  // namespace vsocket::shim
