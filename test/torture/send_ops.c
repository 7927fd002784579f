// The sending half of end.h: every way a program has to hand bytes to a stream socket.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test/torture/end.h"
#include "test/torture/pieces.h"
#include "test/torture/stream.h"

static ssize_t SendMany(struct End* end, struct Random* random, size_t size, int flags) {
  struct iovec pieces[kMaxPieces];
  unsigned count;
  CutPieces(random, end->out, size, pieces, &count);
#ifndef __GLIBC__
  // musl's sendmmsg goes on with the next message after a short one; a stream would get a hole.
  pieces[0].iov_len = size;
  count = 1;
#endif
  struct mmsghdr messages[kMaxPieces];
  memset(messages, 0, sizeof messages);
  for (unsigned i = 0; i < count; ++i) {
    messages[i].msg_hdr.msg_iov = &pieces[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  const int done = sendmmsg(end->fd_tx, messages, count, flags);
  if (done < 0) return -1;
  if (done == 0) Fail("sendmmsg: 0 messages; %s", EndDescribe(end).text);
  size_t total = 0;
  for (int i = 0; i < done; ++i) {
    total += messages[i].msg_len;
    if (messages[i].msg_len != pieces[i].iov_len && i + 1 < done)
      Fail("sendmmsg: went on after a short message; %s", EndDescribe(end).text);
  }
  if (total == 0) {  // only empty messages went: nothing moved, and nothing is wrong
    errno = EAGAIN;
    return -2;
  }
  return (ssize_t)total;
}

// The kernel sends a file's pages without copying, so each call needs pages of its own that nobody changes afterwards.
static ssize_t SendFile(struct End* end, struct Random* random, size_t size) {
  const int file = memfd_create("torture", MFD_CLOEXEC);
  const off_t skip = (off_t)RandomBelow(random, 5000);
  if (file < 0 || pwrite(file, end->out, size, skip) != (ssize_t)size) Fail("memfd: %s", strerror(errno));
  off_t offset = skip;
  const bool by_offset = RandomChance(random, 50);
  if (!by_offset) lseek(file, skip, SEEK_SET);
  const ssize_t n = sendfile(end->fd_tx, file, by_offset ? &offset : NULL, size);
  const int error = errno;
  const off_t now = by_offset ? offset : lseek(file, 0, SEEK_CUR);
  if (now != skip + (n > 0 ? n : 0))
    Fail("sendfile: %zd bytes, but the file is at +%lld; %s", n, (long long)(now - skip), EndDescribe(end).text);
  close(file);
  errno = error;
  return n;
}

static ssize_t SpliceIn(struct End* end, size_t size) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) Fail("pipe: %s", strerror(errno));
  if (size > 32768) size = 32768;
  if (write(ends[1], end->out, size) != (ssize_t)size) Fail("write to a pipe: %s", strerror(errno));
  const ssize_t n = splice(ends[0], NULL, end->fd_tx, NULL, size, 0);
  const int error = errno;
  close(ends[0]);
  close(ends[1]);
  errno = error;
  return n;
}

static void CheckOutq(struct End* end) {
  int queued = -1;  // TIOCOUTQ is SIOCOUTQ by another name: tcp(7)
  if (ioctl(end->fd_tx, TIOCOUTQ, &queued) != 0) Fail("SIOCOUTQ: %s", strerror(errno));
  if (queued < 0 || (uint64_t)queued > end->tx + 1)
    Fail("SIOCOUTQ: %d after %llu bytes; %s", queued, (unsigned long long)end->tx, EndDescribe(end).text);
  Count(&end->lane->share->extras[kOutq], 1);
}

long SendSome(struct End* end, uint64_t limit) {
  struct Random* random = &end->random_tx;
  struct Share* share = end->lane->share;
  const struct Styles* styles = &end->lane->options->styles;
  uint64_t allowed = styles->allowed[kGroupSend];
  if (end->always_dontwait) allowed &= 1ULL << kSend | 1ULL << kSendto | 1ULL << kSendmsg | 1ULL << kSendmmsg;
  unsigned op = RandomBit(random, allowed);
  // These go by kernel TCP only or cost several calls: seldom, unless they are all that is wanted.
  if ((op == kSpliceIn || op == kSendfile) && RandomChance(random, 90)) op = RandomBit(random, allowed);
  size_t size = IoSize(random, limit, kMaxIo);
  StreamFill(end->tx_key, end->tx, end->out, size);
  if (StyleAllowed(styles, kGroupExtra, kOutq) && RandomChance(random, 1)) CheckOutq(end);

  const bool has_flags = op == kSend || op == kSendto || op == kSendmsg || op == kSendmmsg;
  const bool dontwait = has_flags && (end->always_dontwait || (StyleAllowed(styles, kGroupExtra, kDontwait) && RandomChance(random, 10)));
  const bool nosignal = has_flags && RandomChance(random, 50);
  const int flags = (dontwait ? MSG_DONTWAIT : 0) | (nosignal ? MSG_NOSIGNAL : 0) | (RandomBelow(random, 1000) == 0 ? MSG_MORE : 0);
  const unsigned pipes_before = SigpipeCount();
  struct iovec pieces[kMaxPieces];
  unsigned count;
  ssize_t n = -1;
  switch ((enum SendOp)op) {
    case kSend:
      n = send(end->fd_tx, end->out, size, flags);
      break;
    case kWrite:
      n = write(end->fd_tx, end->out, size);
      break;
    case kSendto:
      n = sendto(end->fd_tx, end->out, size, flags, NULL, 0);
      break;
    case kWritev:
      CutPieces(random, end->out, size, pieces, &count);
      n = writev(end->fd_tx, pieces, (int)count);
      break;
    case kSendmsg: {
      CutPieces(random, end->out, size, pieces, &count);
      struct msghdr message = {.msg_iov = pieces, .msg_iovlen = count};
      n = sendmsg(end->fd_tx, &message, flags);
      break;
    }
    case kSendmmsg:
      n = SendMany(end, random, size, flags);
      break;
    case kSendfile:
      n = SendFile(end, random, size);
      break;
    case kSpliceIn:
      n = SpliceIn(end, size);
      break;
    default:
      break;
  }
  if (n == -2) return kIoInterrupted;
  const char* name = StyleName(kGroupSend, op);
  Count(&share->sends[op], 1);
  if (n < 0) {
    const bool plain = op != kSendfile && op != kSpliceIn && op != kSendmmsg;
    if (errno == EPIPE && plain && (SigpipeCount() != pipes_before) == nosignal) {
      Fail("%s: EPIPE %s; %s", name, nosignal ? "with SIGPIPE in spite of MSG_NOSIGNAL" : "without SIGPIPE", EndDescribe(end).text);
    }
    return EndError(end, name, true, !dontwait, plain);
  }
  if (n == 0) Fail("%s: 0 of %zu bytes sent; %s", name, size, EndDescribe(end).text);
  if ((size_t)n > size) Fail("%s: %zd of %zu bytes sent; %s", name, n, size, EndDescribe(end).text);
  const bool must_be_whole = !dontwait && op != kSpliceIn && op != kSendfile && !EndMayStopShort(end, true);
  if (must_be_whole && (size_t)n != size) Fail("%s: a blocking call sent %zd of %zu bytes; %s", name, n, size, EndDescribe(end).text);
  EndSent(end, (uint64_t)n);
  return n;
}
