#include "node-agent/enforce/testing/traffic.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "node-agent/enforce/nft_applier.h"

namespace vsocket::enforce::testing {
namespace {

sockaddr_storage Sockaddr(const std::string& ip, std::uint16_t port, socklen_t* size) {
  sockaddr_storage storage{};
  if (ip.find(':') != std::string::npos) {
    auto& in6 = reinterpret_cast<sockaddr_in6&>(storage);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(port);
    inet_pton(AF_INET6, ip.c_str(), &in6.sin6_addr);
    *size = sizeof(in6);
  } else {
    auto& in = reinterpret_cast<sockaddr_in&>(storage);
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    inet_pton(AF_INET, ip.c_str(), &in.sin_addr);
    *size = sizeof(in);
  }
  return storage;
}

}  // namespace

bool Readable(int fd, int ms) {
  pollfd p{fd, POLLIN, 0};
  return ::poll(&p, 1, ms) > 0;
}

model::IpAddress Ip(const std::string& text) {
  return model::IpAddress::Parse(text).value();
}

TrafficTest::TrafficTest() : node_(3), enforcer_(std::make_unique<NftApplier>()) {}

UniqueFd TrafficTest::Socket(int where, const std::string& ip, int type, std::uint16_t local_port) {
  UniqueFd fd;
  node_.Inside(where, [&] {
    socklen_t size = 0;
    const sockaddr_storage address = Sockaddr(ip, local_port, &size);
    fd = UniqueFd(::socket(address.ss_family, type | SOCK_CLOEXEC, 0));
    const int on = 1;
    ::setsockopt(fd.Get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (::bind(fd.Get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) fd.Reset();
  });
  return fd;
}

UniqueFd TrafficTest::Listen(int where, const std::string& ip, std::uint16_t port) {
  UniqueFd fd = Socket(where, ip, SOCK_STREAM, port);
  if (!fd.Valid() || ::listen(fd.Get(), 16) != 0) fd.Reset();
  return fd;
}

int TrafficTest::Connect(int where, const std::string& ip, std::uint16_t port, UniqueFd* out) {
  int result = -1;
  node_.Inside(where, [&] {
    socklen_t size = 0;
    const sockaddr_storage address = Sockaddr(ip, port, &size);
    UniqueFd fd(::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    result = ::connect(fd.Get(), reinterpret_cast<const sockaddr*>(&address), size) == 0 ? 0 : errno;
    if (result == EINPROGRESS) {
      pollfd p{fd.Get(), POLLOUT, 0};
      socklen_t length = sizeof(result);
      if (::poll(&p, 1, kPatienceMs) <= 0) {
        result = ETIMEDOUT;
      } else {
        ::getsockopt(fd.Get(), SOL_SOCKET, SO_ERROR, &result, &length);
      }
    }
    if (out != nullptr) *out = std::move(fd);
  });
  return result;
}

int TrafficTest::ConnectFd(int fd, const std::string& ip, std::uint16_t port) {
  socklen_t size = 0;
  const sockaddr_storage address = Sockaddr(ip, port, &size);
  return ::connect(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0 ? 0 : errno;
}

void TrafficTest::SendTo(int fd, const std::string& ip, std::uint16_t port) {
  socklen_t size = 0;
  const sockaddr_storage address = Sockaddr(ip, port, &size);
  const ssize_t sent = ::sendto(fd, "ping", 4, 0, reinterpret_cast<const sockaddr*>(&address), size);
  ASSERT_TRUE(sent == 4 || errno == EPERM) << std::strerror(errno);
}

bool TrafficTest::Receives(int fd, int ms) {
  if (!Readable(fd, ms)) return false;
  char buffer[16];
  return ::recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT) == 4;
}

model::AllowList TrafficTest::FriendOnly() {
  model::AllowList list;
  list.pod = "test/pod0";
  list.ingress.isolated = true;
  for (const char* ip : {"10.77.0.11", "fd77::11"}) {
    list.ingress.entries.push_back({{Ip(ip), Ip(ip)}, model::Protocol::kTcp, 6379, 6379});
    list.ingress.entries.push_back({{Ip(ip), Ip(ip)}, model::Protocol::kUdp, 53, 53});
  }
  list.node_addresses = {Ip("10.77.0.1"), Ip("fd77::1")};
  return list;
}

void TrafficTest::Enforce(const model::AllowList& list) {
  const auto errors = enforcer_.Sync({{node_.Pod(kServer), list, {}}});
  ASSERT_TRUE(errors.empty()) << errors[0].what;
}

}  // namespace vsocket::enforce::testing
