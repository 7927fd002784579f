// What devices and ports there are (ibv_get_device_list(3), ibv_query_port(3), ibv_query_gid_table(3)).
#include <algorithm>
#include <cstring>

#include "node-agent/transport/verbs/handles.h"
#include "node-agent/transport/verbs/verbs_device.h"

namespace vsocket::transport {
namespace {

// Of the kernel's rdma_rxe (rxe_param.h) and siw (siw.h): neither is a number that the IEEE has given to anybody.
constexpr std::uint32_t kRxeVendor = 0xffffff;
constexpr std::uint32_t kSiwVendor = 0x626d74;

Gid::Type TypeOf(std::uint32_t type) {
  switch (type) {
    case IBV_GID_TYPE_ROCE_V2:
      return Gid::Type::kRoceV2;
    case IBV_GID_TYPE_ROCE_V1:
      return Gid::Type::kRoceV1;
    default:
      return Gid::Type::kInfiniBand;
  }
}

void AddPorts(ibv_context* context, const ibv_device_attr& device, std::vector<DevicePort>* ports) {
  std::vector<ibv_gid_entry> gids(1024);
  const auto known = ibv_query_gid_table(context, gids.data(), gids.size(), 0);
  gids.resize(known > 0 ? static_cast<std::size_t>(known) : 0);
  for (std::uint8_t number = 1; number <= device.phys_port_cnt; ++number) {
    ibv_port_attr attributes{};
    if (ibv_query_port(context, number, &attributes) != 0) continue;
    DevicePort port;
    port.device = ibv_get_device_name(context->device);
    port.software = device.vendor_id == kRxeVendor || device.vendor_id == kSiwVendor;
    port.iwarp = context->device->transport_type == IBV_TRANSPORT_IWARP;
    port.port = number;
    port.active = attributes.state == IBV_PORT_ACTIVE;
    port.ethernet = attributes.link_layer == IBV_LINK_LAYER_ETHERNET;
    port.active_mtu = static_cast<std::uint8_t>(attributes.active_mtu);
    for (const ibv_gid_entry& entry : gids) {
      if (entry.port_num != number) continue;
      Gid gid;
      gid.index = static_cast<int>(entry.gid_index);
      std::memcpy(gid.bytes.data(), entry.gid.raw, gid.bytes.size());
      gid.type = TypeOf(entry.gid_type);
      port.gids.push_back(gid);
    }
    ports->push_back(std::move(port));
  }
}

}  // namespace

std::vector<DevicePort> ListDevicePorts() {
  std::vector<DevicePort> ports;
  int count = 0;
  const DeviceList devices(ibv_get_device_list(&count));
  for (int i = 0; devices && i < count; ++i) {
    const ContextHandle context(ibv_open_device(devices.get()[i]));
    ibv_device_attr attributes{};
    if (context && ibv_query_device(context.get(), &attributes) == 0) AddPorts(context.get(), attributes, &ports);
  }
  return ports;
}

}  // namespace vsocket::transport
