// The receiving half of end.h: every way a program has to take bytes from a stream socket.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test/torture/end.h"
#include "test/torture/pieces.h"

enum { kSentinel = 0xa5 };

// A reset that the other thread's or process's send was told of shows here as a mere end: EndClose judges when both are done.
static long ReceivedEof(struct End* end, const char* call) {
  if (end->rx < end->plan->total[1 - end->side] && !EndMayReset(end)) Fail("%s: end of stream too early; %s", call, EndDescribe(end).text);
  atomic_store(&end->status->eof_seen, 1);
  FutexWake(&end->status->eof_seen);
  return kIoEof;
}

// recvmmsg fills the pieces one after another, each perhaps in part.
static long ReceiveMany(struct End* end, struct Random* random, size_t size, int flags, bool may_block) {
  struct iovec pieces[kMaxPieces];
  unsigned count;
  CutPieces(random, end->in, size, pieces, &count);
  struct mmsghdr messages[kMaxPieces];
  memset(messages, 0, sizeof messages);
  unsigned used = 0;
  for (unsigned i = 0; i < count; ++i) {
    if (pieces[i].iov_len == 0) continue;  // an empty message would look like the end of the stream
    pieces[used] = pieces[i];
    messages[used].msg_hdr.msg_iov = &pieces[used];
    messages[used].msg_hdr.msg_iovlen = 1;
    ++used;
  }
  const int done = recvmmsg(end->fd, messages, used, flags | MSG_WAITFORONE, NULL);
  if (done < 0) return EndError(end, "recvmmsg", false, may_block, true);
  if (done == 0) Fail("recvmmsg: 0 messages; %s", EndDescribe(end).text);
  long total = 0;
  bool ended = false;
  for (int i = 0; i < done; ++i) {
    const unsigned n = messages[i].msg_len;
    if (n > pieces[i].iov_len) Fail("recvmmsg: message longer than its buffer; %s", EndDescribe(end).text);
    if (n > 0 && ended) Fail("recvmmsg: bytes after the end of the stream; %s", EndDescribe(end).text);
    if (n == 0) ended = true;
    EndReceived(end, pieces[i].iov_base, n, "recvmmsg");
    total += n;
  }
  end->short_receive = (size_t)total < size;
  return total > 0 ? total : ReceivedEof(end, "recvmmsg");
}

static long SpliceOut(struct End* end, size_t size) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) Fail("pipe: %s", strerror(errno));
  if (size > 32768) size = 32768;
  long result;
  const ssize_t n = splice(end->fd, NULL, ends[1], NULL, size, end->nonblocking ? SPLICE_F_NONBLOCK : 0);
  if (n < 0) {
    result = EndError(end, "splice", false, true, false);
  } else if (n == 0) {
    result = ReceivedEof(end, "splice");
  } else {
    if (read(ends[0], end->in, (size_t)n) != n) Fail("read from a pipe: %s", strerror(errno));
    EndReceived(end, end->in, (uint64_t)n, "splice");
    result = n;
  }
  end->short_receive = false;
  close(ends[0]);
  close(ends[1]);
  return result;
}

// What is announced must be there at once: by FIONREAD, or by a MSG_PEEK that was just checked.
static long ReceiveAnnounced(struct End* end, size_t size, const char* how) {
  const ssize_t n = recv(end->fd, end->in, size, MSG_DONTWAIT);
  if (n < 0 || (size_t)n != size) {
    if (n < 0 && EndMayReset(end)) return EndError(end, how, false, false, true);
    Fail("%s announced %zu bytes, recv gave %zd (%s); %s", how, size, n, n < 0 ? strerror(errno) : "short", EndDescribe(end).text);
  }
  EndReceived(end, end->in, (uint64_t)n, how);
  end->short_receive = false;
  return n;
}

static long Peek(struct End* end, size_t size, int flags, bool may_block) {
  const ssize_t n = recv(end->fd, end->in, size, flags | MSG_PEEK);
  if (n < 0) return EndError(end, "recv(MSG_PEEK)", false, may_block, true);
  if (n == 0) return ReceivedEof(end, "recv(MSG_PEEK)");
  const uint64_t before = end->rx;
  EndReceived(end, end->in, (uint64_t)n, "recv(MSG_PEEK)");
  end->rx = before;  // seen, not taken
  Count(&end->lane->share->verified, (uint64_t)-n);
  return ReceiveAnnounced(end, (size_t)n, "MSG_PEEK");
}

static long Fionread(struct End* end, uint64_t limit) {
  int ready = -1;
  if (ioctl(end->fd, FIONREAD, &ready) != 0) Fail("FIONREAD: %s", strerror(errno));
  const uint64_t left = end->plan->total[1 - end->side] - end->rx;
  if (ready < 0 || (uint64_t)ready > left) Fail("FIONREAD: %d, %llu can come; %s", ready, (unsigned long long)left, EndDescribe(end).text);
  Count(&end->lane->share->extras[kFionread], 1);
  if (ready == 0 || limit == 0) return kIoInterrupted;
  uint64_t size = (uint64_t)ready < limit ? (uint64_t)ready : limit;
  if (size > kMaxIo) size = kMaxIo;
  return ReceiveAnnounced(end, (size_t)size, "FIONREAD");
}

static void CheckSoError(struct End* end) {
  int error = -1;
  socklen_t length = sizeof error;
  if (getsockopt(end->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) Fail("SO_ERROR: %s", strerror(errno));
  if (error != 0) Fail("SO_ERROR: %s; %s", strerror(error), EndDescribe(end).text);
  Count(&end->lane->share->extras[kSoError], 1);
}

static ssize_t OneCall(struct End* end, struct Random* random, enum RecvOp op, size_t size, int flags) {
  struct iovec pieces[kMaxPieces];
  unsigned count;
  switch (op) {
    case kRecv:
      return recv(end->fd, end->in, size, flags);
    case kRead:
      return read(end->fd, end->in, size);
    case kReadv:
      CutPieces(random, end->in, size, pieces, &count);
      return readv(end->fd, pieces, (int)count);
    case kRecvfrom: {
      struct sockaddr_storage from;
      socklen_t length = sizeof from;
      const ssize_t n = recvfrom(end->fd, end->in, size, flags, (struct sockaddr*)&from, &length);
      if (n >= 0 && length != 0) Fail("recvfrom: an address on a connected stream; %s", EndDescribe(end).text);
      return n;
    }
    case kRecvmsg: {
      CutPieces(random, end->in, size, pieces, &count);
      struct msghdr message = {.msg_iov = pieces, .msg_iovlen = count};
      const ssize_t n = recvmsg(end->fd, &message, flags);
      if (n >= 0 && (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC | MSG_OOB)) != 0)
        Fail("recvmsg: flags %x; %s", (unsigned)message.msg_flags, EndDescribe(end).text);
      return n;
    }
    case kDiscard: {
      memset(end->in, kSentinel, size);
      const ssize_t n = recv(end->fd, end->in, size, flags | MSG_TRUNC);
      for (ssize_t i = 0; i < n; i += 61) {
        if (end->in[i] != kSentinel) Fail("recv(MSG_TRUNC) wrote into the buffer; %s", EndDescribe(end).text);
      }
      return n;
    }
    default:
      Fail("no such receive call: %d", (int)op);
  }
}

long RecvSome(struct End* end, uint64_t limit) {
  struct Random* random = &end->random_rx;
  struct Share* share = end->lane->share;
  const struct Styles* styles = &end->lane->options->styles;
  uint64_t allowed = styles->allowed[kGroupRecv];
  const uint64_t flagged = 1ULL << kRecv | 1ULL << kRecvfrom | 1ULL << kRecvmsg | 1ULL << kRecvmmsg;
  if (end->always_dontwait) allowed &= flagged | 1ULL << kPeek | 1ULL << kDiscard;
  if (end->always_dontwait && (allowed & flagged) == 0) allowed |= flagged;
  unsigned op = RandomBit(random, allowed);
  if ((op == kSpliceOut || op == kDiscard) && RandomChance(random, 90)) op = RandomBit(random, allowed);
  if (StyleAllowed(styles, kGroupExtra, kSoError) && !EndMayReset(end) && RandomChance(random, 1)) CheckSoError(end);
  if (StyleAllowed(styles, kGroupExtra, kFionread) && !EndMayReset(end) && RandomChance(random, 2)) {
    const long n = Fionread(end, limit);
    if (n != kIoInterrupted) return n;
  }

  // At the end of the stream more than what is left may be asked for; what comes too much is caught in EndReceived.
  const bool last = end->rx + limit == end->plan->total[1 - end->side];
  const bool beyond = limit == 0 || (last && RandomChance(random, 30));
  const size_t size = IoSize(random, beyond ? kMaxIo : limit, kMaxIo);
  const bool has_flags = (1ULL << op & (flagged | 1ULL << kPeek | 1ULL << kDiscard)) != 0;
  const bool dontwait = has_flags && (end->always_dontwait || (StyleAllowed(styles, kGroupExtra, kDontwait) && RandomChance(random, 10)));
  const bool waitall = (op == kRecv || op == kRecvmsg || op == kRecvfrom) && !beyond && !end->no_waitall &&
                       StyleAllowed(styles, kGroupExtra, kWaitall) && RandomChance(random, 20);
  const int flags = (dontwait ? MSG_DONTWAIT : 0) | (waitall ? MSG_WAITALL : 0);
  Count(&share->receives[op], 1);
  if (waitall) Count(&share->extras[kWaitall], 1);
  if (dontwait) Count(&share->extras[kDontwait], 1);
  if (op == kRecvmmsg) return ReceiveMany(end, random, size, flags, !dontwait);
  if (op == kSpliceOut) return SpliceOut(end, size);
  if (op == kPeek) return Peek(end, size, flags, !dontwait);

  const char* name = StyleName(kGroupRecv, op);
  const ssize_t n = OneCall(end, random, op, size, flags);
  if (n < 0) return EndError(end, name, false, !dontwait, true);
  if ((size_t)n > size) Fail("%s: %zd bytes into %zu; %s", name, n, size, EndDescribe(end).text);
  if (n == 0) return ReceivedEof(end, name);
  const bool must_be_whole = waitall && !dontwait && !EndMayStopShort(end, false);
  if (must_be_whole && (size_t)n != size) Fail("%s(MSG_WAITALL): %zd of %zu bytes; %s", name, n, size, EndDescribe(end).text);
  if (op == kDiscard)
    EndDiscarded(end, (uint64_t)n);
  else
    EndReceived(end, end->in, (uint64_t)n, name);
  end->short_receive = (size_t)n < size;
  return n;
}
