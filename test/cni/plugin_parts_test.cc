// The plugin's own I/O: what it writes into the spool is what the agent reads, and what it reads of a namespace is the kernel's.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "cni-plugin/agent_client.h"
#include "cni-plugin/netns.h"
#include "cni-plugin/spool_writer.h"
#include "node-agent/rpc/fake_node_api.h"
#include "node-agent/rpc/rpc_server.h"
#include "node-agent/rpc/spool.h"

namespace vsocket::cni {
namespace {

class PartsTest : public testing::Test {
 protected:
  PartsTest() {
    std::string dir = testing::TempDir() + "/cniXXXXXX";
    dir_ = ::mkdtemp(dir.data());
  }
  ~PartsTest() override { std::filesystem::remove_all(dir_); }

  static Pod Web() {
    auto facts = ReadNetns("/proc/self/ns/net");
    EXPECT_TRUE(facts.Ok());
    return {"u-1", "default", "web", {"c1", "eth0"}, "/proc/self/ns/net", *facts, {"10.1.0.2", "fd00::2"}};
  }

  std::string dir_;
};

TEST_F(PartsTest, NamespaceFactsAreTheKernels) {
  auto facts = ReadNetns("/proc/self/ns/net");
  ASSERT_TRUE(facts.Ok());
  struct stat info {};
  ASSERT_EQ(::stat("/proc/self/ns/net", &info), 0);
  EXPECT_EQ(facts->inode, info.st_ino);
  auto again = ReadNetns("/proc/thread-self/ns/net");
  ASSERT_TRUE(again.Ok());
  EXPECT_EQ(facts->cookie, again->cookie);
  auto gone = ReadNetns(dir_ + "/none");
  ASSERT_FALSE(gone.Ok());
  EXPECT_NE(gone.Error().find("No such file"), std::string::npos);
  // A file that is no namespace cannot be entered: the cookie is unknown, and this thread is where it was.
  std::ofstream(dir_ + "/file") << "x";
  auto file = ReadNetns(dir_ + "/file");
  ASSERT_TRUE(file.Ok());
  EXPECT_EQ(file->cookie, 0U);
}

TEST_F(PartsTest, AgentReadsWhatThePluginWrote) {
  SpoolDirectory spool(dir_ + "/var/lib/spool");
  const Pod pod = Web();
  ASSERT_TRUE(spool.Add(pod).Ok());
  struct stat info {};
  ASSERT_EQ(::stat((dir_ + "/var/lib/spool").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0700U);

  rpc::FakeNodeApi api;
  const auto report = rpc::ApplySpool(dir_ + "/var/lib/spool", api);
  EXPECT_TRUE(report.problems.empty());
  ASSERT_EQ(api.Pods().size(), 1U);
  const model::LocalPod got = api.Pods()[0].pod;
  EXPECT_EQ(got.uid, "u-1");
  EXPECT_EQ(got.ns + "/" + got.name, "default/web");
  EXPECT_EQ(got.container_id + " " + got.ifname + " " + got.netns_path, "c1 eth0 /proc/self/ns/net");
  EXPECT_EQ(got.netns_cookie, pod.netns_facts.cookie);
  EXPECT_EQ(got.netns_inode, pod.netns_facts.inode);
  ASSERT_EQ(got.ips.size(), 2U);
  EXPECT_EQ(got.ips[1].ToString(), "fd00::2");
  EXPECT_TRUE(std::filesystem::is_empty(dir_ + "/var/lib/spool"));
}

TEST_F(PartsTest, ARemovalReplacesTheArrivalAndForgetTakesItBack) {
  SpoolDirectory spool(dir_);
  ASSERT_TRUE(spool.Add(Web()).Ok());
  ASSERT_TRUE(spool.Remove({"c1", "eth0"}).Ok());
  rpc::FakeNodeApi api;
  EXPECT_EQ(rpc::ApplySpool(dir_, api).removed, 1U);
  EXPECT_EQ(api.Calls(), std::vector<std::string>{"remove c1"});

  ASSERT_TRUE(spool.Add(Web()).Ok());
  spool.Forget({"c1", "eth0"});
  spool.Forget({"c1", "eth0"});
  EXPECT_TRUE(std::filesystem::is_empty(dir_));
}

TEST_F(PartsTest, ASpoolThatCannotBeWrittenIsAnErrorInWords) {
  std::ofstream(dir_ + "/file") << "x";
  auto written = SpoolDirectory(dir_ + "/file/spool").Add(Web());
  ASSERT_FALSE(written.Ok());
  EXPECT_NE(written.Error().find("Not a directory"), std::string::npos) << written.Error();
}

TEST_F(PartsTest, AnswersOverARealSocket) {
  const std::string path = dir_ + "/a.sock";
  const auto agent = ConnectAgent(path, std::chrono::seconds(30));
  EXPECT_EQ(agent->Status().kind, Answer::Kind::kUnreachable);
  EXPECT_NE(agent->Status().message.find("No such file or directory"), std::string::npos);

  rpc::FakeNodeApi api;
  rpc::RpcServer server(api, rpc::RpcServerOptions{.socket_path = path, .spool_dir = ""});
  ASSERT_TRUE(server.Start().Ok());
  EXPECT_EQ(agent->Status().kind, Answer::Kind::kUnreachable) << "the fake is not ready";
  api.status.ready = true;
  EXPECT_EQ(agent->Status().kind, Answer::Kind::kOk);
  EXPECT_EQ(agent->CheckPod(Web()).kind, Answer::Kind::kNotFound);
  EXPECT_EQ(agent->AddPod(Web()).kind, Answer::Kind::kOk);
  EXPECT_EQ(agent->CheckPod(Web()).kind, Answer::Kind::kOk);
  Pod other = Web();
  other.ips.pop_back();
  EXPECT_EQ(agent->CheckPod(other).kind, Answer::Kind::kDiffers);
  EXPECT_EQ(agent->CollectPods({{"c1", "eth0"}}).kind, Answer::Kind::kOk);
  EXPECT_EQ(api.Pods().size(), 1U);
  EXPECT_EQ(agent->RemovePod({"c1", "eth0"}).kind, Answer::Kind::kOk);
  EXPECT_EQ(api.Pods().size(), 0U);
  other.uid = "../x";
  EXPECT_EQ(agent->AddPod(other).kind, Answer::Kind::kRefused);
  server.Stop(std::chrono::milliseconds(100));
  EXPECT_EQ(agent->Status().kind, Answer::Kind::kUnreachable);
}

TEST_F(PartsTest, AnotherReleaseIsToldApart) {
  rpc::FakeNodeApi api;
  rpc::RpcServer server(api, rpc::RpcServerOptions{.socket_path = dir_ + "/a.sock", .spool_dir = "", .protocol_version = 2});
  ASSERT_TRUE(server.Start().Ok());
  const Answer answer = ConnectAgent(dir_ + "/a.sock", std::chrono::seconds(30))->AddPod(Web());
  EXPECT_EQ(answer.kind, Answer::Kind::kOtherVersion);
  EXPECT_EQ(answer.message, "the client speaks protocol version 1 and the agent protocol version 2");
}

}  // namespace
}  // namespace vsocket::cni
