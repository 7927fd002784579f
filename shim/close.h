// The end of a descriptor, whichever call brings it: close, dup2 onto it, close_range.
//
//   const Dropped dropped = BeginClose(fd);
//   ... the kernel's close ...
//   EndClose(dropped);
//
// The table entry goes before the kernel's close, since another thread may be given the number at once; a last close settles the stream
// while the descriptor is still open; and the Sock is freed after it, so that nobody meets a new connection in its place too early.
// Cheap for descriptors that are nothing of ours. Thread safety: any thread. errno is left alone.
#pragma once

#include "shim/sock.h"

namespace vsocket::shim {

// Takes `fd` out of the socket table and the epoll sets. Does nothing in a vfork child, whose descriptors are not this table's.
[[nodiscard]] Dropped BeginClose(int fd);
void EndClose(const Dropped& dropped);

// As above for callers that name the descriptor.
inline void EndClose(int, const Dropped& dropped) {
  EndClose(dropped);
}

// For descriptors that libc has replaced behind our back already (daemon(3), forkpty(3)): the kernel's part is over.
void ForgetReplaced(int fd);

}  // namespace vsocket::shim
