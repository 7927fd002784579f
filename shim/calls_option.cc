// Interposers that ask about, or steer, a connection: socket options and ioctls.
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>

#include <climits>
#include <cstddef>
#include <cstring>

#include "shim/errno.h"
#include "shim/hand_over.h"
#include "shim/queue_sizes.h"
#include "shim/real.h"
#include "shim/stream.h"

namespace vsocket::shim {
namespace {

using channel::Reason;

// Of options that libc's headers of glibc 2.17 and musl do not all name (asm-generic/socket.h).
constexpr int kTimestampNew = 63;     // SO_TIMESTAMP_NEW
constexpr int kTimestampNsNew = 64;   // SO_TIMESTAMPNS_NEW
constexpr int kTimestampingNew = 65;  // SO_TIMESTAMPING_NEW

// Enough to look at an option's value; all that matter here begin with an int.
int IntOf(const void* value, socklen_t size) {
  int number = 0;
  if (value != nullptr && size >= sizeof number) std::memcpy(&number, value, sizeof number);
  return number;
}

// Does setting this option ask for something that only kernel TCP can do?
bool NeedsTcp(int level, int name, int value) {
  if (level == SOL_SOCKET) {
    switch (name) {
      case SO_RCVLOWAT:
        return value > 1;
      case SO_PEEK_OFF:
        return value >= 0;
      case SO_ZEROCOPY:
      case SO_OOBINLINE:
      case SO_TIMESTAMP:
      case SO_TIMESTAMPNS:
      case SO_TIMESTAMPING:
      case kTimestampNew:
      case kTimestampNsNew:
      case kTimestampingNew:
        return value != 0;
      case SO_ATTACH_FILTER:
      case SO_ATTACH_BPF:
        return true;
      default:
        return false;
    }
  }
  if (level != IPPROTO_TCP) return false;
  switch (name) {
    case TCP_ULP:
    case TCP_MD5SIG:
    case TCP_MD5SIG_EXT:
      return true;
    case TCP_REPAIR:
    case TCP_INQ:  // a control message with each receive
      return value != 0;
    default:
      return false;
  }
}

bool IsShadowed(int level, int name) {
  return level == IPPROTO_TCP && (name == TCP_NODELAY || name == TCP_CORK);
}

std::atomic<std::uint8_t>& ShadowOf(Sock* sock, int name) {
  return name == TCP_NODELAY ? sock->nodelay : sock->cork;
}

// While a channel is in use the kernel's socket needs TCP_NODELAY on and TCP_CORK off, for bells; the program's wish waits for the day it
// is back on TCP. True: that is what happened. The lock keeps an attach or detach from coming between the look and the kernel's call.
template <typename Kernel>
int SetShadowed(SockRef ref, int name, int value, Kernel kernel) {
  Sock* sock = ref.sock;
  if (sock->phase.load(std::memory_order_acquire) < Phase::kGranted) return kernel();
  Holding tx(sock->tx_lock);
  if (!tx.Held() || ref.Stale() || sock->phase.load(std::memory_order_relaxed) != Phase::kAttached) return kernel();
  ShadowOf(sock, name).store(value != 0, std::memory_order_relaxed);
  return 0;
}

bool IsAttached(SockRef ref) {
  return ref.sock->phase.load(std::memory_order_acquire) == Phase::kAttached;
}

// While a replay is guarded the kernel's SO_LINGER is ours (GuardReplay), and the program's waits for its end. False: it is not.
bool SwapGuardedLinger(SockRef ref, const void* set, void* get) {
  if (!IsAttached(ref)) return false;
  Holding tx(ref.sock->tx_lock);
  if (!tx.Held() || ref.Stale() || !ref.sock->guarded) return false;
  if (set != nullptr) std::memcpy(ref.sock->linger, set, sizeof ref.sock->linger);
  if (get != nullptr) std::memcpy(get, ref.sock->linger, sizeof ref.sock->linger);
  return true;
}

// A value of the kernel's replaced, as far as the program's buffer reaches.
void PutInt(int number, void* value, socklen_t size) {
  std::memcpy(value, &number, size < sizeof number ? size : sizeof number);
}

void AdjustError(SockRef ref, int fd, void* value, socklen_t size) {
  PutInt(JudgeError(ref, fd, IntOf(value, size)), value, size);
}

template <typename T>
void PutMember(void* info, socklen_t size, std::size_t offset, T number) {
  if (offset + sizeof number <= size) std::memcpy(static_cast<std::byte*>(info) + offset, &number, sizeof number);
}

void AdjustInfo(SockRef ref, int fd, void* info, socklen_t size) {
  StreamCounts counts;
  if (!CountStream(ref, fd, &counts)) return;
  // The kernel counts the SYN as an acknowledged byte at the end that sent it.
  const __u64 acked = counts.acked + (ref.sock->initiator.load(std::memory_order_relaxed) ? 1 : 0);
  PutMember(info, size, offsetof(struct tcp_info, tcpi_bytes_acked), acked);
  PutMember(info, size, offsetof(struct tcp_info, tcpi_bytes_received), static_cast<__u64>(counts.received));
  PutMember(info, size, offsetof(struct tcp_info, tcpi_bytes_sent), static_cast<__u64>(counts.sent));
  PutMember(info, size, offsetof(struct tcp_info, tcpi_notsent_bytes),
            static_cast<__u32>(counts.unsent < UINT32_MAX ? counts.unsent : UINT32_MAX));
}

int AsInt(std::uint64_t size) {
  return size < INT_MAX ? static_cast<int>(size) : INT_MAX;
}

// Sizes of queues, after the kernel has checked the pointer by answering. `requests` are ints in the kernel's eyes (ioctl(2)).
void AdjustQueueSize(SockRef ref, int fd, unsigned request, int* size) {
  if (size == nullptr || !IsAttached(ref)) return;
  *size = request == FIONREAD ? AsInt(ReadableBytes(ref, fd)) : AsInt(UntakenBytes(ref, static_cast<std::uint64_t>(*size)));
}

}  // namespace

VSOCKET_INTERPOSE(int, getsockopt, int fd, int level, int name, void* value, socklen_t* size) {
  const SockRef ref = FindSock(fd);
  if (!ref) return Real().getsockopt(fd, level, name, value, size);
  if (level == IPPROTO_TCP && name == TCP_ZEROCOPY_RECEIVE) UseTcp(fd, Reason::kUnsupportedCall);
  const bool is_error = level == SOL_SOCKET && name == SO_ERROR;
  const int result = Real().getsockopt(fd, level, name, value, size);
  if (result != 0 || value == nullptr || size == nullptr) return result;
  if (is_error && IsAttached(ref)) AdjustError(ref, fd, value, *size);
  if (level == IPPROTO_TCP && name == TCP_INFO) AdjustInfo(ref, fd, value, *size);
  if (level == SOL_SOCKET && name == SO_LINGER && *size == sizeof(struct linger)) (void)SwapGuardedLinger(ref, nullptr, value);
  if (IsShadowed(level, name) && IsAttached(ref)) PutInt(ShadowOf(ref.sock, name).load(std::memory_order_relaxed), value, *size);
  return result;
}

VSOCKET_INTERPOSE(int, setsockopt, int fd, int level, int name, const void* value, socklen_t size) {
  const auto kernel = [&] { return Real().setsockopt(fd, level, name, value, size); };
  const SockRef ref = FindSock(fd);
  if (!ref) return kernel();
  if (IsShadowed(level, name) && value != nullptr && size >= sizeof(int)) return SetShadowed(ref, name, IntOf(value, size), kernel);
  const bool is_linger = level == SOL_SOCKET && name == SO_LINGER && value != nullptr && size >= sizeof(struct linger);
  if (is_linger && SwapGuardedLinger(ref, value, nullptr)) return 0;
  if (NeedsTcp(level, name, IntOf(value, size))) UseTcp(fd, Reason::kUnsupportedCall);
  return kernel();
}

// musl's request is an int, glibc's a long: the upper half may be anything, and the kernel ignores it.
VSOCKET_INTERPOSE(int, ioctl, int fd, unsigned long wide_request, ...) {
  va_list arguments;
  va_start(arguments, wide_request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  const SockRef ref = FindSock(fd);
  if (!ref) return Real().ioctl(fd, wide_request, argument);
  const auto request = static_cast<unsigned>(wide_request);
  if (request == FIOASYNC || request == SIOCATMARK || request == FIOSETOWN || request == SIOCSPGRP) UseTcp(fd, Reason::kUnsupportedCall);
  const int result = Real().ioctl(fd, wide_request, argument);
  if (result == 0 && (request == FIONREAD || request == SIOCOUTQ || request == SIOCOUTQNSD)) {
    AdjustQueueSize(ref, fd, request, static_cast<int*>(argument));
  }
  return result;
}

VSOCKET_INTERPOSE(int, sockatmark, int fd) {
  UseTcp(fd, Reason::kUnsupportedCall);
  return Real().sockatmark(fd);
}

}  // namespace vsocket::shim
