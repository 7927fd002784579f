#include "node-agent/broker/testing/fake_shim.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

namespace vsocket::broker::testing {

using channel::HeaderOf;
using channel::MessageType;

MappedRegion::MappedRegion(int memfd) {
  void* map = ::mmap(nullptr, channel::kRegionBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd, 0);
  if (map != MAP_FAILED) map_ = map;
}

MappedRegion::~MappedRegion() {
  if (map_ != nullptr) ::munmap(map_, channel::kRegionBytes);
}

channel::SlotHeader& MappedRegion::Slot(std::uint32_t slot) const {
  return *reinterpret_cast<channel::SlotHeader*>(static_cast<std::byte*>(map_) + channel::SlotOffset(slot));
}

FakeShim::FakeShim(const std::string& agent_sock) : socket_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, agent_sock.c_str(), sizeof address.sun_path - 1);
  if (::connect(socket_.Get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) socket_.Reset();
}

bool FakeShim::Send(std::span<const std::byte> bytes, std::span<const int> fds) {
  iovec data{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(253 * sizeof(int))> control{};
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  return ::sendmsg(socket_.Get(), &message, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
}

std::optional<Answer> FakeShim::Receive() {
  if (!early_.empty()) {
    Answer answer = std::move(early_.front());
    early_.pop_front();
    return answer;
  }
  pollfd wait{socket_.Get(), POLLIN, 0};
  if (::poll(&wait, 1, kPatienceMs) != 1) return std::nullopt;
  Answer answer;
  iovec data{answer.bytes.data(), answer.bytes.size()};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t size = ::recvmsg(socket_.Get(), &message, MSG_CMSG_CLOEXEC);
  if (size < static_cast<ssize_t>(sizeof(channel::MessageHeader))) return std::nullopt;
  if (const cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr && header->cmsg_type == SCM_RIGHTS) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    answer.fd.Reset(fd);
  }
  answer.size = static_cast<std::size_t>(size);
  channel::MessageHeader header{};
  std::memcpy(&header, answer.bytes.data(), sizeof header);
  answer.type = header.type;
  return answer;
}

bool FakeShim::Hello(const char* program) {
  channel::Hello hello{HeaderOf(MessageType::kHello), channel::kLayoutVersion, static_cast<std::int32_t>(::getpid()), {}};
  std::memcpy(hello.comm, program, std::min(std::strlen(program), sizeof hello.comm));
  if (!Send(hello)) return false;
  const auto answer = Receive();
  return answer && answer->type == MessageType::kWelcome;
}

bool FakeShim::Upgrade(int tcp) {
  const std::array<int, 1> fds{tcp};
  return Send(channel::Upgrade{HeaderOf(MessageType::kUpgrade), CookieOf(tcp)}, fds);
}

bool FakeShim::Cancel(int tcp) {
  return Send(channel::Cancel{HeaderOf(MessageType::kCancel), CookieOf(tcp)});
}

bool FakeShim::Release(const channel::Grant& grant, channel::Reason reason) {
  return Send(channel::Release{HeaderOf(MessageType::kRelease), grant.cookie, grant.channel, static_cast<std::uint16_t>(reason), {}});
}

bool FakeShim::AskGrant(int tcp, const channel::Grant& grant) {
  return Send(channel::AskGrant{HeaderOf(MessageType::kAskGrant), CookieOf(tcp), grant.channel});
}

bool FakeShim::Reattach(int tcp, const channel::Grant& grant, int memfd) {
  const std::array<int, 2> fds{tcp, memfd};
  return Send(channel::Reattach{HeaderOf(MessageType::kReattach), CookieOf(tcp), grant.channel}, fds);
}

bool FakeShim::Note(int tcp, channel::Reason reason) {
  return Send(channel::Note{HeaderOf(MessageType::kNote), CookieOf(tcp), static_cast<std::uint16_t>(reason), {}});
}

bool FakeShim::Wake(MessageType type, std::uint64_t region, std::uint32_t side, std::uint32_t index, int eventfd) {
  const channel::WakeRef message{HeaderOf(type), region, side, index};
  const std::array<int, 1> fds{eventfd};
  return eventfd < 0 ? Send(message) : Send(message, fds);
}

std::optional<FakeShim::Granted> FakeShim::ExpectGrant(int tcp) {
  auto answer = Receive();
  if (!answer || answer->type != MessageType::kGrant || answer->As<channel::Grant>().cookie != CookieOf(tcp)) return std::nullopt;
  return Granted{answer->As<channel::Grant>(), std::move(answer->fd)};
}

std::optional<channel::Deny> FakeShim::ExpectDeny(int tcp) {
  const auto answer = Receive();
  if (!answer || answer->type != MessageType::kDeny || answer->As<channel::Deny>().cookie != CookieOf(tcp)) return std::nullopt;
  return answer->As<channel::Deny>();
}

bool FakeShim::ExpectEnd() {
  early_.clear();
  while (Receive()) {
  }
  std::byte byte{};
  return ::recv(socket_.Get(), &byte, 1, MSG_DONTWAIT) == 0 || errno == ECONNRESET;
}

bool FakeShim::Quiet() {
  // Answers come in order: a question about a region that does not exist is answered after everything before it.
  const std::uint64_t nonce = 0xffff0000'00000000ULL + ++round_trips_;
  if (!Wake(MessageType::kWakeWant, nonce, 0, 0)) return false;
  std::deque<Answer> before;
  for (;;) {
    auto answer = Receive();
    if (!answer) return false;
    if (answer->type == MessageType::kWake && answer->As<channel::WakeRef>().region_id == nonce) break;
    before.push_back(std::move(*answer));
  }
  early_ = std::move(before);
  return early_.empty();
}

std::uint64_t CookieOf(int tcp) {
  std::uint64_t cookie = 0;
  socklen_t length = sizeof cookie;
  ::getsockopt(tcp, SOL_SOCKET, SO_COOKIE, &cookie, &length);
  return cookie;
}

TcpPair MakeTcpPair(const std::string& client_ip, const std::string& server_ip, std::uint16_t port, bool keep_listener) {
  const bool v6 = server_ip.find(':') != std::string::npos;
  const auto address_of = [v6](const std::string& ip, std::uint16_t number, sockaddr_storage* storage) -> socklen_t {
    *storage = {};
    if (v6) {
      auto& address = reinterpret_cast<sockaddr_in6&>(*storage);
      address.sin6_family = AF_INET6;
      address.sin6_port = htons(number);
      ::inet_pton(AF_INET6, ip.c_str(), &address.sin6_addr);
      return sizeof address;
    }
    auto& address = reinterpret_cast<sockaddr_in&>(*storage);
    address.sin_family = AF_INET;
    address.sin_port = htons(number);
    ::inet_pton(AF_INET, ip.c_str(), &address.sin_addr);
    return sizeof address;
  };
  const int family = v6 ? AF_INET6 : AF_INET;
  sockaddr_storage storage{};
  TcpPair pair;
  pair.listener = UniqueFd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(pair.listener.Get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  socklen_t length = address_of(server_ip, port, &storage);
  if (::bind(pair.listener.Get(), reinterpret_cast<sockaddr*>(&storage), length) != 0 || ::listen(pair.listener.Get(), 16) != 0)
    return pair;
  sockaddr_storage server{};
  socklen_t server_length = sizeof server;
  ::getsockname(pair.listener.Get(), reinterpret_cast<sockaddr*>(&server), &server_length);
  pair.client = UniqueFd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  length = address_of(client_ip, 0, &storage);
  if (::bind(pair.client.Get(), reinterpret_cast<sockaddr*>(&storage), length) != 0 ||
      ::connect(pair.client.Get(), reinterpret_cast<sockaddr*>(&server), server_length) != 0) {
    return pair;
  }
  pair.server = UniqueFd(::accept4(pair.listener.Get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!keep_listener) pair.listener.Reset();
  return pair;
}

bool GrantBetween(FakeShim& a, FakeShim& b, Channel* channel, const std::string& ip_a, const std::string& ip_b) {
  channel->tcp = MakeTcpPair(ip_a, ip_b);
  // Quiet in between: the agent has a's request before b sends, so `a` becomes side 0.
  if (!a.Upgrade(channel->tcp.client.Get()) || !a.Quiet() || !b.Upgrade(channel->tcp.server.Get())) return false;
  auto client = a.ExpectGrant(channel->tcp.client.Get());
  auto server = b.ExpectGrant(channel->tcp.server.Get());
  if (!client || !server) return false;
  channel->client = std::move(*client);
  channel->server = std::move(*server);
  return true;
}

}  // namespace vsocket::broker::testing
