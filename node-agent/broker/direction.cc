#include "node-agent/broker/direction.h"

namespace vsocket::broker {
namespace {

constexpr std::uint16_t kFirstEphemeralPort = 32768;

}  // namespace

bool FirstEndOpened(const Tuple& tuple, const EndEvidence& a, const EndEvidence& b) {
  if (a.listens != b.listens) return b.listens;
  // Read order: `a` first. Acknowledged data of `a` is a part of what `b` has received by then, so an excess is the SYN.
  if (a.counted && b.counted && a.bytes_acked > b.bytes_received) return true;
  const bool local_ephemeral = tuple.local.port >= kFirstEphemeralPort;
  const bool remote_ephemeral = tuple.remote.port >= kFirstEphemeralPort;
  if (local_ephemeral != remote_ephemeral) return local_ephemeral;
  return tuple.local.port > tuple.remote.port;
}

model::Flow FlowOf(const Tuple& tuple, bool local_opened) {
  const Endpoint& client = local_opened ? tuple.local : tuple.remote;
  const Endpoint& server = local_opened ? tuple.remote : tuple.local;
  return {client.address, server.address, server.port, model::Protocol::kTcp};
}

}  // namespace vsocket::broker
