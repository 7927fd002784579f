// What is done to descriptors that a pod handed over, where doing it can block.
//
// close(2) of the last reference to a socket with SO_LINGER blocks for as long as its owner chose, and so does that of a UNIX socket in
// which such a socket is in flight. No check beforehand helps, because the owner can change it in between. So nothing of a pod's is closed
// or rung on the broker's thread: each pod has a worker of its own, and a pod that blocks it delays nobody but itself.
//
// Thread safety: one thread calls; the worker is internal. It is started by the first job and ends with the object. When it is stuck
// then, it is left behind with its jobs and ends when the kernel lets it.
#pragma once

#include <memory>

#include "base/unique_fd.h"

namespace vsocket::broker {

class ForeignFds {
 public:
  ForeignFds();
  ~ForeignFds();
  ForeignFds(const ForeignFds&) = delete;
  ForeignFds& operator=(const ForeignFds&) = delete;

  void Close(UniqueFd fd);
  // Keeps it open as long as somebody has the pointer, which may be longer than this object lives; closed by the worker then.
  std::shared_ptr<const UniqueFd> Hold(UniqueFd fd);
  // Rings a wake object: a byte on its UNIX stream socket.
  void Ring(std::shared_ptr<const UniqueFd> wake_fd);
  // Jobs not done yet. Whoever hands in more work looks here first and refuses the pod when it grows (kBacklogLimit).
  [[nodiscard]] std::size_t Backlog() const;

  static constexpr std::size_t kBacklogLimit = 1024;

 private:
  struct Shared;

  std::shared_ptr<Shared> shared_;
};

}  // namespace vsocket::broker
