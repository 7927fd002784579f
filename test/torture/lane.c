#include "test/torture/lane.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test/torture/engines.h"

struct Address {
  struct sockaddr_storage storage;
  socklen_t length;
};

static uint32_t PortOf(const struct sockaddr_storage* address) {
  if (address->ss_family == AF_INET6) return ntohs(((const struct sockaddr_in6*)address)->sin6_port);
  return ntohs(((const struct sockaddr_in*)address)->sin_port);
}

static struct Address AddressOf(const char* text, uint32_t port) {
  struct Address address = {.length = sizeof(struct sockaddr_in)};
  struct sockaddr_in* four = (struct sockaddr_in*)&address.storage;
  struct sockaddr_in6* six = (struct sockaddr_in6*)&address.storage;
  if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons((uint16_t)port);
  } else if (inet_pton(AF_INET6, text, &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6;
    six->sin6_port = htons((uint16_t)port);
    address.length = sizeof *six;
  } else {
    Fail("not an address: %s", text);
  }
  return address;
}

static void RunBatch(struct Lane* lane, const struct BatchPlan* plan, struct End ends[]) {
  const enum EndStyle style = plan->style[lane->side];
  Count(&lane->share->ends[style], plan->count);
  switch (style) {
    case kLoop:
      RunLoop(lane, ends, plan->count);
      break;
    case kTurns:
      RunTurns(&ends[0]);
      break;
    case kThreads:
      RunThreads(&ends[0]);
      break;
    case kForkWriter:
      RunForkWriter(&ends[0]);
      break;
    case kTakeover:
      RunTakeover(&ends[0]);
      break;
    case kForkTurns:
      RunForkTurns(&ends[0]);
      break;
    case kInetd:
      RunInetd(&ends[0]);
      break;
    default:
      Fail("no such style");
  }
}

static void SetActivity(struct Lane* lane, enum Activity activity, bool active) {
  struct EndStatus* status = &lane->share->lanes[lane->index].ends[lane->side][0];
  atomic_store(&status->activity[0], activity);
  atomic_store(&status->active, active);
  atomic_fetch_add(&status->progress, 1);
}

static int FinishConnect(int fd) {
  struct pollfd wait = {.fd = fd, .events = POLLOUT};
  while (poll(&wait, 1, -1) < 0 && errno == EINTR) {
  }
  int error = -1;
  socklen_t length = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
  return error;
}

static int Connect(struct Lane* lane, const struct Address* to, unsigned index, bool* nonblocking) {
  struct Random* random = &lane->random;
  _Atomic uint32_t* by_port = lane->share->lanes[lane->index].connection_of_port;
  *nonblocking = RandomChance(random, 50);
  const int fd = socket(to->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | (*nonblocking ? SOCK_NONBLOCK : 0), 0);
  if (fd < 0) Fail("socket: %s", strerror(errno));
  if (connect(fd, (const struct sockaddr*)&to->storage, to->length) != 0) {
    // An interrupted connect goes on by itself: connect(2), EINTR.
    if (errno != EINPROGRESS && errno != EINTR) Fail("connect: %s", strerror(errno));
    const int error = FinishConnect(fd);
    if (error != 0) Fail("connect: %s", strerror(error));
  }
  struct sockaddr_storage self;
  socklen_t length = sizeof self;
  if (getsockname(fd, (struct sockaddr*)&self, &length) != 0) Fail("getsockname: %s", strerror(errno));
  const uint32_t port = PortOf(&self);
  // The acceptor reads this to learn which connection it has; a port cannot come back before it has taken the number out.
  if (atomic_exchange(&by_port[port], index + 1) != 0) Fail("port %u is used twice", port);
  atomic_store(&lane->share->lanes[lane->index].ends[0][index].port, port);
  return fd;
}

void LaneConnect(struct Lane* lane) {
  struct LaneShare* shared = &lane->share->lanes[lane->index];
  while (atomic_load(&shared->port) == 0) FutexWait(&shared->port, 0);
  const struct Address to = AddressOf(lane->options->address, atomic_load(&shared->port));
  struct End ends[kMaxBatch];
  uint32_t batch = 0;
  for (; atomic_load(&lane->share->stop) == 0; ++batch) {
    struct BatchPlan plan;
    PlanBatch(lane->options, lane->index, batch, &plan);
    atomic_fetch_add(&shared->announced, 1);
    FutexWake(&shared->announced);
    SetActivity(lane, kConnecting, true);
    for (unsigned i = 0; i < plan.count; ++i) {
      bool nonblocking;
      const int fd = Connect(lane, &to, i, &nonblocking);
      EndOpen(&ends[i], lane, &plan, i, fd, nonblocking);
    }
    RunBatch(lane, &plan, ends);
    for (unsigned i = 0; i < plan.count; ++i) Count(&lane->share->endings[plan.connections[i].ending], 1);
    Count(&lane->share->connections, plan.count);
  }
  SetActivity(lane, kIdle, false);
  atomic_store(&shared->finished, batch + 1);
  atomic_fetch_add(&shared->announced, 1);
  FutexWake(&shared->announced);
}

static int Accept(struct Lane* lane, int listener, bool* nonblocking, uint32_t* port) {
  struct sockaddr_storage from;
  for (;;) {
    socklen_t length = sizeof from;
    int fd;
    const unsigned how = (unsigned)RandomBelow(&lane->random, 3);
    if (how == 0) {
      struct pollfd wait = {.fd = listener, .events = POLLIN};
      while (poll(&wait, 1, -1) < 0 && errno == EINTR) {
      }
    }
    *nonblocking = how != 1 && RandomChance(&lane->random, 50);
    if (how == 1)
      fd = accept(listener, (struct sockaddr*)&from, &length);
    else
      fd = accept4(listener, (struct sockaddr*)&from, &length, SOCK_CLOEXEC | (*nonblocking ? SOCK_NONBLOCK : 0));
    if (fd >= 0) {
      *port = PortOf(&from);
      return fd;
    }
    if (errno != EINTR) Fail("accept: %s", strerror(errno));
  }
}

static int Listen(struct Lane* lane, uint32_t* port) {
  struct Address address = AddressOf(lane->options->address, 0);
  // Many servers listen on one IPv6 socket for both families.
  if (address.storage.ss_family == AF_INET && RandomChance(&lane->random, 40)) {
    char mapped[128] = "::ffff:";
    strncat(mapped, lane->options->address, sizeof mapped - strlen(mapped) - 1);
    address = AddressOf(mapped, 0);
  }
  int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 && errno == EAFNOSUPPORT) {  // no IPv6 here
    address = AddressOf(lane->options->address, 0);
    fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  }
  const int off = 0;
  if (address.storage.ss_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (fd < 0 || bind(fd, (struct sockaddr*)&address.storage, address.length) != 0 || listen(fd, kMaxBatch * 2) != 0) {
    Fail("listen on %s: %s", lane->options->address, strerror(errno));
  }
  getsockname(fd, (struct sockaddr*)&address.storage, &address.length);
  *port = PortOf(&address.storage);
  return fd;
}

void LaneAccept(struct Lane* lane) {
  struct LaneShare* shared = &lane->share->lanes[lane->index];
  uint32_t port;
  const int listener = Listen(lane, &port);
  atomic_store(&shared->port, port);
  FutexWake(&shared->port);
  struct End ends[kMaxBatch];
  for (uint32_t batch = 0;; ++batch) {
    while (atomic_load(&shared->announced) <= batch) FutexWait(&shared->announced, batch);
    if (atomic_load(&shared->finished) == batch + 1) break;
    struct BatchPlan plan;
    PlanBatch(lane->options, lane->index, batch, &plan);
    SetActivity(lane, kAccepting, true);
    for (unsigned i = 0; i < plan.count; ++i) {
      bool nonblocking;
      uint32_t from;
      const int fd = Accept(lane, listener, &nonblocking, &from);
      uint32_t index;
      // The connector publishes the number right after connect() returns.
      while ((index = atomic_exchange(&shared->connection_of_port[from], 0)) == 0) sched_yield();
      atomic_store(&shared->ends[1][index - 1].port, from);
      EndOpen(&ends[index - 1], lane, &plan, index - 1, fd, nonblocking);
    }
    RunBatch(lane, &plan, ends);
  }
  SetActivity(lane, kIdle, false);
  close(listener);
}
