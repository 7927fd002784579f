// Descriptors of the shim's own in the program's table: kept high, close-on-exec, and out of the program's reach (close, close_range and
// dup2 onto them are refused or stepped around).
#pragma once

namespace vsocket::shim {

// Moves `fd` to a high number and remembers it; `fd` itself is closed. Returns the number in use (the old one when no high one was free).
int KeepOwnFd(int fd);
void DropOwnFd(int fd);
[[nodiscard]] bool IsOwnFd(int fd);

// The lowest own descriptor >= from, or -1. For close_range.
int NextOwnFd(int from);

}  // namespace vsocket::shim
