// vsocket-cni: the composition root. One call of the container runtime: environment and stdin in, at most one JSON value out.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "cni-plugin/agent_client.h"
#include "cni-plugin/invocation.h"
#include "cni-plugin/netns.h"
#include "cni-plugin/plugin.h"
#include "cni-plugin/spool_writer.h"

namespace {

using vsocket::cni::Code;
using vsocket::cni::Error;
using vsocket::cni::Outcome;

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

vsocket::cni::Environment ReadEnvironment() {
  return {Variable("CNI_COMMAND"), Variable("CNI_CONTAINERID"), Variable("CNI_NETNS"), Variable("CNI_IFNAME"), Variable("CNI_ARGS")};
}

// One byte more than is accepted, so that the parser sees that it was too much.
vsocket::Result<std::string, Error> ReadStdin() {
  std::string text;
  std::string chunk(64 * 1024, '\0');
  while (text.size() <= vsocket::cni::kLargestConfig) {
    const ssize_t got = ::read(STDIN_FILENO, chunk.data(), chunk.size());
    if (got == 0) break;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return vsocket::Failure<Error>({Code::kIo, "cannot read the configuration from stdin", std::strerror(errno)});
    text.append(chunk, 0, static_cast<std::size_t>(got));
  }
  return text;
}

bool WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = ::write(fd, text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return true;
}

Outcome Answer() {
  auto config = ReadStdin();
  if (!config) return vsocket::cni::Refuse(config.Error());
  auto invocation = vsocket::cni::ParseInvocation(ReadEnvironment(), *config);
  if (!invocation) return vsocket::cni::Refuse(invocation.Error());
  const auto agent = vsocket::cni::ConnectAgent(invocation->settings.agent_socket, invocation->settings.timeout);
  vsocket::cni::SpoolDirectory spool(invocation->settings.spool_dir);
  return vsocket::cni::Run(*invocation, {*agent, spool, vsocket::cni::ReadNetns});
}

}  // namespace

int main() {
  // gRPC logs to stderr on its own; the runtime shows stderr to people, who need our line and not its.
  ::setenv("GRPC_VERBOSITY", "NONE", 0);
  const Outcome outcome = Answer();
  WriteAll(STDERR_FILENO, outcome.log);
  const bool told = WriteAll(STDOUT_FILENO, outcome.out);
  // Not exit(): gRPC's threads need not be stopped one by one to end a process that has said all it had to say.
  ::_exit(told ? outcome.exit_status : 1);
}
