// The names of everything the torture chooses among, in groups. `--style LIST` narrows the groups it names; a group it does not name
// stays whole. Each list is the one place where a kind is declared: the enum, its name on the command line and in the report.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// How one end of a connection is run.
#define END_STYLES(X)                                                         \
  X(kLoop, "loop")             /* one thread, readiness, several ends */      \
  X(kTurns, "turns")           /* one thread, strictly alternating */         \
  X(kThreads, "threads")       /* one thread reads, another writes */         \
  X(kForkWriter, "forkwriter") /* a child writes, the parent reads */         \
  X(kTakeover, "takeover")     /* a child goes on where the parent stopped */ \
  X(kForkTurns, "forkturns")   /* parent and child take turns */              \
  X(kInetd, "inetd")           /* a program gets it as stdin and stdout and echoes */

// How a loop waits.
#define WAIT_KINDS(X)             \
  X(kPoll, "poll")                \
  X(kPpoll, "ppoll")              \
  X(kSelect, "select")            \
  X(kPselect, "pselect")          \
  X(kEpollLevel, "epoll")         \
  X(kEpollEdge, "edge")           \
  X(kEpollOneshot, "oneshot")     \
  X(kEpollExclusive, "exclusive") \
  X(kEpollPwait, "pwait")         \
  X(kEpollPwait2, "pwait2")       \
  X(kEpollNested, "nested")       \
  X(kEpollPolled, "epollpoll")

// How a connection ends.
#define ENDINGS(X)                                                                          \
  X(kShutdown, "shutdown")   /* each end: SHUT_WR after its last byte */                    \
  X(kHalfClose, "halfclose") /* one end: SHUT_WR first; the other sends on after the EOF */ \
  X(kClose, "close")         /* one end closes with everything done; the other sees EOF */  \
  X(kReset, "reset")         /* one end closes with bytes unread; the other sees a reset */ \
  X(kAbort, "abort")         /* one end closes with SO_LINGER 0 */

#define SEND_OPS(X)        \
  X(kSend, "send")         \
  X(kWrite, "write")       \
  X(kWritev, "writev")     \
  X(kSendto, "sendto")     \
  X(kSendmsg, "sendmsg")   \
  X(kSendmmsg, "sendmmsg") \
  X(kSendfile, "sendfile") \
  X(kSpliceIn, "splicein")

#define RECV_OPS(X)        \
  X(kRecv, "recv")         \
  X(kRead, "read")         \
  X(kReadv, "readv")       \
  X(kRecvfrom, "recvfrom") \
  X(kRecvmsg, "recvmsg")   \
  X(kRecvmmsg, "recvmmsg") \
  X(kPeek, "peek")         \
  X(kDiscard, "discard")   \
  X(kSpliceOut, "spliceout")

// Things done now and then between the data calls.
#define EXTRAS(X)                  \
  X(kDup, "dup")                   \
  X(kFionread, "fionread")         \
  X(kOutq, "outq")                 \
  X(kSoError, "soerror")           \
  X(kTimeouts, "timeouts")         \
  X(kSignals, "signals")           \
  X(kSmallBuffers, "smallbuffers") \
  X(kDontwait, "dontwait")         \
  X(kWaitall, "waitall")           \
  X(kDrainedByShortRead, "shortread")

#define STYLE_ENUM(id, text) id,
enum EndStyle { END_STYLES(STYLE_ENUM) kEndStyles };
enum WaitKind { WAIT_KINDS(STYLE_ENUM) kWaitKinds };
enum Ending { ENDINGS(STYLE_ENUM) kEndings };
enum SendOp { SEND_OPS(STYLE_ENUM) kSendOps };
enum RecvOp { RECV_OPS(STYLE_ENUM) kRecvOps };
enum Extra { EXTRAS(STYLE_ENUM) kExtras };
#undef STYLE_ENUM

enum StyleGroup { kGroupEnd, kGroupWait, kGroupEnding, kGroupSend, kGroupRecv, kGroupExtra, kGroups };

// The kinds allowed, a bit each, by group.
struct Styles {
  uint64_t allowed[kGroups];
};

static inline bool StyleAllowed(const struct Styles* styles, enum StyleGroup group, unsigned kind) {
  return (styles->allowed[group] >> kind & 1) != 0;
}

struct Styles StylesAll(void);

// Narrows `styles` to a comma-separated list; "-name" takes one kind away instead. False when a name is unknown.
bool StylesParse(struct Styles* styles, const char* list);

const char* StyleName(enum StyleGroup group, unsigned kind);
unsigned StyleCount(enum StyleGroup group);
