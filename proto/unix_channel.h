// A gRPC channel to the agent's UNIX socket, for short-lived clients.
#pragma once

#include <memory>
#include <string>

namespace grpc {
class Channel;
}

namespace vsocket::rpc {

struct ConnectError {
  bool someone_listens = false;  // but accepts nobody: the backlog is full
  std::string message;           // names the path, with errno's words
};

// Connects and hands gRPC the socket. So "nobody there" is told from "does not answer", and gRPC needs no name resolution, no load
// balancing and no back-off, which is most of its start-up time. The connection is not made again when it breaks.
// Never blocks: connect(2) on a UNIX socket either succeeds at once or fails.
// Null, and `*error` set, when it fails.
std::shared_ptr<grpc::Channel> ConnectUnix(const std::string& path, ConnectError* error);

}  // namespace vsocket::rpc
