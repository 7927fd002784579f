#include "node-agent/transport/verbs/device_choice.h"

#include <gtest/gtest.h>

namespace vsocket::transport {
namespace {

Gid V4(int index, std::uint8_t last, Gid::Type type = Gid::Type::kRoceV2) {
  return {index, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last}, type};
}
Gid LinkLocal(int index) {
  return {index, {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, Gid::Type::kRoceV2};
}

DevicePort Port(const char* name, std::vector<Gid> gids) {
  DevicePort port;
  port.device = name;
  port.active = true;
  port.gids = std::move(gids);
  return port;
}

TEST(DeviceChoiceTest, PrefersARoutableRoceV2Address) {
  const auto choice = ChooseDevice({}, {Port("mlx5_0", {V4(0, 1, Gid::Type::kRoceV1), LinkLocal(1), V4(3, 1)})});
  ASSERT_TRUE(choice);
  EXPECT_EQ(choice.Value().gid.index, 3);
  EXPECT_EQ(choice.Value().device, "mlx5_0");
}

TEST(DeviceChoiceTest, FindsThePortOfAnAddress) {
  DeviceWish wish;
  wish.address = "10.0.0.2";
  const std::vector<DevicePort> ports = {Port("mlx5_0", {V4(3, 1)}), Port("mlx5_1", {V4(1, 2, Gid::Type::kRoceV1), V4(5, 2)})};
  const auto choice = ChooseDevice(wish, ports);
  ASSERT_TRUE(choice);
  EXPECT_EQ(choice.Value().device, "mlx5_1");
  EXPECT_EQ(choice.Value().gid.index, 5);
  wish.address = "fe80::1";
  EXPECT_FALSE(ChooseDevice(wish, ports));
}

TEST(DeviceChoiceTest, SaysWhatIsMissing) {
  EXPECT_EQ(ChooseDevice({}, {}).Error(), "there is no RDMA device on this node");
  DeviceWish wish;
  wish.device = "mlx5_7";
  EXPECT_EQ(ChooseDevice(wish, {Port("mlx5_0", {V4(3, 1)})}).Error(), "no RDMA device is called 'mlx5_7'");
  wish = {};
  wish.address = "ten";
  EXPECT_EQ(ChooseDevice(wish, {Port("mlx5_0", {})}).Error(), "'ten' is no IP address");
  wish.address = "10.0.0.9";
  EXPECT_EQ(ChooseDevice(wish, {Port("mlx5_0", {V4(3, 1)})}).Error(), "mlx5_0/1 has no RoCEv2 address 10.0.0.9");
  DevicePort down = Port("mlx5_0", {V4(3, 1)});
  down.active = false;
  EXPECT_EQ(ChooseDevice({}, {down}).Error(), "mlx5_0/1 is not active");
  EXPECT_EQ(ChooseDevice({}, {Port("mlx5_0", {})}).Error(), "mlx5_0/1 has no usable GID");
  DevicePort iwarp = Port("siw0", {V4(0, 1)});
  iwarp.iwarp = iwarp.software = true;
  EXPECT_EQ(ChooseDevice({}, {iwarp}).Error(), "siw0/1 speaks iWARP, which is not supported");
}

TEST(DeviceChoiceTest, UsesSoftwareDevicesOnlyWhenAllowed) {
  DevicePort rxe = Port("rxe0", {V4(1, 1)});
  rxe.software = true;
  EXPECT_EQ(ChooseDevice({}, {rxe}).Error(), "rxe0/1 is a software device, which is not allowed here");
  DeviceWish wish;
  wish.allow_software = true;
  EXPECT_TRUE(ChooseDevice(wish, {rxe}));
}

TEST(DeviceChoiceTest, TakesTheSmallerMtu) {
  DevicePort port = Port("mlx5_0", {V4(3, 1)});
  port.active_mtu = 5;
  DeviceWish wish;
  EXPECT_EQ(ChooseDevice(wish, {port}).Value().mtu, 5);
  wish.mtu = 3;
  EXPECT_EQ(ChooseDevice(wish, {port}).Value().mtu, 3);
  port.active_mtu = 2;
  EXPECT_EQ(ChooseDevice(wish, {port}).Value().mtu, 2);
}

}  // namespace
}  // namespace vsocket::transport
