// libFuzzer target for what a pod can send on agent.sock. The first byte stands for the number of descriptors.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "node-agent/broker/control_parse.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vsocket;
  if (size == 0) return 0;
  const std::size_t fds = data[0] % 4;
  const auto message = broker::ParseShimMessage(std::as_bytes(std::span(data + 1, size - 1)), fds);
  if (!message) return 0;
  // What passed keeps the promises of control_parse.h.
  std::visit(
      [](const auto& accepted) {
        using Message = std::decay_t<decltype(accepted)>;
        if constexpr (requires { accepted.channel; }) {
          if (accepted.channel.slot >= channel::kSlots || accepted.channel.epoch == 0 || accepted.channel.side > 1) std::abort();
        }
        if constexpr (std::is_base_of_v<channel::WakeRef, Message>) {
          if (accepted.side > 1 || accepted.index >= channel::kWakeFdsPerSide) std::abort();
        }
      },
      message.Value());
  return 0;
}
