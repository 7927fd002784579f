// agent.sock: one listener a pod, one connection a process, all on one loop. Moves packets between the sockets and the broker.
//
// Descriptors that a pod sends are taken with MSG_CMSG_CLOEXEC into a buffer for as many as a packet can carry, so none is dropped by
// the kernel inside our call; what no message consumed goes to the pod's ForeignFds. Connections themselves are closed there too:
// packets that were not read may hold descriptors whose close blocks.
//
// Thread safety: none; the loop's thread, or before it runs.
#pragma once

#include <array>
#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/result.h"
#include "base/unique_fd.h"
#include "channel/control.h"
#include "node-agent/broker/broker.h"
#include "node-agent/broker/loop.h"

namespace vsocket::broker {

struct Listening {};

class ControlServer {
 public:
  // Both must outlive the server. `unsent_limit`: packets queued for a shim that does not read before it is disconnected.
  ControlServer(Loop& loop, Broker& broker, std::uint32_t unsent_limit);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // Takes over a listening socket (see PodDirectory); an earlier one of the pod is closed.
  Result<Listening, std::string> Listen(const std::string& pod_uid, UniqueFd listener);
  void StopListening(const std::string& pod_uid);
  [[nodiscard]] std::size_t Connections() const { return connections_.size(); }

 private:
  class Connection;

  void Accept(const std::string& pod_uid);
  void Adopt(const std::string& pod_uid, UniqueFd socket);
  void Drop(Connection* connection);
  void Refuse(int listener);
  void WatchListeners(std::uint32_t events);

  Loop& loop_;
  Broker& broker_;
  std::uint32_t unsent_limit_;
  std::map<std::string, UniqueFd> listeners_;
  std::unordered_map<Connection*, std::unique_ptr<Connection>> connections_;
  // Given up to accept and close a connection when no descriptor is left: it would stay in the backlog, and epoll would report it for
  // ever. When even that does not work the listeners are not watched until a connection has gone.
  UniqueFd spare_;
  bool starved_ = false;
};

}  // namespace vsocket::broker
