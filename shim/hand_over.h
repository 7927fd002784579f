// Before a socket reaches somebody who does not know of rings: it goes down to TCP for good.
#pragma once

#include <sys/socket.h>

#include "channel/reason.h"
#include "shim/stream.h"

namespace vsocket::shim {

// The connection behind `fd`, if it is one of ours, is kernel TCP's from here on.
void UseTcp(int fd, channel::Reason reason);

// A message that may carry descriptors (SCM_RIGHTS) to another process.
void BeforePassing(const struct msghdr* message);

// The process is about to become, or start, another program: every connection it would inherit (no FD_CLOEXEC). Reads the kernel's own
// table, so it is right in a vfork child too.
void BeforeExec();

// Lets go of regions whose connections a vfork child brought down: the memory is this process's, the descriptors it would have closed there
// were the child's. Cheap when there are none.
void SettleRegions();
void FreeHandOverLock();  // in the child after fork

}  // namespace vsocket::shim
