// Which port of which device, and which of its addresses, an agent uses. Pure: the devices are given as plain values.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace vsocket::transport {

// What the administrator says. Empty, 0 and -1: choose.
struct DeviceWish {
  std::string device;   // by name, as `rdma link` shows it
  std::string address;  // or by an IP address of its port, IPv4 or IPv6 (RoCEv2)
  std::uint8_t port = 0;
  int gid_index = -1;
  bool allow_software = false;  // rdma_rxe: slower than the kernel's TCP, for tests
  // Of queue pairs; see ibv_modify_qp(3).
  std::uint8_t mtu = 0;            // 1..5: 256 << (mtu - 1) bytes; 0: the port's
  std::uint8_t timeout = 18;       // 4.096 us << timeout until a packet is sent again; 1..31
  std::uint8_t retry_count = 6;    // 0..7. With the timeout above a dead peer is noticed after about 7.5 s
  std::uint8_t traffic_class = 0;  // of the IP header: DSCP << 2
  std::uint8_t service_level = 0;  // 0..15: the priority of the Ethernet frame
};

struct Gid {
  int index = 0;
  std::array<std::uint8_t, 16> bytes{};
  enum class Type : std::uint8_t { kInfiniBand, kRoceV1, kRoceV2 } type = Type::kInfiniBand;
};

struct DevicePort {
  std::string device;
  bool software = false;
  bool iwarp = false;
  std::uint8_t port = 1;
  bool active = false;
  bool ethernet = true;
  std::uint8_t active_mtu = 3;  // as DeviceWish::mtu
  std::vector<Gid> gids;        // those that are set
};

struct DeviceChoice {
  std::string device;
  std::uint8_t port = 1;
  Gid gid;
  std::uint8_t mtu = 3;
};

// The first port that fits, of the first device in the given order; RoCEv2 before RoCEv1, a routable address before a link-local one. The
// error is a sentence that says what is missing, for status pages.
Result<DeviceChoice, std::string> ChooseDevice(const DeviceWish& wish, const std::vector<DevicePort>& ports);

}  // namespace vsocket::transport
