// The way back to a connected shim, as the broker sees it. The control server implements it; tests fake it.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "base/unique_fd.h"

namespace vsocket::broker {

class ShimLink {
 public:
  virtual ~ShimLink() = default;
  // Never blocks. What the socket does not take is queued up to a bound; beyond it the shim is disconnected (later, from the event
  // loop: never inside this call). `fd` may be null; it is kept open until it is sent.
  virtual void Send(std::span<const std::byte> message, std::shared_ptr<const UniqueFd> fd) = 0;
  // Disconnects after what is queued has been offered to the socket once. From the event loop, not inside this call.
  virtual void Close() = 0;
};

}  // namespace vsocket::broker
