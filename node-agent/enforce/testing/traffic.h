// A fixture of three pods behind a bridge, and the traffic that root tests send between them.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "base/unique_fd.h"
#include "node-agent/enforce/enforcer.h"
#include "node-agent/enforce/testing/netns_node.h"
#include "node-agent/model/allow_list.h"

namespace vsocket::enforce::testing {

inline constexpr int kServer = 0, kFriend = 1, kStranger = 2, kHost = -1;
inline constexpr int kPatienceMs = 5000;  // for what must come
inline constexpr int kSilenceMs = 300;    // for what must not: the time a packet has to get through if it were let through

bool Readable(int fd, int ms);
model::IpAddress Ip(const std::string& text);

class TrafficTest : public ::testing::Test {
 protected:
  TrafficTest();

  UniqueFd Socket(int where, const std::string& ip, int type, std::uint16_t local_port = 0);
  UniqueFd Listen(int where, const std::string& ip, std::uint16_t port);
  // 0, or the errno of the connect; ETIMEDOUT when nothing came back. `local_port` 0: the kernel's choice.
  int Connect(int where, const std::string& ip, std::uint16_t port, UniqueFd* out = nullptr);
  static int ConnectFd(int fd, const std::string& ip, std::uint16_t port);  // blocks; 0 or an errno
  // Four bytes. What is dropped on the way out (EPERM) is no failure.
  static void SendTo(int fd, const std::string& ip, std::uint16_t port);
  static bool Receives(int fd, int ms);  // four bytes

  // The server lets the friend in on 6379 only, by TCP and (53) UDP.
  static model::AllowList FriendOnly();
  void Enforce(const model::AllowList& list);  // at the server

  NetnsNode node_;
  Enforcer enforcer_;
};

}  // namespace vsocket::enforce::testing
