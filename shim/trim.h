// Gives the memory of rings that have grown back to the kernel once they have been empty and unused for a second or two.
//
// A ring is its sender's, so the sender's process trims it. The shim has no thread: a thread that goes to sleep on a connection wakes up
// once for it, as long as a ring of the process is big, and sleeps on; threads that are busy do it by the way. Nobody looks at a ring for
// readiness on that occasion: a wake-up that was lost stays lost, and is found by the tests.
#pragma once

#include <cstdint>

#include "shim/grant.h"
#include "shim/sock.h"

namespace vsocket::shim {

inline constexpr std::uint64_t kNothingToTrim = UINT64_MAX;

// tx_lock. The sending ring of this connection is bigger than the smallest from now on.
void NoteGrown(Sock* sock);

// Nanoseconds until TrimIdleRings has something to do; kNothingToTrim: no ring of this process is big. 0: now.
[[nodiscard]] std::uint64_t NsUntilTrim();

// Looks at the process's connections, when it is time. Thread safety: any thread, whatever it holds; what is locked is left for later.
void TrimIdleRings();

// sleep(ns), which returns 0 when the time is over, in pieces between which rings are trimmed. `ns`: UINT64_MAX is for ever. 0 also when it
// is time to look for a grant (grant.h): the caller looks around, and sleeps again for the rest.
template <typename Sleep>
long SleepAndTrim(std::uint64_t ns, Sleep sleep) {
  const std::uint64_t until_grant = TakeGrantSleep();
  if (until_grant < ns) ns = until_grant;
  for (;;) {
    const std::uint64_t piece = NsUntilTrim();
    if (piece >= ns) return sleep(ns);
    const long woken = sleep(piece);
    if (woken != 0) return woken;
    if (ns != UINT64_MAX) ns -= piece;
    TrimIdleRings();
  }
}

}  // namespace vsocket::shim
