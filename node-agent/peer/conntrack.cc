#include "node-agent/peer/conntrack.h"

#include <arpa/inet.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack_tcp.h>
#include <netinet/in.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

namespace vsocket::peer {
namespace {

using model::AddressPair;
using model::IpAddress;
using model::SocketAddress;

struct EntryDeleter {
  void operator()(nf_conntrack* entry) const { nfct_destroy(entry); }
};
using Entry = std::unique_ptr<nf_conntrack, EntryDeleter>;

// A direction of an entry: whence packets come, whither they go.
struct Direction {
  SocketAddress source, destination;
};

std::optional<SocketAddress> AddressIn(const nf_conntrack* entry, nf_conntrack_attr v4, nf_conntrack_attr v6, nf_conntrack_attr port) {
  SocketAddress address;
  if (nfct_attr_is_set(entry, v4) > 0) {
    std::array<std::uint8_t, 4> bytes{};
    std::memcpy(bytes.data(), nfct_get_attr(entry, v4), bytes.size());
    address.ip = IpAddress::V4(bytes);
  } else if (nfct_attr_is_set(entry, v6) > 0) {
    std::array<std::uint8_t, 16> bytes{};
    std::memcpy(bytes.data(), nfct_get_attr(entry, v6), bytes.size());
    address.ip = IpAddress::V6(bytes);
  } else {
    return std::nullopt;
  }
  if (nfct_attr_is_set(entry, port) <= 0) return std::nullopt;
  address.port = ntohs(nfct_get_attr_u16(entry, port));
  return address;
}

std::optional<Direction> Original(const nf_conntrack* entry) {
  const auto source = AddressIn(entry, ATTR_ORIG_IPV4_SRC, ATTR_ORIG_IPV6_SRC, ATTR_ORIG_PORT_SRC);
  const auto destination = AddressIn(entry, ATTR_ORIG_IPV4_DST, ATTR_ORIG_IPV6_DST, ATTR_ORIG_PORT_DST);
  return source && destination ? std::optional(Direction{*source, *destination}) : std::nullopt;
}

std::optional<Direction> Reply(const nf_conntrack* entry) {
  const auto source = AddressIn(entry, ATTR_REPL_IPV4_SRC, ATTR_REPL_IPV6_SRC, ATTR_REPL_PORT_SRC);
  const auto destination = AddressIn(entry, ATTR_REPL_IPV4_DST, ATTR_REPL_IPV6_DST, ATTR_REPL_PORT_DST);
  return source && destination ? std::optional(Direction{*source, *destination}) : std::nullopt;
}

// The kernel looks an entry up by either of its directions, whichever attributes hold it.
Entry QuestionAbout(const AddressPair& socket) {
  Entry entry(nfct_new());
  const IpAddress& source = socket.local.ip;
  const IpAddress& destination = socket.remote.ip;
  if (source.IsV4()) {
    nfct_set_attr_u8(entry.get(), ATTR_L3PROTO, AF_INET);
    nfct_set_attr(entry.get(), ATTR_IPV4_SRC, source.Bytes().data());
    nfct_set_attr(entry.get(), ATTR_IPV4_DST, destination.Bytes().data());
  } else {
    nfct_set_attr_u8(entry.get(), ATTR_L3PROTO, AF_INET6);
    nfct_set_attr(entry.get(), ATTR_IPV6_SRC, source.Bytes().data());
    nfct_set_attr(entry.get(), ATTR_IPV6_DST, destination.Bytes().data());
  }
  nfct_set_attr_u8(entry.get(), ATTR_L4PROTO, IPPROTO_TCP);
  nfct_set_attr_u16(entry.get(), ATTR_PORT_SRC, htons(socket.local.port));
  nfct_set_attr_u16(entry.get(), ATTR_PORT_DST, htons(socket.remote.port));
  return entry;
}

}  // namespace

class Conntrack::Impl {
 public:
  explicit Impl(nfct_handle* handle) : handle_(handle) {
    nfct_callback_register(
        handle_, NFCT_T_ALL,
        [](nf_conntrack_msg_type, nf_conntrack* entry, void* found) {
          static_cast<Entry*>(found)->reset(nfct_clone(entry));
          return static_cast<int>(NFCT_CB_CONTINUE);
        },
        &found_);
  }
  ~Impl() { nfct_close(handle_); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  AddressPair OnTheWire(const AddressPair& socket) {
    found_.reset();
    const Entry question = QuestionAbout(socket);
    if (nfct_query(handle_, NFCT_Q_GET, question.get()) != 0 || !found_) return socket;
    const auto original = Original(found_.get());
    const auto reply = Reply(found_.get());
    if (!original || !reply) return socket;
    // The pod's packets are those of the opener: between the nodes they have what the answers are sent to and come from.
    if (original->source == socket.local && original->destination == socket.remote) return {reply->destination, reply->source};
    // The pod's packets are the answers: between the nodes they are mirrored originals.
    if (reply->source == socket.local && reply->destination == socket.remote) return {original->destination, original->source};
    return socket;
  }

 private:
  nfct_handle* const handle_;
  Entry found_;
};

Conntrack::Conntrack(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Conntrack::~Conntrack() = default;

Result<std::unique_ptr<Conntrack>, std::string> Conntrack::Open() {
  nfct_handle* handle = nfct_open(CONNTRACK, 0);
  if (handle == nullptr) return Failure(std::string("no connection tracking: ") + std::strerror(errno));
  return std::unique_ptr<Conntrack>(new Conntrack(std::make_unique<Impl>(handle)));
}

AddressPair Conntrack::OnTheWire(const AddressPair& socket) {
  return impl_->OnTheWire(socket);
}

}  // namespace vsocket::peer
