// libFuzzer target: any bytes as a packet that a rule told of. What is read comes from the packet and from nowhere behind its end (ASan).
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "node-agent/enforce/packet_heads.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // A copy of exactly that size, so that a byte too far is noticed.
  const std::unique_ptr<std::byte[]> packet(new std::byte[size]);
  for (std::size_t i = 0; i < size; ++i) packet[i] = static_cast<std::byte>(data[i]);
  const auto heads = vsocket::enforce::ReadHeads({packet.get(), size});
  // The least that holds both addresses and both ports.
  if (heads && size < (heads->source.IsV4() && (data[0] >> 4U) == 4 ? 24U : 44U)) std::abort();
  return 0;
}
