// Interposers that move bytes. A connection on plain TCP costs a table look-up and a count; one with a channel goes to Receive and Send.
#include <fcntl.h>
#include <poll.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>

#include "shim/errno.h"
#include "shim/hand_over.h"
#include "shim/real.h"
#include "shim/upgrade.h"
#include "shim/wait.h"

extern "C" ssize_t vsocket_send(int, const void*, size_t, int) __asm__("send");
extern "C" int vsocket_poll(struct pollfd*, nfds_t, int) __asm__("poll");

namespace vsocket::shim {
namespace {

// While a plain call is inside the kernel the connection cannot attach: the counts would be unprovable.
class Inside {
 public:
  Inside(const Sock* sock, std::atomic<std::uint32_t>& counter) : sock_(sock), counter_(counter) { Add(1); }
  ~Inside() { Add(UINT32_MAX); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  void Add(std::uint32_t change) {
    if (AloneWith(sock_)) {
      counter_.store(counter_.load(std::memory_order_relaxed) + change, std::memory_order_relaxed);
    } else {
      counter_.fetch_add(change, std::memory_order_seq_cst);
    }
  }
  const Sock* sock_;
  std::atomic<std::uint32_t>& counter_;
};

constexpr int kReceiveOnRing = MSG_PEEK | MSG_WAITALL | MSG_DONTWAIT | MSG_TRUNC | MSG_NOSIGNAL | MSG_CMSG_CLOEXEC;
constexpr int kSendOnRing = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE | MSG_EOR | MSG_CONFIRM | MSG_DONTROUTE;

bool IsAttached(SockRef ref, int fd) {
  Phase phase = ref.sock->phase.load(std::memory_order_acquire);
  if (phase == Phase::kGranted) {
    ConsiderAttach(ref, fd);
    phase = ref.sock->phase.load(std::memory_order_acquire);
  }
  while (phase == Phase::kAttaching && !ref.Stale()) {  // a few system calls of another thread
    CpuRelax();
    phase = ref.sock->phase.load(std::memory_order_acquire);
  }
  return phase == Phase::kAttached;
}

// What the kernel is to do of a call that began on a ring, when another thread has made the connection leave it meanwhile. A blocking call
// goes on until it is done, as if nothing had happened.
class Remainder {
 public:
  Remainder(const struct iovec* all, int count, std::size_t done) {
    message.msg_iov = parts_;
    const int n = Rest(all, count, done, parts_);
    message.msg_iovlen = static_cast<std::size_t>(n);
    for (int i = 0; i < n; ++i) size_ += parts_[i].iov_len;
    for (int i = 0; i < count; ++i) left_ += all[i].iov_len;
    left_ -= done;
  }
  // Is there more, of too many parts for one attempt?
  [[nodiscard]] bool GoesOnBehind(ssize_t result) const { return size_ < left_ && result == static_cast<ssize_t>(size_); }
  struct msghdr message = {};

 private:
  struct iovec parts_[kParts];
  std::size_t size_ = 0;
  std::size_t left_ = 0;
};

// A receive on `fd`: by the ring if the connection has one, else `plain()`, counted. `plain` returns as libc does.
template <typename Plain>
ssize_t ReceiveOr(int fd, const struct iovec* parts, int count, int flags, Plain plain) {
  const SockRef ref = FindSock(fd);
  if (!ref) return plain();
  std::size_t done = 0;
  for (;;) {
    if (IsAttached(ref, fd)) {
      if (flags & MSG_OOB) return ToProgram(-EINVAL);  // no urgent data is there
      if (flags & MSG_ERRQUEUE) return plain();        // the kernel's queue of errors, not the stream
      if (flags & ~kReceiveOnRing) return ToProgram(-EOPNOTSUPP);
      const ssize_t got = Receive(ref, fd, parts, count, flags, &done);
      if (got != kNotAttached) return ToProgram(got);
      if (ref.Stale())
        return done != 0 ? static_cast<ssize_t>(done) : plain();  // closed by another thread: the kernel knows what it is now
      continue;
    }
    ssize_t got;
    bool more = false;
    {
      Inside inside(ref.sock, ref.sock->inside_rx);
      // Again, now that we are counted: a grant attached in between would have waited for us.
      if (ref.sock->phase.load(std::memory_order_seq_cst) >= Phase::kAttaching) continue;
      if (done == 0) {
        got = plain();
      } else {
        Remainder rest(parts, count, done);
        got = ToProgram(Sys(SYS_recvmsg, fd, &rest.message, flags));
        if (got > 0) done += static_cast<std::size_t>(got);
        more = rest.GoesOnBehind(got);
      }
    }
    if (got > 0 && !(flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))) {
      const int saved = errno;
      NotePlainReceive(ref, fd, got);
      errno = saved;
    }
    if (more) continue;
    return done != 0 ? static_cast<ssize_t>(done) : got;
  }
}

template <typename Plain>
ssize_t SendOr(int fd, const struct iovec* parts, int count, int flags, Plain plain) {
  const SockRef ref = FindSock(fd);
  if (!ref) return plain();
  std::size_t done = 0;
  for (;;) {
    if (IsAttached(ref, fd)) {
      if (flags & ~kSendOnRing) {
        LeaveForGood(ref, fd, channel::Reason::kUnsupportedCall);
        return plain();
      }
      const ssize_t sent = Send(ref, fd, parts, count, flags, &done);
      if (sent != kNotAttached) return SentToProgram(sent, flags);
      if (ref.Stale()) return done != 0 ? static_cast<ssize_t>(done) : plain();
      continue;
    }
    ssize_t sent;
    bool more = false;
    {
      Inside inside(ref.sock, ref.sock->inside_tx);
      if (ref.sock->phase.load(std::memory_order_seq_cst) >= Phase::kAttaching) continue;
      if (done == 0) {
        sent = plain();
      } else {
        Remainder rest(parts, count, done);
        sent = ToProgram(Sys(SYS_sendmsg, fd, &rest.message, flags | MSG_NOSIGNAL));  // after some bytes EPIPE is the next call's
        if (sent > 0) done += static_cast<std::size_t>(sent);
        more = rest.GoesOnBehind(sent);
      }
    }
    if (sent > 0) {
      const int saved = errno;
      if (flags & (MSG_OOB | MSG_ZEROCOPY)) ref.sock->pinned.store(static_cast<std::uint16_t>(channel::Reason::kUnsupportedCall));
      NotePlainSend(ref, fd, sent);
      errno = saved;
    }
    if (more) continue;
    return done != 0 ? static_cast<ssize_t>(done) : sent;
  }
}

// The kernel fills in no address for a TCP receive, and no control data unless an option asked for it (those bring the socket to TCP).
void FillEmptyAddress(socklen_t* length) {
  if (length != nullptr) *length = 0;
}

bool IsPosition(off_t offset, int flags) {
  return offset == -1 && flags == 0;
}

ssize_t ReadFd(int fd, void* buffer, size_t size) {
  const struct iovec part = {buffer, size};
  return ReceiveOr(fd, &part, 1, 0, [&] { return Real().read(fd, buffer, size); });
}

ssize_t ReceiveFd(int fd, void* buffer, size_t size, int flags) {
  const struct iovec part = {buffer, size};
  return ReceiveOr(fd, &part, 1, flags, [&] { return Real().recv(fd, buffer, size, flags); });
}

ssize_t ReceiveFromFd(int fd, void* buffer, size_t size, int flags, struct sockaddr* address, socklen_t* length) {
  const struct iovec part = {buffer, size};
  bool plain = false;
  const ssize_t got = ReceiveOr(fd, &part, 1, flags, [&] {
    plain = true;
    return Real().recvfrom(fd, buffer, size, flags, address, length);
  });
  if (!plain && got >= 0) FillEmptyAddress(length);
  return got;
}

ssize_t ReceiveMessage(int fd, struct msghdr* message, int flags) {
  if (message == nullptr) return Real().recvmsg(fd, message, flags);
  bool plain = false;
  const ssize_t got = ReceiveOr(fd, message->msg_iov, static_cast<int>(message->msg_iovlen), flags, [&] {
    plain = true;
    return Real().recvmsg(fd, message, flags);
  });
  if (!plain && got >= 0) {
    message->msg_namelen = 0;
    message->msg_controllen = 0;
    message->msg_flags = 0;
  }
  return got;
}

constexpr int kAttachedNow = -2;

// As the kernel does it: an error after some messages stays in the socket.
int ReceiveManyPlain(SockRef ref, int fd, struct mmsghdr* messages, unsigned count, int flags, struct timespec* timeout) {
  int got;
  {
    Inside inside(ref.sock, ref.sock->inside_rx);
    if (ref.sock->phase.load(std::memory_order_seq_cst) >= Phase::kAttaching) return kAttachedNow;
    got = Real().recvmmsg(fd, messages, count, flags, timeout);
  }
  ssize_t bytes = 0;
  for (int i = 0; i < got; ++i) bytes += messages[i].msg_len;
  const int saved = errno;
  if (bytes > 0 && !(flags & MSG_PEEK)) NotePlainReceive(ref, fd, bytes);
  errno = saved;
  return got;
}

constexpr std::size_t kSplicePiece = 16384;

// A connection on a ring into a pipe: what the pipe took is consumed, and nothing else. kNotAttached: it has left its channel.
ssize_t SpliceFromRing(SockRef from, int in, int out, std::size_t size, unsigned flags) {
  char piece[kSplicePiece];
  const struct iovec part = {piece, size < sizeof piece ? size : sizeof piece};
  std::size_t none = 0;
  const ssize_t seen = Receive(from, in, &part, 1, MSG_PEEK | ((flags & SPLICE_F_NONBLOCK) != 0 ? MSG_DONTWAIT : 0), &none);
  if (seen == kNotAttached) return seen;
  if (seen <= 0) return ToProgram(seen);
  const ssize_t taken = Real().write(out, piece, static_cast<std::size_t>(seen));
  if (taken <= 0) return taken;
  // In the pipe they are, wherever the connection is by now.
  const struct iovec used = {piece, static_cast<std::size_t>(taken)};
  constexpr int kDiscard = MSG_TRUNC | MSG_WAITALL;
  return ReceiveOr(in, &used, 1, kDiscard, [&] { return Real().recv(in, piece, used.iov_len, kDiscard); });
}

// A pipe into a connection on a ring. What was read off the pipe is sent, even if a non-blocking socket makes that wait.
ssize_t SpliceToRing(int in, int out, std::size_t size, unsigned flags) {
  char piece[kSplicePiece];
  if ((flags & SPLICE_F_NONBLOCK) != 0) {
    struct pollfd ready = {in, POLLIN, 0};
    const struct timespec now = {};
    if (Sys(SYS_ppoll, &ready, 1, &now, nullptr, 0) == 0) return ToProgram(-EAGAIN);
  }
  const ssize_t got = Real().read(in, piece, size < sizeof piece ? size : sizeof piece);
  ssize_t done = 0;
  while (done < got) {
    const ssize_t sent = vsocket_send(out, piece + done, static_cast<std::size_t>(got - done), 0);
    if (sent > 0) done += sent;
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
      if (done == 0) return sent;
      KeepForNextCall(FindSock(out), -errno);
      return done;
    }
    struct pollfd writable = {out, POLLOUT, 0};
    if (sent < 0) (void)vsocket_poll(&writable, 1, -1);
  }
  return got < 0 ? got : done;
}

ssize_t SendFileFd(int out, int in, off_t* offset, size_t size) {
  const SockRef ref = FindSock(out);
  if (!ref) return Real().sendfile(out, in, offset, size);
  std::size_t done = 0;
  for (;;) {
    if (IsAttached(ref, out)) {
      const ssize_t sent = SendFile(ref, out, in, offset, size, &done);
      if (sent != kNotAttached) return SentToProgram(sent, 0);
      if (!ref.Stale()) continue;
      return done != 0 ? static_cast<ssize_t>(done) : Real().sendfile(out, in, offset, size);
    }
    ssize_t sent;
    {
      Inside inside(ref.sock, ref.sock->inside_tx);
      if (ref.sock->phase.load(std::memory_order_seq_cst) >= Phase::kAttaching) continue;
      sent = Real().sendfile(out, in, offset, size - done);
    }
    const int saved = errno;
    if (sent > 0) NotePlainSend(ref, out, sent);
    errno = saved;
    if (done == 0) return sent;
    return static_cast<ssize_t>(done) + (sent > 0 ? sent : 0);
  }
}

}  // namespace

VSOCKET_INTERPOSE(ssize_t, read, int fd, void* buffer, size_t size) {
  return ReadFd(fd, buffer, size);
}

VSOCKET_INTERPOSE(ssize_t, __read_chk, int fd, void* buffer, size_t size, size_t room) {
  if (size > room) return Real().__read_chk(fd, buffer, size, room);  // which ends the program
  return ReadFd(fd, buffer, size);
}

VSOCKET_INTERPOSE(ssize_t, readv, int fd, const struct iovec* parts, int count) {
  return ReceiveOr(fd, parts, count, 0, [&] { return Real().readv(fd, parts, count); });
}

VSOCKET_INTERPOSE(ssize_t, preadv2, int fd, const struct iovec* parts, int count, off_t offset, int flags) {
  if (!IsPosition(offset, flags)) return Real().preadv2(fd, parts, count, offset, flags);
  return ReceiveOr(fd, parts, count, 0, [&] { return Real().preadv2(fd, parts, count, offset, flags); });
}

VSOCKET_INTERPOSE(ssize_t, preadv64v2, int fd, const struct iovec* parts, int count, off_t offset, int flags) {
  if (!IsPosition(offset, flags)) return Real().preadv64v2(fd, parts, count, offset, flags);
  return ReceiveOr(fd, parts, count, 0, [&] { return Real().preadv64v2(fd, parts, count, offset, flags); });
}

VSOCKET_INTERPOSE(ssize_t, recv, int fd, void* buffer, size_t size, int flags) {
  return ReceiveFd(fd, buffer, size, flags);
}

VSOCKET_INTERPOSE(ssize_t, __recv_chk, int fd, void* buffer, size_t size, size_t room, int flags) {
  if (size > room) return Real().__recv_chk(fd, buffer, size, room, flags);
  return ReceiveFd(fd, buffer, size, flags);
}

VSOCKET_INTERPOSE(ssize_t, recvfrom, int fd, void* buffer, size_t size, int flags, struct sockaddr* address, socklen_t* length) {
  return ReceiveFromFd(fd, buffer, size, flags, address, length);
}

VSOCKET_INTERPOSE(ssize_t, __recvfrom_chk, int fd, void* buffer, size_t size, size_t room, int flags, struct sockaddr* address,
                  socklen_t* length) {
  if (size > room) return Real().__recvfrom_chk(fd, buffer, size, room, flags, address, length);
  return ReceiveFromFd(fd, buffer, size, flags, address, length);
}

VSOCKET_INTERPOSE(ssize_t, recvmsg, int fd, struct msghdr* message, int flags) {
  return ReceiveMessage(fd, message, flags);
}

VSOCKET_INTERPOSE(int, recvmmsg, int fd, struct mmsghdr* messages, unsigned count, int flags, struct timespec* timeout) {
  const SockRef ref = FindSock(fd);
  if (!ref || count == 0) return Real().recvmmsg(fd, messages, count, flags, timeout);
  if (!IsAttached(ref, fd)) {
    const int plain = ReceiveManyPlain(ref, fd, messages, count, flags, timeout);
    if (plain != kAttachedNow) return plain;
  }
  const std::uint64_t deadline = timeout == nullptr ? UINT64_MAX
                                                    : MonotonicNs() + static_cast<std::uint64_t>(timeout->tv_sec) * 1000000000 +
                                                          static_cast<std::uint64_t>(timeout->tv_nsec);
  unsigned done = 0;
  while (done < count) {
    const ssize_t got = ReceiveMessage(fd, &messages[done].msg_hdr, flags & ~MSG_WAITFORONE);
    if (got < 0 && done != 0) KeepForNextCall(FindSock(fd), -errno);  // recvmmsg(2): the error is the next call's
    if (got < 0) return done != 0 ? static_cast<int>(done) : -1;
    messages[done++].msg_len = static_cast<unsigned>(got);
    if (flags & MSG_WAITFORONE) flags |= MSG_DONTWAIT;
    if (got == 0 || MonotonicNs() >= deadline) break;
  }
  return static_cast<int>(done);
}

VSOCKET_INTERPOSE(ssize_t, write, int fd, const void* buffer, size_t size) {
  const struct iovec part = {const_cast<void*>(buffer), size};
  return SendOr(fd, &part, 1, 0, [&] { return Real().write(fd, buffer, size); });
}

VSOCKET_INTERPOSE(ssize_t, writev, int fd, const struct iovec* parts, int count) {
  return SendOr(fd, parts, count, 0, [&] { return Real().writev(fd, parts, count); });
}

VSOCKET_INTERPOSE(ssize_t, pwritev2, int fd, const struct iovec* parts, int count, off_t offset, int flags) {
  if (!IsPosition(offset, flags)) return Real().pwritev2(fd, parts, count, offset, flags);
  return SendOr(fd, parts, count, 0, [&] { return Real().pwritev2(fd, parts, count, offset, flags); });
}

VSOCKET_INTERPOSE(ssize_t, pwritev64v2, int fd, const struct iovec* parts, int count, off_t offset, int flags) {
  if (!IsPosition(offset, flags)) return Real().pwritev64v2(fd, parts, count, offset, flags);
  return SendOr(fd, parts, count, 0, [&] { return Real().pwritev64v2(fd, parts, count, offset, flags); });
}

VSOCKET_INTERPOSE(ssize_t, send, int fd, const void* buffer, size_t size, int flags) {
  const struct iovec part = {const_cast<void*>(buffer), size};
  return SendOr(fd, &part, 1, flags, [&] { return Real().send(fd, buffer, size, flags); });
}

VSOCKET_INTERPOSE(ssize_t, sendto, int fd, const void* buffer, size_t size, int flags, const struct sockaddr* address, socklen_t length) {
  const struct iovec part = {const_cast<void*>(buffer), size};
  return SendOr(fd, &part, 1, flags, [&] { return Real().sendto(fd, buffer, size, flags, address, length); });
}

VSOCKET_INTERPOSE(ssize_t, sendmsg, int fd, const struct msghdr* message, int flags) {
  if (message == nullptr) return Real().sendmsg(fd, message, flags);
  BeforePassing(message);
  return SendOr(fd, message->msg_iov, static_cast<int>(message->msg_iovlen), flags, [&] { return Real().sendmsg(fd, message, flags); });
}

VSOCKET_INTERPOSE(int, sendmmsg, int fd, struct mmsghdr* messages, unsigned count, int flags) {
  for (unsigned i = 0; i < count; ++i) BeforePassing(&messages[i].msg_hdr);
  if (!FindSock(fd)) return Real().sendmmsg(fd, messages, count, flags);
  unsigned done = 0;
  while (done < count) {
    const struct msghdr& message = messages[done].msg_hdr;
    const ssize_t sent =
        SendOr(fd, message.msg_iov, static_cast<int>(message.msg_iovlen), flags, [&] { return Real().sendmsg(fd, &message, flags); });
    if (sent < 0 && done != 0) KeepForNextCall(FindSock(fd), -errno);
    if (sent < 0) return done != 0 ? static_cast<int>(done) : -1;
    messages[done++].msg_len = static_cast<unsigned>(sent);
    std::size_t offered = 0;
    for (std::size_t i = 0; i < message.msg_iovlen; ++i) offered += message.msg_iov[i].iov_len;
    if (static_cast<std::size_t>(sent) < offered) break;
  }
  return static_cast<int>(done);
}

VSOCKET_INTERPOSE(ssize_t, sendfile, int out, int in, off_t* offset, size_t size) {
  return SendFileFd(out, in, offset, size);
}
VSOCKET_INTERPOSE(ssize_t, sendfile64, int out, int in, off_t* offset, size_t size) {
  return SendFileFd(out, in, offset, size);
}

VSOCKET_INTERPOSE(ssize_t, splice, int in, off_t* in_offset, int out, off_t* out_offset, size_t size, unsigned flags) {
  const SockRef from = FindSock(in);
  if (from && IsAttached(from, in) && in_offset == nullptr) {
    const ssize_t moved = SpliceFromRing(from, in, out, size, flags);
    if (moved != kNotAttached) return moved;
  }
  const SockRef to = FindSock(out);
  if (to && IsAttached(to, out) && out_offset == nullptr) return SpliceToRing(in, out, size, flags);
  // By plain TCP the bytes are not counted: the connection stays there.
  UseTcp(in, channel::Reason::kUnsupportedCall);
  UseTcp(out, channel::Reason::kUnsupportedCall);
  return Real().splice(in, in_offset, out, out_offset, size, flags);
}

}  // namespace vsocket::shim
