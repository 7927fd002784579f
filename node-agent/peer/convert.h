// Between messages and what crosses gRPC. Everything that comes in is hostile until it has passed here: numbers are in range, texts are
// bounded and printable, addresses are addresses. What they mean is judged by Session and Agreement.
//
// Thread safety: pure functions.
#pragma once

#include <vsocket/v1/peer.pb.h>

#include <string>

#include "base/result.h"
#include "node-agent/peer/messages.h"

namespace vsocket::peer {

// The error names the field.
Result<Message, std::string> FromProto(const v1::PeerMessage& from);
v1::PeerMessage ToProto(const Message& message);

}  // namespace vsocket::peer
