// honest: the programs that a hostile peer must not be able to hurt. They know nothing of vsocket.
//
//   honest serve ADDRESS PORTFILE poll|epoll|threads   echoes on every connection; one whose first byte is 'b' gets a flood instead. Ends
//   by
//                                                      itself, with 0, when the connection whose first byte is 'H' ends.
//   honest call ADDRESS PORT                           that connection: sends and checks its echo until SIGTERM; then closes and prints how
//                                                      many round trips it made. An answer later than 10 s is a failure.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "test/torture/random.h"
#include "test/torture/stream.h"

enum { kMaxConnections = 64, kBuffer = 65536 };

struct Connection {
  int fd;  // -1: free
  bool flood, first_seen, last;
  size_t used, sent;
  unsigned char buffer[kBuffer];
};

static struct Connection g_connections[kMaxConnections];
static unsigned char g_flood[kBuffer];
static volatile sig_atomic_t g_stop;

static _Noreturn void Die(const char* what) {
  fprintf(stderr, "FAIL honest %d: %s: %s\n", (int)getpid(), what, strerror(errno));
  exit(1);
}

static void OnTerm(int number) {
  (void)number;
  g_stop = 1;
}

static struct sockaddr_in AddressOf(const char* text, int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  if (inet_pton(AF_INET, text, &address.sin_addr) != 1) Die("address");
  return address;
}

static void SawFirst(struct Connection* connection) {
  if (connection->first_seen) return;
  connection->first_seen = true;
  connection->flood = connection->buffer[0] == 'b';
  connection->last = connection->buffer[0] == 'H';
}

// Moves what can be moved without waiting. False when the connection is over.
static bool Move(struct Connection* connection) {
  for (int budget = 8; budget > 0; --budget) {
    if (connection->used == 0 || connection->flood) {
      const ssize_t n = recv(connection->fd, connection->buffer, kBuffer, MSG_DONTWAIT);
      if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return false;
      if (n > 0) {
        SawFirst(connection);
        connection->used = (size_t)n;
        connection->sent = 0;
      } else if (!connection->flood) {
        return true;
      }
    }
    const unsigned char* from = connection->flood ? g_flood : connection->buffer + connection->sent;
    const size_t size = connection->flood ? kBuffer : connection->used - connection->sent;
    const ssize_t n = send(connection->fd, from, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    connection->sent += (size_t)n;
    if (connection->sent == connection->used) connection->used = 0;
  }
  return true;
}

static struct Connection* Admit(int listener) {
  const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return NULL;
  for (unsigned i = 0; i < kMaxConnections; ++i) {
    if (g_connections[i].fd >= 0) continue;
    memset(&g_connections[i], 0, offsetof(struct Connection, buffer));
    g_connections[i].fd = fd;
    return &g_connections[i];
  }
  close(fd);
  return NULL;
}

static short Wanted(const struct Connection* connection) {
  if (connection->flood) return POLLIN | POLLOUT;
  return connection->used > 0 ? POLLOUT : POLLIN;
}

static void ServeByPoll(int listener) {
  for (;;) {
    struct pollfd fds[kMaxConnections + 1] = {{.fd = listener, .events = POLLIN}};
    for (unsigned i = 0; i < kMaxConnections; ++i)
      fds[i + 1] = (struct pollfd){.fd = g_connections[i].fd, .events = Wanted(&g_connections[i])};
    if (poll(fds, kMaxConnections + 1, -1) < 0 && errno != EINTR) Die("poll");
    for (unsigned i = 0; i < kMaxConnections; ++i) {
      struct Connection* connection = &g_connections[i];
      if (connection->fd < 0 || fds[i + 1].revents == 0 || Move(connection)) continue;
      close(connection->fd);
      connection->fd = -1;
      if (connection->last) return;
    }
    if (fds[0].revents != 0) Admit(listener);
  }
}

static void ServeByEpoll(int listener) {
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0) Die("epoll");
  for (;;) {
    struct epoll_event events[8];
    const int n = epoll_wait(epoll, events, 8, -1);
    if (n < 0 && errno != EINTR) Die("epoll_wait");
    for (int i = 0; i < n; ++i) {
      struct Connection* connection = events[i].data.ptr;
      if (connection == NULL) {
        connection = Admit(listener);
        if (connection == NULL) continue;
        event = (struct epoll_event){.events = EPOLLIN, .data.ptr = connection};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event) != 0) Die("epoll_ctl");
      }
      if (Move(connection)) {
        event = (struct epoll_event){.events = (uint32_t)Wanted(connection), .data.ptr = connection};
        if (epoll_ctl(epoll, EPOLL_CTL_MOD, connection->fd, &event) != 0) Die("epoll_ctl");
        continue;
      }
      close(connection->fd);
      connection->fd = -1;
      if (connection->last) return;
    }
  }
}

static void* ServeOne(void* argument) {
  const int fd = (int)(intptr_t)argument;
  static _Thread_local unsigned char buffer[kBuffer];
  bool first = true;
  bool last = false;
  bool flood = false;
  for (ssize_t n; (n = flood ? kBuffer : recv(fd, buffer, sizeof buffer, 0)) > 0;) {
    if (first) last = buffer[0] == 'H', flood = buffer[0] == 'b';
    first = false;
    ssize_t at = 0;
    while (at < n) {
      const ssize_t sent = send(fd, buffer + at, (size_t)(n - at), MSG_NOSIGNAL);
      if (sent <= 0) break;
      at += sent;
    }
    if (at < n) break;
  }
  close(fd);
  if (last) exit(0);
  return NULL;
}

static void ServeByThreads(int listener) {
  for (;;) {
    const int fd = accept(listener, NULL, NULL);
    if (fd < 0) continue;
    pthread_t thread;
    if (pthread_create(&thread, NULL, ServeOne, (void*)(intptr_t)fd) != 0) Die("pthread_create");
    pthread_detach(thread);
  }
}

static int Serve(const char* address_text, const char* port_file, const char* how) {
  for (unsigned i = 0; i < kMaxConnections; ++i) g_connections[i].fd = -1;
  struct sockaddr_in address = AddressOf(address_text, 0);
  socklen_t length = sizeof address;
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(listener, (struct sockaddr*)&address, length) != 0 || listen(listener, 64) != 0) Die("listen");
  if (strcmp(how, "threads") != 0) fcntl(listener, F_SETFL, O_NONBLOCK);
  getsockname(listener, (struct sockaddr*)&address, &length);
  char temporary[512];
  snprintf(temporary, sizeof temporary, "%s.new", port_file);
  FILE* file = fopen(temporary, "w");
  if (file == NULL || fprintf(file, "%d\n", ntohs(address.sin_port)) < 0 || fclose(file) != 0 || rename(temporary, port_file) != 0)
    Die(port_file);
  if (strcmp(how, "epoll") == 0)
    ServeByEpoll(listener);
  else if (strcmp(how, "threads") == 0)
    ServeByThreads(listener);
  else
    ServeByPoll(listener);
  return 0;
}

static int Call(const char* address_text, int port) {
  struct sigaction action = {.sa_handler = OnTerm};
  sigaction(SIGTERM, &action, NULL);
  const struct sockaddr_in address = AddressOf(address_text, port);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, (const struct sockaddr*)&address, sizeof address) != 0) Die("connect");
  const struct timeval limit = {.tv_sec = 10};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  struct Random random = RandomOf(1, 1);
  static unsigned char out[kBuffer];
  static unsigned char in[kBuffer];
  unsigned long trips = 0;
  uint64_t position = 0;
  while (!g_stop || trips == 0) {
    const size_t size = trips == 0 ? 1 : 1 + RandomLog(&random, kBuffer / 4);
    StreamFill(7, position, out, size);
    if (trips == 0) out[0] = 'H';
    for (size_t at = 0; at < size;) {
      const ssize_t n = send(fd, out + at, size - at, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) Die("send");
      at += (size_t)n;
    }
    for (size_t at = 0; at < size;) {
      const ssize_t n = recv(fd, in + at, size - at, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) Die("no answer on the honest connection");
      at += (size_t)n;
    }
    if (memcmp(in, out, size) != 0) Die("a wrong answer on the honest connection");
    position += size;
    ++trips;
  }
  close(fd);
  printf("{\"round_trips\":%lu,\"bytes\":%llu}\n", trips, (unsigned long long)position);
  return 0;
}

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  if (argc == 5 && strcmp(argv[1], "serve") == 0) return Serve(argv[2], argv[3], argv[4]);
  if (argc == 4 && strcmp(argv[1], "call") == 0) return Call(argv[2], atoi(argv[3]));
  fprintf(stderr, "usage: honest serve ADDRESS PORTFILE poll|epoll|threads | honest call ADDRESS PORT\n");
  return 2;
}
