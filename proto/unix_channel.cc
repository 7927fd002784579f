#include "proto/unix_channel.h"

#include <grpcpp/create_channel_posix.h>
#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace vsocket::rpc {

std::shared_ptr<grpc::Channel> ConnectUnix(const std::string& path, ConnectError* error) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    *error = {false, "\"" + path + "\" cannot be the path of a UNIX socket: it is empty or longer than 107 bytes"};
    return nullptr;
  }
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    // EAGAIN: the backlog is full, so there is an agent that no longer accepts (unix(7)).
    *error = errno == EAGAIN ? ConnectError{true, "the agent on " + path + " accepts no more connections"}
                             : ConnectError{false, "no agent answers on " + path + ": " + std::strerror(errno)};
    if (fd >= 0) ::close(fd);
    return nullptr;
  }
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  return grpc::CreateCustomInsecureChannelFromFd("agent", fd, arguments);
}

}  // namespace vsocket::rpc
