#include "node-agent/broker/control_server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "node-agent/broker/netns.h"

namespace vsocket::broker {
namespace {

constexpr std::size_t kMaxFdsOfPacket = 253;  // SCM_MAX_FD, unix(7)
constexpr int kPacketsPerRound = 64;          // of one connection, before the others get their turn
constexpr int kAcceptsPerRound = 16;

struct Received {
  enum class What { kPacket, kNothing, kEnd } what = What::kNothing;
  std::size_t size = 0;  // may exceed the buffer: the packet was longer
  std::vector<UniqueFd> fds;
  bool truncated = false;
};

Received ReceivePacket(int socket, std::span<std::byte> buffer) {
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxFdsOfPacket * sizeof(int))> control;
  iovec data{buffer.data(), buffer.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  // MSG_TRUNC: the packet's real length, so that a longer one cannot pass for a right one.
  const ssize_t length = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT | MSG_TRUNC);
  Received received;
  if (length < 0) {
    received.what = errno == EAGAIN || errno == EINTR ? Received::What::kNothing : Received::What::kEnd;
    return received;
  }
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
      received.fds.emplace_back(fd);
    }
  }
  received.truncated = (message.msg_flags & MSG_CTRUNC) != 0;
  received.size = static_cast<std::size_t>(length);
  // A packet without a byte is told from the end by its descriptors only; nobody sends one in earnest.
  received.what = length == 0 && received.fds.empty() ? Received::What::kEnd : Received::What::kPacket;
  return received;
}

UniqueFd OpenSpare() {
  return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
}

}  // namespace

class ControlServer::Connection final : public ShimLink {
 public:
  Connection(ControlServer& server, std::string pod, UniqueFd socket) : server_(server), pod_(std::move(pod)), socket_(std::move(socket)) {}

  SessionId session = 0;

  [[nodiscard]] int Fd() const { return socket_.Get(); }
  [[nodiscard]] const std::string& Pod() const { return pod_; }
  UniqueFd TakeSocket() { return std::move(socket_); }

  void Send(std::span<const std::byte> message, std::shared_ptr<const UniqueFd> fd) override {
    if (closing_) return;
    if (queue_.empty() && Offer(message, fd.get())) return;
    if (closing_) return;
    if (queue_.size() >= server_.unsent_limit_) {
      server_.broker_.CountDropped();
      queue_.clear();
      return Close();
    }
    Packet packet;
    packet.size = message.size();
    std::memcpy(packet.bytes.data(), message.data(), message.size());
    packet.fd = std::move(fd);
    queue_.push_back(std::move(packet));
    if (queue_.size() == 1) server_.loop_.Modify(Fd(), EPOLLIN | EPOLLOUT);
  }

  void Close() override {
    if (std::exchange(closing_, true)) return;
    server_.loop_.Post([&server = server_, self = this] { server.Drop(self); });
  }

  void Ready(std::uint32_t events) {
    if ((events & EPOLLOUT) != 0) Flush();
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) Read();
  }

 private:
  struct Packet {
    std::array<std::byte, channel::kMaxMessage> bytes;
    std::size_t size = 0;
    std::shared_ptr<const UniqueFd> fd;
  };

  // True when the socket took it. Sets closing_ when it never will.
  bool Offer(std::span<const std::byte> bytes, const UniqueFd* fd) {
    iovec data{const_cast<std::byte*>(bytes.data()), bytes.size()};  // sendmsg(2) does not write
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
    if (fd != nullptr && fd->Valid()) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      const int number = fd->Get();
      std::memcpy(CMSG_DATA(header), &number, sizeof number);
    }
    if (::sendmsg(Fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return true;
    // ETOOMANYREFS: descriptors in flight; they go when the shim reads.
    if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS && errno != ETOOMANYREFS) Close();
    return false;
  }

  void Flush() {
    while (!queue_.empty() && !closing_) {
      const Packet& packet = queue_.front();
      if (!Offer(std::span(packet.bytes).first(packet.size), packet.fd.get())) return;
      queue_.pop_front();
    }
    if (!closing_) server_.loop_.Modify(Fd(), EPOLLIN);
  }

  void Read() {
    std::array<std::byte, channel::kMaxMessage + 1> buffer;
    for (int i = 0; i < kPacketsPerRound && !closing_; ++i) {
      Received received = ReceivePacket(Fd(), buffer);
      if (received.what == Received::What::kNothing) return;
      if (received.what == Received::What::kEnd) return server_.Drop(this);
      const bool keep = server_.broker_.Receive(session, std::span(buffer).first(std::min(received.size, buffer.size())), received.fds,
                                                received.truncated);
      if (ForeignFds* foreign = server_.broker_.ForeignFdsOf(pod_); foreign != nullptr) {
        for (UniqueFd& fd : received.fds) foreign->Close(std::move(fd));
      }
      if (!keep) return Close();
    }
  }

  ControlServer& server_;
  std::string pod_;
  UniqueFd socket_;
  std::deque<Packet> queue_;
  bool closing_ = false;
};

ControlServer::ControlServer(Loop& loop, Broker& broker, std::uint32_t unsent_limit)
    : loop_(loop), broker_(broker), unsent_limit_(unsent_limit), spare_(OpenSpare()) {}

ControlServer::~ControlServer() {
  for (const auto& [uid, listener] : listeners_) loop_.Remove(listener.Get());
  for (const auto& [connection, owned] : connections_) loop_.Remove(connection->Fd());
}

Result<Listening, std::string> ControlServer::Listen(const std::string& pod_uid, UniqueFd listener) {
  StopListening(pod_uid);
  if (!loop_.Add(listener.Get(), EPOLLIN, [this, pod_uid](std::uint32_t) { Accept(pod_uid); })) {
    return Failure(std::string("cannot watch the pod's socket: ") + std::strerror(errno));
  }
  listeners_[pod_uid] = std::move(listener);
  return Listening{};
}

void ControlServer::StopListening(const std::string& pod_uid) {
  const auto found = listeners_.find(pod_uid);
  if (found == listeners_.end()) return;
  loop_.Remove(found->second.Get());
  listeners_.erase(found);
}

void ControlServer::Accept(const std::string& pod_uid) {
  for (int i = 0; i < kAcceptsPerRound; ++i) {
    const auto listener = listeners_.find(pod_uid);
    if (listener == listeners_.end()) return;
    UniqueFd socket(::accept4(listener->second.Get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.Valid()) {
      if (errno != EMFILE && errno != ENFILE) return;
      Refuse(listener->second.Get());
      if (starved_) return;
      continue;
    }
    Adopt(pod_uid, std::move(socket));
  }
}

void ControlServer::Refuse(int listener) {
  spare_.Reset();
  // Closed at once: the shim sees the end of the stream and goes on by TCP.
  if (UniqueFd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)).Valid()) broker_.CountDropped();
  spare_ = OpenSpare();
  if (spare_.Valid()) return;
  starved_ = true;  // another thread took the descriptor
  WatchListeners(0);
}

void ControlServer::WatchListeners(std::uint32_t events) {
  for (const auto& [uid, listener] : listeners_) loop_.Modify(listener.Get(), events);
}

void ControlServer::Adopt(const std::string& pod_uid, UniqueFd socket) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(socket.Get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return;
  auto owned = std::make_unique<Connection>(*this, pod_uid, std::move(socket));
  Connection* connection = owned.get();
  channel::Reason refusal = channel::Reason::kNone;
  connection->session = broker_.Connect(pod_uid, peer.pid, NetnsInodeOfProcess(peer.pid), connection, &refusal);
  if (connection->session == 0) {
    const channel::Reject reject{channel::HeaderOf(channel::MessageType::kReject), static_cast<std::uint16_t>(refusal),
                                 channel::kControlVersion, channel::kControlVersion, 0};
    // Into an empty socket buffer: it fits, or the shim has gone.
    [[maybe_unused]] const auto ignored = ::send(connection->Fd(), &reject, sizeof reject, MSG_DONTWAIT | MSG_NOSIGNAL);
    return;
  }
  connections_.emplace(connection, std::move(owned));
  if (!loop_.Add(connection->Fd(), EPOLLIN, [connection](std::uint32_t events) { connection->Ready(events); })) Drop(connection);
}

void ControlServer::Drop(Connection* connection) {
  const auto found = connections_.find(connection);
  if (found == connections_.end()) return;
  const auto keep = std::move(found->second);
  connections_.erase(found);
  loop_.Remove(keep->Fd());
  broker_.Disconnected(keep->session);
  if (ForeignFds* foreign = broker_.ForeignFdsOf(keep->Pod()); foreign != nullptr) foreign->Close(keep->TakeSocket());
  if (!starved_) return;
  keep->TakeSocket();  // if the pod has gone: closed here, so that its descriptor is free now
  spare_ = OpenSpare();
  starved_ = !spare_.Valid();
  if (!starved_) WatchListeners(EPOLLIN);
}

}  // namespace vsocket::broker
