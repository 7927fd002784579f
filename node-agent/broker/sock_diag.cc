#include "node-agent/broker/sock_diag.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>

namespace vsocket::broker {
namespace {

using model::IpAddress;

constexpr std::uint32_t Bit(std::uint8_t state) {
  return 1U << state;
}
constexpr std::uint32_t kLiveStates = Bit(kEstablished) | Bit(kFinWait1) | Bit(kFinWait2) | Bit(kCloseWait);

struct Request {
  nlmsghdr header;
  inet_diag_req_v2 body;
};
static_assert(sizeof(Request) == sizeof(nlmsghdr) + sizeof(inet_diag_req_v2));

Request MakeRequest(std::uint16_t type, std::uint16_t flags, std::uint8_t family) {
  Request request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = type;
  request.header.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  request.body.sdiag_family = family;
  request.body.sdiag_protocol = IPPROTO_TCP;
  request.body.idiag_states = ~0U;
  request.body.id.idiag_cookie[0] = INET_DIAG_NOCOOKIE;
  request.body.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  return request;
}

void PutAddress(const IpAddress& address, __be32* to) {
  std::memcpy(to, address.Bytes().data(), address.IsV4() ? 4 : 16);
}

IpAddress GetAddress(std::uint8_t family, const __be32* from) {
  if (family == AF_INET) {
    std::array<std::uint8_t, 4> bytes{};
    std::memcpy(bytes.data(), from, bytes.size());
    return IpAddress::V4(bytes);
  }
  std::array<std::uint8_t, 16> bytes{};
  std::memcpy(bytes.data(), from, bytes.size());
  return IpAddress::V6(bytes);
}

void PutId(const Tuple& tuple, std::uint64_t cookie, inet_diag_sockid* id) {
  PutAddress(tuple.local.address, id->idiag_src);
  PutAddress(tuple.remote.address, id->idiag_dst);
  id->idiag_sport = htons(tuple.local.port);
  id->idiag_dport = htons(tuple.remote.port);
  id->idiag_cookie[0] = static_cast<std::uint32_t>(cookie);
  id->idiag_cookie[1] = static_cast<std::uint32_t>(cookie >> 32);
}

// An IPv6 socket that talks IPv4 (mapped addresses) is found by IPv4 look-ups too: the kernel keeps both in one hash.
std::uint8_t FamilyOf(const Tuple& tuple) {
  return tuple.local.address.IsV4() && tuple.remote.address.IsV4() ? AF_INET : AF_INET6;
}

TcpSocket ToSocket(const nlmsghdr& header) {
  const auto* message = static_cast<const inet_diag_msg*>(NLMSG_DATA(&header));
  TcpSocket socket;
  socket.tuple.local = {GetAddress(message->idiag_family, message->id.idiag_src), ntohs(message->id.idiag_sport)};
  socket.tuple.remote = {GetAddress(message->idiag_family, message->id.idiag_dst), ntohs(message->id.idiag_dport)};
  socket.cookie = message->id.idiag_cookie[0] | static_cast<std::uint64_t>(message->id.idiag_cookie[1]) << 32;
  socket.inode = message->idiag_inode;
  socket.state = message->idiag_state;
  if (IsLive(socket.state)) socket.unacked = message->idiag_wqueue;  // write_seq - snd_una; of a listener it is something else
  auto left = static_cast<int>(header.nlmsg_len - NLMSG_LENGTH(sizeof(inet_diag_msg)));
  for (auto* attribute = reinterpret_cast<const rtattr*>(message + 1); RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
    if (attribute->rta_type != INET_DIAG_INFO) continue;
    tcp_info info{};  // an older kernel's is shorter: what it lacks stays 0
    std::memcpy(&info, RTA_DATA(attribute), std::min<std::size_t>(sizeof info, RTA_PAYLOAD(attribute)));
    socket.bytes_acked = info.tcpi_bytes_acked;
    socket.bytes_received = info.tcpi_bytes_received;
  }
  return socket;
}

class NetlinkPodSockets final : public PodSockets {
 public:
  explicit NetlinkPodSockets(UniqueFd netlink) : netlink_(std::move(netlink)) {}

  std::vector<TcpSocket> Connections() override {
    std::vector<TcpSocket> sockets;
    Dump(kLiveStates, [&](const TcpSocket& socket) { sockets.push_back(socket); });
    return sockets;
  }

  std::optional<TcpSocket> Find(const Tuple& tuple, std::uint64_t cookie) override {
    Request request = MakeRequest(SOCK_DIAG_BY_FAMILY, 0, FamilyOf(tuple));
    PutId(tuple, cookie, &request.body.id);
    request.body.idiag_ext = 1U << (INET_DIAG_INFO - 1);
    std::optional<TcpSocket> found;
    Exchange(request, [&](const TcpSocket& socket) { found = socket; });
    // The kernel compares the cookie itself (ESTALE), but a TIME_WAIT remainder of the tuple must not pass for the socket.
    return found && found->cookie == cookie ? found : std::nullopt;
  }

  bool Listens(const Endpoint& local) override {
    // A look-up with an unconnected remote address finds no connection, so the kernel goes on to the listeners, wildcard ones and
    // dual-stack ones included.
    Tuple tuple;
    tuple.local = local;
    if (!local.address.IsV4()) tuple.remote.address = IpAddress::V6({});
    Request request = MakeRequest(SOCK_DIAG_BY_FAMILY, 0, FamilyOf(tuple));
    PutId(tuple, ~0ULL, &request.body.id);
    bool listens = false;
    Exchange(request, [&](const TcpSocket& socket) { listens = socket.state == kListen; });
    return listens;
  }

  bool Destroy(const Tuple& tuple, std::uint64_t cookie) override {
    Request request = MakeRequest(SOCK_DESTROY, NLM_F_ACK, FamilyOf(tuple));
    PutId(tuple, cookie, &request.body.id);
    return Exchange(request, [](const TcpSocket&) {}) == 0;
  }

 private:
  using Visit = std::function<void(const TcpSocket&)>;

  void Dump(std::uint32_t states, const Visit& visit) {
    for (const auto family : {std::uint8_t{AF_INET}, std::uint8_t{AF_INET6}}) {
      Request request = MakeRequest(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family);
      request.body.idiag_states = states;
      request.body.idiag_ext = 1U << (INET_DIAG_INFO - 1);
      Exchange(request, visit);
    }
  }

  // Sends one request and reads its whole answer. 0, or a positive errno.
  int Exchange(Request& request, const Visit& visit) {
    const std::uint32_t sequence = ++sequence_;
    request.header.nlmsg_seq = sequence;
    const bool dump = (request.header.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    if (::sendto(netlink_.Get(), &request, sizeof request, 0, reinterpret_cast<sockaddr*>(&kernel), sizeof kernel) < 0) return errno;
    for (;;) {
      const ssize_t received = ::recv(netlink_.Get(), buffer_.data(), buffer_.size(), 0);
      if (received < 0) {
        if (errno == EINTR) continue;
        return errno;
      }
      auto left = static_cast<int>(received);
      for (auto* header = reinterpret_cast<nlmsghdr*>(buffer_.data()); NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
        if (header->nlmsg_seq != sequence) continue;  // the rest of an answer that was given up
        if (header->nlmsg_type == NLMSG_DONE) return 0;
        if (header->nlmsg_type == NLMSG_ERROR) return -static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
        if (header->nlmsg_len < NLMSG_LENGTH(sizeof(inet_diag_msg))) return EBADMSG;
        visit(ToSocket(*header));
        if (!dump) return 0;
      }
    }
  }

  UniqueFd netlink_;
  std::uint32_t sequence_ = 0;
  alignas(nlmsghdr) std::array<std::byte, 32768> buffer_{};
};

}  // namespace

std::unique_ptr<PodSockets> MakePodSockets(UniqueFd netlink) {
  return std::make_unique<NetlinkPodSockets>(std::move(netlink));
}

}  // namespace vsocket::broker
