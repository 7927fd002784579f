// What a node does to a connection's addresses on its way: a Service's address becomes a backend's, a pod's may become its node's. Both
// ends know only what their own sockets say; the node that translates knows both, in its connection tracking
// (libnetfilter_conntrack, ctnetlink).
//
// A node whose translation is done elsewhere (in a socket hook, in another zone, in hardware) has no entry here: the addresses are then
// taken as the sockets have them, and a Service's address is no pod's, so the connection stays on TCP with that reason.
//
// Thread safety: none. Blocks no longer than the kernel takes to look up an entry.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "node-agent/model/peer.h"

namespace vsocket::peer {

class Conntrack {
 public:
  // Of the network namespace of the calling thread, which must be the one that routes the pods' packets. Needs CAP_NET_ADMIN.
  static Result<std::unique_ptr<Conntrack>, std::string> Open();
  ~Conntrack();
  Conntrack(const Conntrack&) = delete;
  Conntrack& operator=(const Conntrack&) = delete;

  // How packets of the TCP socket with these addresses look between the nodes. As they are when the kernel has no entry, or a connection is
  // not translated.
  [[nodiscard]] model::AddressPair OnTheWire(const model::AddressPair& socket);

 private:
  class Impl;
  explicit Conntrack(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vsocket::peer
