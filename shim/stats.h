// What this process moved and how: a line of JSON at exit, in the file VSOCKET_STATS names. Tests and benches read from it that a program
// really ran accelerated.
#pragma once

#include "shim/sock.h"

namespace vsocket::shim {

void CountConnection();
void CountUp();    // a direction went up to a ring
void CountDown();  // a direction came down to TCP
void CountUpgraded();
void CountRing(bool fast);  // of the peer: its wake object, or a byte by TCP
// A connection of this process is over, or the process is: its bytes join the totals.
void CountSock(Sock* sock);
// Once; later calls do nothing. `even_if_nothing`: a process without any connection has its line too.
void WriteStats(bool even_if_nothing = true);
// From here on only what is new counts: in a forked child, and after an exec that failed (its statistics were written).
void ResetStatsForChild();

}  // namespace vsocket::shim
