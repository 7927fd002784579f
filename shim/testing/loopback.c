// A TCP exchange with itself over loopback, in C for any libc: exit status 0 when every byte came back, with fork, dup and poll on the way.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof at;
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(listener, (struct sockaddr*)&at, sizeof at) != 0 || listen(listener, 1) != 0) return 1;
  if (getsockname(listener, (struct sockaddr*)&at, &size) != 0) return 2;
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(client, (struct sockaddr*)&at, sizeof at) != 0) return 3;
  const int server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  const pid_t child = fork();
  if (child == 0) _exit(send(server, "hello", 5, MSG_NOSIGNAL) == 5 ? 0 : 1);
  int status = -1;
  if (waitpid(child, &status, 0) != child || status != 0) return 4;
  const int copy = dup(client);
  close(client);
  struct pollfd item = {.fd = copy, .events = POLLIN};
  char bytes[16] = {0};
  if (poll(&item, 1, 5000) != 1 || read(copy, bytes, sizeof bytes) != 5 || memcmp(bytes, "hello", 5) != 0) return 5;
  if (shutdown(copy, SHUT_WR) != 0 || recv(server, bytes, sizeof bytes, 0) != 0) return 6;
  close(copy);
  close(server);
  close(listener);
  return 0;
}
