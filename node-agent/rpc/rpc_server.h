// The agent's gRPC socket: Cni for vsocket-cni and Inspect for vsocketctl (proto/vsocket/v1/agent.proto), adapted from model::NodeApi.
//
// The socket is a UNIX socket with mode 0600 from the moment it can be seen (it is made in a private directory and renamed into place),
// so only root of the node reaches it. A file `PATH.lock` is held locked (flock(2)) for as long as the server lives: of two agents
// started at once exactly one gets the socket. A socket file on which nobody answers is replaced.
//
// Thread safety: Start and Stop from one thread. Requests are served from gRPC's own threads, so NodeApi is called from those, several
// at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "node-agent/model/flow_source.h"
#include "node-agent/model/node_api.h"
#include "node-agent/rpc/spool.h"
#include "proto/version.h"

namespace vsocket::rpc {

struct RpcServerOptions {
  std::string socket_path;  // at most 98 bytes: the socket is made beside it under a longer name (unix(7): sun_path is 108)
  std::string spool_dir;    // proto/spool.h; empty: no spool
  std::uint32_t protocol_version = kProtocolVersion;  // of requests that are served; tests play an agent of another release
  model::FlowSource* flows = nullptr;                 // must outlive the server; null: no flow events
};

class RpcServer {
 public:
  // `api` must outlive the server.
  RpcServer(model::NodeApi& api, RpcServerOptions options);
  // Stop() without waiting for requests in flight.
  ~RpcServer();
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  // Listens, applies the spool to the api, then answers: a request that arrives meanwhile waits for that. Once.
  //   kConflict     another agent holds the lock or answers on the socket
  //   kInvalid      the path is too long, or is a file that is no socket
  //   kUnavailable  the directory cannot be written, or the like; the message holds errno's text
  // The value says what became of the spool, for the log. `api` must be able to serve before this is called.
  [[nodiscard]] Result<SpoolReport, model::ApiError> Start();

  // No new requests; those in flight get `grace` to end, then are cancelled (a handler inside NodeApi is waited for all the same).
  // Removes the socket if it is still this server's. Idempotent.
  void Stop(std::chrono::milliseconds grace);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vsocket::rpc
