// The client against a real server over a fake agent, and without any.
#include "cli/inspector.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "node-agent/rpc/fake_node_api.h"
#include "node-agent/rpc/rpc_server.h"

namespace vsocket::cli {
namespace {

class InspectorTest : public testing::Test {
 protected:
  InspectorTest() {
    std::string dir = testing::TempDir() + "/ctlXXXXXX";
    dir_ = ::mkdtemp(dir.data());
  }
  ~InspectorTest() override { std::filesystem::remove_all(dir_); }

  [[nodiscard]] rpc::RpcServerOptions Options() const { return {.socket_path = dir_ + "/a.sock", .spool_dir = ""}; }
  [[nodiscard]] Inspector Ask() const { return Inspector(dir_ + "/a.sock", std::chrono::seconds(30)); }

  std::string dir_;
  rpc::FakeNodeApi api_;
};

TEST_F(InspectorTest, NoAgentIsExit3WithAHint) {
  const auto status = Ask().Status();
  ASSERT_FALSE(status.Ok());
  EXPECT_EQ(status.Error().exit, Exit::kUnreachable);
  EXPECT_NE(status.Error().message.find("No such file or directory"), std::string::npos);
  EXPECT_NE(status.Error().message.find("--agent-socket"), std::string::npos);
  EXPECT_EQ(Inspector(std::string(200, 'x'), std::chrono::seconds(1)).Status().Error().exit, Exit::kUnreachable);
}

TEST_F(InspectorTest, AnAgentOfAnotherReleaseIsExit5) {
  auto options = Options();
  options.protocol_version = 9;
  rpc::RpcServer server(api_, options);
  ASSERT_TRUE(server.Start().Ok());
  EXPECT_EQ(Ask().Status().Error().exit, Exit::kOtherVersion);
  EXPECT_EQ(Ask().Connections("").Error().exit, Exit::kOtherVersion);
}

TEST_F(InspectorTest, AnswersAndWhatIsNotFound) {
  api_.status.version = "1.2.3";
  api_.connections.resize(1300);
  for (auto& connection : api_.connections) connection.pod = "default/busy";
  api_.verdict = Failure<model::ApiError>({model::ApiErrorKind::kNotFound, "no pod default/nobody"});
  model::LocalPod idle;
  idle.uid = idle.container_id = idle.name = "idle";
  idle.ns = "default";
  ASSERT_TRUE(api_.AddPod(idle).Ok());
  rpc::RpcServer server(api_, Options());
  ASSERT_TRUE(server.Start().Ok());

  EXPECT_EQ(Ask().Status().Value().version(), "1.2.3");
  EXPECT_EQ(Ask().Pods().Value().size(), 1U);
  EXPECT_EQ(Ask().Connections("").Value().size(), 1300U);
  EXPECT_EQ(Ask().Connections("default/busy").Value().size(), 1300U);
  EXPECT_EQ(Ask().Connections("default/idle").Value().size(), 0U);
  EXPECT_EQ(Ask().Connections("default/nobody").Error().exit, Exit::kNotFound);
  EXPECT_EQ(Ask().TracePolicy({}).Error().exit, Exit::kNotFound);
  EXPECT_EQ(Ask().TracePolicy({}).Error().message, "no pod default/nobody");
}

}  // namespace
}  // namespace vsocket::cli
