#include <linux/in.h>
#include <linux/tcp.h>
#include <sys/socket.h>

#include "node-agent/broker/kernel.h"

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace vsocket::broker {
namespace {

template <typename T>
bool Option(int fd, int level, int name, T* value) {
  socklen_t length = sizeof(T);
  return ::getsockopt(fd, level, name, value, &length) == 0;
}

bool ToEndpoint(const sockaddr_storage& from, Endpoint* to) {
  const auto address = model::IpAddress::FromSockaddr(reinterpret_cast<const sockaddr&>(from));
  if (!address) return false;
  to->address = *address;
  // sin_port and sin6_port are at the same offset.
  to->port = __builtin_bswap16(reinterpret_cast<const sockaddr_in&>(from).sin_port);
  return true;
}

class LinuxSocketProbe final : public SocketProbe {
 public:
  Result<TcpSocket, ProbeError> Read(int fd) override {
    // getsockopt first: on anything but a socket it fails with ENOTSOCK without asking the file, which could be on a hostile FUSE.
    int domain = 0;
    int protocol = 0;
    if (!Option(fd, SOL_SOCKET, SO_DOMAIN, &domain) || (domain != AF_INET && domain != AF_INET6)) return Failure(ProbeError::kNotTcp);
    if (!Option(fd, SOL_SOCKET, SO_PROTOCOL, &protocol) || protocol != IPPROTO_TCP) return Failure(ProbeError::kNotTcp);

    TcpSocket socket;
    sockaddr_storage local{};
    sockaddr_storage remote{};
    socklen_t length = sizeof local;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&local), &length) != 0) return Failure(ProbeError::kNotTcp);
    length = sizeof remote;
    if (::getpeername(fd, reinterpret_cast<sockaddr*>(&remote), &length) != 0) return Failure(ProbeError::kNotConnected);
    if (!ToEndpoint(local, &socket.tuple.local) || !ToEndpoint(remote, &socket.tuple.remote)) return Failure(ProbeError::kNotTcp);
    if (!Option(fd, SOL_SOCKET, SO_COOKIE, &socket.cookie) || !Option(fd, SOL_SOCKET, SO_NETNS_COOKIE, &socket.netns_cookie)) {
      return Failure(ProbeError::kNotTcp);
    }
    tcp_info info{};
    if (!Option(fd, IPPROTO_TCP, TCP_INFO, &info)) return Failure(ProbeError::kNotTcp);
    socket.state = info.tcpi_state;
    socket.bytes_acked = info.tcpi_bytes_acked;
    socket.bytes_received = info.tcpi_bytes_received;
    return socket;
  }

  bool IsWakeSocket(int fd) override {
    int domain = 0;
    int type = 0;
    return Option(fd, SOL_SOCKET, SO_DOMAIN, &domain) && Option(fd, SOL_SOCKET, SO_TYPE, &type) && domain == AF_UNIX && type == SOCK_STREAM;
  }
};

}  // namespace

std::unique_ptr<SocketProbe> MakeSocketProbe() {
  return std::make_unique<LinuxSocketProbe>();
}

}  // namespace vsocket::broker
