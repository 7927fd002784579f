// Sleeping on an attached connection: spin for as long as that has paid off lately, then sleep in the kernel on the socket and a wake
// object of the thread's own.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "shim/stream.h"

namespace vsocket::shim {

// recv/send as the program knows them: waits unless the call or the socket is non-blocking, honours SO_RCVTIMEO/SO_SNDTIMEO, EINTR,
// SA_RESTART and MSG_WAITALL. Bytes, 0, or -errno. kNotAttached (stream.h): the connection has left its channel, perhaps in the middle of
// this call; `*done` bytes of it are done, and the rest is the kernel's. `*done` is 0 at the first call, and is passed on to the next.
ssize_t Receive(SockRef ref, int fd, const struct iovec* parts, int count, int flags, std::size_t* done);
ssize_t Send(SockRef ref, int fd, const struct iovec* parts, int count, int flags, std::size_t* done);
ssize_t SendFile(SockRef ref, int fd, int in_fd, off_t* offset, size_t size, std::size_t* done);

// What is left of `parts` behind `done` bytes; at most kParts parts are looked at in one attempt, as the kernel would take fewer bytes.
inline constexpr int kParts = 64;
int Rest(const struct iovec* parts, int count, std::size_t done, struct iovec* rest);

// An error that came after part of the work was done: the next call reports it, as the kernel keeps it in the socket.
void KeepForNextCall(SockRef ref, ssize_t error);

// How long spinning may go on. One a thread; adapts: paid off -> longer, in vain or preempted -> shorter, down to nothing.
class SpinBudget {
 public:
  [[nodiscard]] std::uint64_t Ticks() const { return ticks_; }
  void PaidOff();
  void InVain();
  void Preempted();

 private:
  std::uint64_t ticks_ = 0;
  std::uint32_t skip_ = 0;
  bool started_ = false;
  friend std::uint64_t BeginSpin(SpinBudget&);
};
// The ticks to spin for this time; 0: do not.
std::uint64_t BeginSpin(SpinBudget& budget);
SpinBudget& ThreadSpin();

// True when a signal handler that ran asks for EINTR rather than a restart (sigaction is watched in calls_signal.cc).
bool SignalMeansEintr();
void NoteSignalHandler(int signal, bool handled, bool restarts);

}  // namespace vsocket::shim
