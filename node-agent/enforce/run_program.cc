#include "node-agent/enforce/run_program.h"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "base/unique_fd.h"

namespace vsocket::enforce {
namespace {

UniqueFd Memfd(const char* name) {
  return UniqueFd(::memfd_create(name, MFD_CLOEXEC));
}

bool WriteAll(int fd, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t wrote = ::write(fd, text.data() + done, text.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return false;
    done += static_cast<std::size_t>(wrote);
  }
  return ::lseek(fd, 0, SEEK_SET) == 0;
}

std::string OutputOf(int fd) {
  std::string text(kMostOutput, '\0');
  const ssize_t got = ::pread(fd, text.data(), text.size(), 0);
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

struct SpawnSetup {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  SpawnSetup() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnSetup() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnSetup(const SpawnSetup&) = delete;
  SpawnSetup& operator=(const SpawnSetup&) = delete;
};

// Waits for the child at most so long, then kills it. The wait status, or nothing after a kill.
std::optional<int> WaitFor(pid_t child, std::chrono::milliseconds timeout) {
  const UniqueFd handle(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  bool ended = false;
  if (handle.Valid()) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    pollfd fd{handle.Get(), POLLIN, 0};
    while (!ended) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      if (left.count() <= 0) break;
      const int ready = ::poll(&fd, 1, static_cast<int>(left.count()));
      ended = ready > 0;
      if (ready < 0 && errno != EINTR) break;
    }
  }
  if (!ended) ::kill(child, SIGKILL);  // not reaped yet, so the number is still this child's
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return ended ? std::optional<int>(status) : std::nullopt;
}

}  // namespace

ProgramResult RunProgram(const std::vector<std::string>& argv, const std::string& text, std::chrono::milliseconds timeout) {
  ProgramResult result;
  const UniqueFd input = Memfd("vsocket-program-input");
  const UniqueFd output = Memfd("vsocket-program-output");
  if (!input.Valid() || !output.Valid() || !WriteAll(input.Get(), text)) {
    result.trouble = std::string("memfd for ") + argv.front() + ": " + std::strerror(errno);
    return result;
  }
  SpawnSetup setup;
  posix_spawn_file_actions_adddup2(&setup.actions, input.Get(), 0);
  posix_spawn_file_actions_adddup2(&setup.actions, output.Get(), 1);
  posix_spawn_file_actions_adddup2(&setup.actions, output.Get(), 2);
  // The agent blocks or ignores signals of its own; the program starts with a clean slate.
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&setup.attributes, &none);
  posix_spawnattr_setsigdefault(&setup.attributes, &all);
  posix_spawnattr_setflags(&setup.attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<std::string> words = argv;
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  std::string locale = "LC_ALL=C";
  char* const environment[] = {locale.data(), nullptr};
  pid_t child = 0;
  const int error = ::posix_spawn(&child, argv.front().c_str(), &setup.actions, &setup.attributes, pointers.data(), environment);
  if (error != 0) {
    result.trouble = argv.front() + " cannot be started: " + std::strerror(error);
    return result;
  }
  const auto status = WaitFor(child, timeout);
  if (!status) {
    result.trouble = argv.front() + " took longer than " + std::to_string(timeout.count()) + " ms and was killed";
  } else if (WIFSIGNALED(*status)) {
    result.trouble = argv.front() + " was ended by signal " + std::to_string(WTERMSIG(*status));
  } else {
    result.exit_status = WEXITSTATUS(*status);
  }
  result.output = OutputOf(output.Get());
  return result;
}

}  // namespace vsocket::enforce
