// The seam's device over libibverbs (rdma-core). The files of this folder are the only ones that include verbs headers; this one does not.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "node-agent/transport/fabric/fabric.h"
#include "node-agent/transport/verbs/device_choice.h"

namespace vsocket::transport {

// The ports of this node's RDMA devices. Empty: there are none, or the kernel lets us at none.
std::vector<DevicePort> ListDevicePorts();

// Opens what ChooseDevice chooses. The error's text says why there is none.
Result<std::unique_ptr<Device>, FabricError> OpenVerbsDevice(const DeviceWish& wish);

}  // namespace vsocket::transport
