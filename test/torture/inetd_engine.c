// A connection becomes stdin and stdout of another program, as inetd, sshd or a CGI server do it; the program echoes.
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test/torture/engines.h"

extern char** environ;

// For a program that is not ours. Others do not have the sanitizer's runtime, which a sanitized shim needs to be loaded.
static char* const* ForeignEnvironment(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  static char* const nothing[] = {NULL};
  return nothing;
#else
  return environ;
#endif
}

// Echoes the first bytes here, so that the socket has a history when it changes hands.
static void EchoSome(struct End* end, uint64_t n) {
  end->no_waitall = true;
  while (n > 0) {
    EndActivity(end, false, kReceiving);
    const long got = RecvSome(end, n);
    if (got == kIoEof) Fail("end of stream where bytes are missing; %s", EndDescribe(end).text);
    if (got <= 0) continue;
    n -= (uint64_t)got;
    EndActivity(end, false, kSending);
    SendAll(end, (uint64_t)got);
  }
}

void RunInetd(struct End* end) {
  EchoSome(end, end->plan->echo_before_exec);
  const struct Options* options = end->lane->options;
  char* const self[] = {(char*)"/proc/self/exe", (char*)"--echo", NULL};
  char* const cat[] = {(char*)"/bin/cat", NULL};
  char* const fixed[] = {(char*)options->static_echo, NULL};
  char* const* command = self;
  char* const* environment = environ;
  switch (RandomBelow(&end->random_rx, 3)) {
    case 0:
      command = cat;
      environment = ForeignEnvironment();
      break;
    case 1:
      if (options->static_echo != NULL) command = fixed;
      break;
    default:
      break;
  }
  Count(&end->lane->share->execs, 1);
  pid_t child;
#ifdef __GLIBC__  // musl has no way to close the other lanes' sockets in a spawned child
  const bool spawn = RandomChance(&end->random_rx, 30);
  if (spawn) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, end->fd, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, end->fd, STDOUT_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    const int error = posix_spawn(&child, command[0], &actions, NULL, command, environment);
    if (error != 0) Fail("posix_spawn %s: %s", command[0], strerror(error));
    posix_spawn_file_actions_destroy(&actions);
  }
#else
  const bool spawn = false;
#endif
  if (!spawn) {
    child = ForkChild(end);
    if (child == 0) {
      dup2(end->fd, STDIN_FILENO);
      dup2(end->fd, STDOUT_FILENO);
      close(end->fd);
      execve(command[0], command, environment);
      Fail("execve %s: %s", command[0], strerror(errno));
    }
  }
  close(end->fd);
  end->fd = end->fd_tx = -1;
  AwaitChild(end, child);
  EndClose(end);
}
