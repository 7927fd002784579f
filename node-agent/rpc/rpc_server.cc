#include "node-agent/rpc/rpc_server.h"

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/unique_fd.h"
#include "node-agent/rpc/services.h"

namespace vsocket::rpc {
namespace {

using model::ApiError;
using model::ApiErrorKind;
using model::Done;

constexpr char kPrivateSuffix[] = ".XXXXXX";  // mkdtemp(3)
constexpr char kPrivateName[] = "/s";
constexpr int kLargestRequest = 1 << 20;  // of CollectPods with thousands of attachments; all others are small
constexpr int kMostThreads = 64;          // beyond it a request is refused with RESOURCE_EXHAUSTED, not queued

Failure<ApiError> Fail(ApiErrorKind kind, std::string message) {
  return Failure<ApiError>({kind, std::move(message)});
}
Failure<ApiError> FailErrno(const std::string& what) {
  return Fail(ApiErrorKind::kUnavailable, what + ": " + std::strerror(errno));
}

// Held for the life of the server. The file itself stays: to unlink it would let two agents lock two files of one name.
Result<UniqueFd, ApiError> Lock(const std::string& path) {
  UniqueFd lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock.Valid()) return FailErrno(path);
  if (::flock(lock.Get(), LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno == EWOULDBLOCK) return Fail(ApiErrorKind::kConflict, path + " is locked: another agent runs");
  return FailErrno(path);
}

// Done when the path is free: nothing there, or a socket on which nobody listens.
Result<Done, ApiError> CheckFree(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return Done{};
    return FailErrno(path);
  }
  if (!S_ISSOCK(info.st_mode)) return Fail(ApiErrorKind::kInvalid, path + " exists and is no socket");
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe.Valid()) return FailErrno("socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  // EAGAIN is a full backlog, so somebody does listen (unix(7)).
  if (::connect(probe.Get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 || errno == EAGAIN) {
    return Fail(ApiErrorKind::kConflict, "somebody answers on " + path);
  }
  if (errno == ECONNREFUSED) return Done{};
  return FailErrno(path);
}

}  // namespace

class RpcServer::Impl {
 public:
  Impl(model::NodeApi& api, RpcServerOptions options)
      : api_(api), options_(std::move(options)), gate_(options_.protocol_version), cni_(api, gate_), inspect_(api, options_.flows, gate_) {}

  Result<SpoolReport, ApiError> Start() {
    const std::string& path = options_.socket_path;
    if (path.empty() || path.size() + sizeof(kPrivateSuffix) - 1 + sizeof(kPrivateName) > sizeof(sockaddr_un::sun_path)) {
      return Fail(ApiErrorKind::kInvalid, "the socket path \"" + path + "\" is empty or too long for a UNIX socket");
    }
    auto lock = Lock(path + ".lock");
    if (!lock) return Failure<ApiError>(lock.Error());
    if (auto free = CheckFree(path); !free) return Failure<ApiError>(free.Error());
    if (auto listening = Listen(); !listening) return Failure<ApiError>(listening.Error());
    lock_ = std::move(*lock);
    SpoolReport report;
    if (!options_.spool_dir.empty()) report = ApplySpool(options_.spool_dir, api_);
    gate_.Open();
    return report;
  }

  void Stop(std::chrono::milliseconds grace) {
    gate_.Shut();
    if (!server_) return;
    RemoveSocket();
    server_->Shutdown(std::chrono::system_clock::now() + grace);
    server_->Wait();
    server_.reset();
    lock_.Reset();  // last: from here on another agent may listen
  }

 private:
  // gRPC binds by name and with the process's umask, which other threads share. So it binds inside a directory that only we can enter;
  // the socket gets its mode there and is then renamed to its place, over a stale one.
  Result<Done, ApiError> Listen() {
    std::string dir = options_.socket_path + kPrivateSuffix;
    if (::mkdtemp(dir.data()) == nullptr) return FailErrno(dir);
    const std::string bound = dir + kPrivateName;
    auto listening = ListenOn(bound);
    if (!listening) ::unlink(bound.c_str());
    ::rmdir(dir.c_str());
    return listening;
  }

  Result<Done, ApiError> ListenOn(const std::string& bound) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("unix:" + bound, grpc::InsecureServerCredentials(), &port);
    builder.SetMaxReceiveMessageSize(kLargestRequest);
    builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
    grpc::ResourceQuota quota("agent-rpc");
    quota.SetMaxThreads(kMostThreads);
    builder.SetResourceQuota(quota);
    builder.RegisterService(&cni_);
    builder.RegisterService(&inspect_);
    auto server = builder.BuildAndStart();
    if (!server || port == 0) return Fail(ApiErrorKind::kUnavailable, "cannot listen on " + bound);

    struct stat info {};
    if (::chmod(bound.c_str(), 0600) != 0 || ::stat(bound.c_str(), &info) != 0 ||
        ::rename(bound.c_str(), options_.socket_path.c_str()) != 0) {
      auto failure = FailErrno(options_.socket_path);
      server->Shutdown(std::chrono::system_clock::now());
      return failure;
    }
    socket_inode_ = info.st_ino;
    server_ = std::move(server);
    return Done{};
  }

  // Not when an administrator or another program has put its own there meanwhile.
  void RemoveSocket() const {
    struct stat info {};
    if (::lstat(options_.socket_path.c_str(), &info) == 0 && info.st_ino == socket_inode_) ::unlink(options_.socket_path.c_str());
  }

  model::NodeApi& api_;
  const RpcServerOptions options_;
  Gate gate_;
  CniService cni_;
  InspectService inspect_;
  UniqueFd lock_;
  ino_t socket_inode_ = 0;
  std::unique_ptr<grpc::Server> server_;  // after the services, which it calls until it is gone
};

RpcServer::RpcServer(model::NodeApi& api, RpcServerOptions options) : impl_(std::make_unique<Impl>(api, std::move(options))) {}

RpcServer::~RpcServer() {
  Stop(std::chrono::milliseconds(0));
}

Result<SpoolReport, model::ApiError> RpcServer::Start() {
  return impl_->Start();
}

void RpcServer::Stop(std::chrono::milliseconds grace) {
  impl_->Stop(grace);
}

}  // namespace vsocket::rpc
