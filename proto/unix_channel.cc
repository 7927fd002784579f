#include "proto/unix_channel.h"

#include <grpcpp/create_channel_posix.h>
#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "base/unique_fd.h"

namespace vsocket::rpc {

Result<std::shared_ptr<grpc::Channel>, ConnectError> ConnectUnix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return Failure<ConnectError>({false, "\"" + path + "\" cannot be the path of a UNIX socket: it is empty or longer than 107 bytes"});
  }
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.Valid() || ::connect(fd.Get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    // EAGAIN: the backlog is full, so there is an agent that no longer accepts (unix(7)).
    if (errno == EAGAIN) return Failure<ConnectError>({true, "the agent on " + path + " accepts no more connections"});
    return Failure<ConnectError>({false, "no agent answers on " + path + ": " + std::strerror(errno)});
  }
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  return grpc::CreateCustomInsecureChannelFromFd("agent", fd.Release(), arguments);
}

}  // namespace vsocket::rpc
