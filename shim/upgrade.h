// From plain TCP to a channel: when a connection asks, how the kernel's byte counts prove that nobody uses the socket behind our back.
#pragma once

#include "shim/sock.h"

namespace vsocket::shim {

// After plain calls: counts, and asks once the connection has proved itself. `bytes` > 0.
void NotePlainReceive(SockRef ref, int fd, ssize_t bytes);
void NotePlainSend(SockRef ref, int fd, ssize_t bytes);

// The agent granted a channel: remembered; the next call that finds the socket quiet attaches it.
void NoteGrant(Sock* sock);
void NoteDenied(Sock* sock, channel::Reason reason, std::uint32_t retry_after_ms);

// In kGranted: attaches if no plain call is inside the kernel and the counts agree; otherwise gives the channel back and stays on TCP.
void ConsiderAttach(SockRef ref, int fd);

// The stream positions as the kernel knows them, payload bytes since the connection was established. False: could not be read.
bool KernelPositions(int fd, bool initiator, std::uint64_t* sent, std::uint64_t* received);

}  // namespace vsocket::shim
