#include "node-agent/transport/verbs/device_choice.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>
#include <optional>

namespace vsocket::transport {
namespace {

using GidBytes = std::array<std::uint8_t, 16>;

// RoCEv2: an IPv4 address is a mapped one (RFC 4291, 2.5.5.2).
std::optional<GidBytes> GidOf(const std::string& address) {
  GidBytes gid{};
  if (::inet_pton(AF_INET6, address.c_str(), gid.data()) == 1) return gid;
  gid[10] = gid[11] = 0xff;
  if (::inet_pton(AF_INET, address.c_str(), gid.data() + 12) == 1) return gid;
  return std::nullopt;
}

bool IsLinkLocal(const Gid& gid) {
  return gid.bytes[0] == 0xfe && (gid.bytes[1] & 0xc0) == 0x80;
}

int RankOf(const Gid& gid, bool ethernet) {
  if (!ethernet) return 0;
  return (gid.type == Gid::Type::kRoceV2 ? 0 : 2) + IsLinkLocal(gid);
}

std::optional<Gid> ChooseGid(const DeviceWish& wish, const DevicePort& port, const std::optional<GidBytes>& address) {
  std::optional<Gid> best;
  for (const Gid& gid : port.gids) {
    if (wish.gid_index >= 0 && gid.index != wish.gid_index) continue;
    if (address && (gid.bytes != *address || (port.ethernet && gid.type != Gid::Type::kRoceV2))) continue;
    if (!best || RankOf(gid, port.ethernet) < RankOf(*best, port.ethernet)) best = gid;
  }
  return best;
}

}  // namespace

Result<DeviceChoice, std::string> ChooseDevice(const DeviceWish& wish, const std::vector<DevicePort>& ports) {
  const auto address = wish.address.empty() ? std::nullopt : GidOf(wish.address);
  if (!wish.address.empty() && !address) return Failure("'" + wish.address + "' is no IP address");
  if (ports.empty()) return Failure(std::string("there is no RDMA device on this node"));
  // The reason of the port that came furthest.
  std::string why = "no RDMA device is called '" + wish.device + "'";
  int came = 0;
  const auto refuse = [&](int stage, std::string text) {
    if (stage >= came) why = std::move(text);
    came = std::max(came, stage);
  };
  for (const DevicePort& port : ports) {
    const std::string name = port.device + "/" + std::to_string(port.port);
    if (!wish.device.empty() && port.device != wish.device) continue;
    if (wish.port != 0 && port.port != wish.port) {
      refuse(1, port.device + " has no port " + std::to_string(wish.port));
    } else if (port.iwarp) {
      refuse(2, name + " speaks iWARP, which is not supported");
    } else if (port.software && !wish.allow_software) {
      refuse(3, name + " is a software device, which is not allowed here");
    } else if (!port.active) {
      refuse(4, name + " is not active");
    } else if (const auto gid = ChooseGid(wish, port, address); !gid) {
      refuse(5, name + (address ? " has no RoCEv2 address " + wish.address : std::string(" has no usable GID")));
    } else {
      const std::uint8_t mtu = wish.mtu == 0 ? port.active_mtu : std::min(wish.mtu, port.active_mtu);
      return DeviceChoice{port.device, port.port, *gid, mtu};
    }
  }
  return Failure(why);
}

}  // namespace vsocket::transport
