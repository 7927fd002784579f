// sock_diag and namespaces against the real kernel. Needs root.
#include "node-agent/broker/sock_diag.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "node-agent/broker/netns.h"
#include "node-agent/broker/testing/test_node.h"

namespace vsocket::broker {
namespace {

using testing::MakeTcpPair;
using testing::TcpPair;

class SockDiagTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(testing::EnterTestNamespace());
    auto opened = OpenNetns("/proc/self/ns/net");
    ASSERT_TRUE(opened) << opened.Error();
    sockets_ = MakePodSockets(std::move(opened->diag));
  }

  TcpSocket Read(int fd) {
    auto read = probe_->Read(fd);
    EXPECT_TRUE(read);
    return read ? read.Value() : TcpSocket{};
  }

  std::unique_ptr<SocketProbe> probe_ = MakeSocketProbe();
  std::unique_ptr<PodSockets> sockets_;
};

TEST_F(SockDiagTest, FindsListsAndDestroysOfEveryFamily) {
  for (const auto& [client_ip, server_ip] : {std::pair("10.77.0.1", "10.77.0.2"), std::pair("fd77::1", "fd77::2"),
                                             std::pair("::ffff:10.77.0.1", "::ffff:10.77.0.2"), std::pair("127.0.0.1", "127.0.0.1")}) {
    const TcpPair pair = MakeTcpPair(client_ip, server_ip);
    const TcpSocket client = Read(pair.client.Get());
    ASSERT_NE(client.cookie, 0U);
    EXPECT_EQ(client.tuple, Read(pair.server.Get()).tuple.Mirror());
    EXPECT_EQ(client.state, kEstablished);
    ASSERT_EQ(::send(pair.client.Get(), "hello", 5, 0), 5);

    const auto found = sockets_->Find(client.tuple, client.cookie);
    ASSERT_TRUE(found) << client_ip;
    EXPECT_EQ(found->tuple, client.tuple);
    EXPECT_NE(found->inode, 0U);
    EXPECT_FALSE(sockets_->Find(client.tuple, client.cookie + 1000000)) << "another socket";
    EXPECT_TRUE(sockets_->Listens(client.tuple.remote));
    EXPECT_FALSE(sockets_->Listens(client.tuple.local));

    const auto all = sockets_->Connections();
    const auto listed = std::find_if(all.begin(), all.end(), [&](const TcpSocket& socket) { return socket.cookie == client.cookie; });
    ASSERT_NE(listed, all.end()) << client_ip;
    EXPECT_EQ(listed->tuple, client.tuple);
    EXPECT_EQ(listed->bytes_acked, 6U) << "five bytes and the SYN";
    EXPECT_FALSE(sockets_->Destroy(client.tuple, client.cookie + 1000000));
    EXPECT_TRUE(sockets_->Destroy(client.tuple, client.cookie)) << client_ip;
    char byte = 0;
    EXPECT_EQ(::recv(pair.client.Get(), &byte, 1, 0), -1);
    EXPECT_EQ(errno, ECONNABORTED);
    EXPECT_FALSE(sockets_->Find(client.tuple, client.cookie));
    EXPECT_FALSE(sockets_->Destroy(client.tuple, client.cookie));
  }
}

TEST_F(SockDiagTest, ListsMoreThanOneNetlinkBuffer) {
  std::vector<TcpPair> pairs;
  for (int i = 0; i < 200; ++i) pairs.push_back(MakeTcpPair("127.0.0.1", "127.0.0.1", 0, false));
  const auto all = sockets_->Connections();
  for (const TcpPair& pair : pairs) {
    const std::uint64_t cookie = testing::CookieOf(pair.server.Get());
    EXPECT_TRUE(std::any_of(all.begin(), all.end(), [&](const TcpSocket& socket) { return socket.cookie == cookie; }));
  }
}

TEST_F(SockDiagTest, ASocketNobodyHoldsHasNoInode) {
  TcpPair pair = MakeTcpPair("10.77.0.1", "10.77.0.2");
  const TcpSocket client = Read(pair.client.Get());
  pair.client.Reset();  // FIN_WAIT: the server has not closed
  const auto found = sockets_->Find(client.tuple, client.cookie);
  EXPECT_TRUE(!found || found->inode == 0);
}

TEST_F(SockDiagTest, ProbeRefusesEverythingElse) {
  const UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const UniqueFd unconnected(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const UniqueFd local(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  for (const int fd : {udp.Get(), local.Get(), 0, -1}) {
    const auto read = probe_->Read(fd);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.Error(), ProbeError::kNotTcp);
  }
  const auto read = probe_->Read(unconnected.Get());
  ASSERT_FALSE(read);
  EXPECT_EQ(read.Error(), ProbeError::kNotConnected);
  EXPECT_TRUE(probe_->IsWakeSocket(local.Get()));
  EXPECT_FALSE(probe_->IsWakeSocket(udp.Get()));
  EXPECT_FALSE(probe_->IsWakeSocket(0));
}

TEST_F(SockDiagTest, NamespacesAreToldApart) {
  const auto mine = OpenNetns("/proc/self/ns/net");
  const auto parent = OpenNetns("/proc/" + std::to_string(::getppid()) + "/ns/net");
  ASSERT_TRUE(mine && parent);
  EXPECT_NE(mine.Value().cookie, parent.Value().cookie);
  EXPECT_NE(mine.Value().inode, parent.Value().inode);
  EXPECT_EQ(NetnsInodeOfProcess(::getpid()), mine.Value().inode);
  EXPECT_EQ(NetnsInodeOfProcess(::getppid()), parent.Value().inode);
  EXPECT_EQ(NetnsInodeOfProcess(0), 0U);
  EXPECT_FALSE(OpenNetns("/proc/self/ns/mnt"));
  EXPECT_FALSE(OpenNetns("/etc/hostname"));
  EXPECT_FALSE(OpenNetns("/nowhere"));
}

}  // namespace
}  // namespace vsocket::broker
