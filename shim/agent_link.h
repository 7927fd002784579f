// The shim's line to the agent (channel/control.h). No thread: messages are sent and read inside the program's own socket calls, never
// waiting. Anything that fails means plain TCP. One line a process; a fork starts its own.
#pragma once

#include "channel/control.h"
#include "channel/reason.h"
#include "shim/sock.h"

namespace vsocket::shim {

// Reads and handles answers, and connects again when the agent was gone. Rate-limited; cheap when there is nothing to do.
void PollAgent();

// Eager mode (VSOCKET_UPGRADE_AFTER=0): gives the answer to a kAsked connection a moment to come.
void AwaitAgent(const Sock* sock);

// Why there is no line to the agent: none answers, or what it said when it refused this process.
channel::Reason WhyNoLine();

// Sends the socket to the agent. False: no agent now; ask again later.
bool AskUpgrade(Sock* sock, int fd);
// True: an unanswered request of this process was withdrawn.
bool SendCancel(const Sock* sock);
void SendRelease(const Sock* sock, channel::Reason reason);
void SendNote(const Sock* sock, channel::Reason reason);

// A kWakeOffer (with the descriptor) or kWakeWant (fd -1).
bool SendWakeRef(channel::MessageType type, std::uint64_t region_id, std::uint32_t side, std::uint32_t index, int fd);

// Of a sender at its bandwidth grant. False: there is no line now, or it takes nothing.
bool SendAskGrant(const Sock* sock);
// There is a line, as far as is known.
[[nodiscard]] bool HaveAgent();

// The child of a fork shares nothing of the line.
void ForgetAgent();

}  // namespace vsocket::shim
