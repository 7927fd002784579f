// The server over real gRPC and a real UNIX socket, with a fake agent behind it.
#include "node-agent/rpc/rpc_server.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <vsocket/v1/agent.grpc.pb.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <string>

#include "base/unique_fd.h"
#include "node-agent/rpc/fake_node_api.h"
#include "proto/version.h"

namespace vsocket::rpc {
namespace {

using std::chrono::milliseconds;

class RpcServerTest : public testing::Test {
 protected:
  RpcServerTest() {
    std::string dir = testing::TempDir() + "/rpcXXXXXX";
    dir_ = ::mkdtemp(dir.data());
    path_ = dir_ + "/agent.sock";
  }
  ~RpcServerTest() override { std::filesystem::remove_all(dir_); }

  std::unique_ptr<RpcServer> Serve() {
    auto server = std::make_unique<RpcServer>(api_, RpcServerOptions{path_, "", kProtocolVersion});
    auto started = server->Start();
    EXPECT_TRUE(started.Ok()) << started.Error().message;
    return server;
  }
  std::shared_ptr<grpc::Channel> Dial() {
    grpc::ChannelArguments own;
    own.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // gRPC would hand out the connection to the server of the last test
    return grpc::CreateCustomChannel("unix:" + path_, grpc::InsecureChannelCredentials(), own);
  }

  template <typename Request>
  static Request Make() {
    Request request;
    request.set_protocol_version(kProtocolVersion);
    return request;
  }
  static v1::AddPodRequest Web(const std::string& container = "c1") {
    auto request = Make<v1::AddPodRequest>();
    v1::LocalPod& pod = *request.mutable_pod();
    pod.set_uid("uid-1");
    pod.set_namespace_("default");
    pod.set_name("web");
    pod.set_container_id(container);
    pod.set_ifname("eth0");
    pod.set_netns_path("/run/netns/web");
    pod.set_netns_cookie(7);
    pod.set_netns_inode(8);
    pod.add_ips("10.1.0.2");
    pod.add_ips("fd00::2");
    return request;
  }

  std::string dir_, path_;
  FakeNodeApi api_;
};

TEST_F(RpcServerTest, SocketIsPrivateAndGoneAfterStop) {
  auto server = Serve();
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_TRUE(S_ISSOCK(info.st_mode));
  EXPECT_EQ(info.st_mode & 07777U, 0600U);
  server->Stop(milliseconds(100));
  EXPECT_NE(::stat(path_.c_str(), &info), 0);
  server->Stop(milliseconds(100));
  // Only the lock file is left: the directory in which the socket was made is gone.
  std::size_t left = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir_)) {
    EXPECT_EQ(entry.path().filename(), "agent.sock.lock");
    left++;
  }
  EXPECT_EQ(left, 1U);
}

TEST_F(RpcServerTest, APodIsAddedCheckedListedAndRemoved) {
  auto server = Serve();
  auto channel = Dial();
  auto cni = v1::Cni::NewStub(channel);
  auto inspect = v1::Inspect::NewStub(channel);

  const auto request = Web();
  v1::AddPodResponse added;
  grpc::ClientContext add;
  ASSERT_TRUE(cni->AddPod(&add, request, &added).ok());
  EXPECT_EQ(added.socket_dir(), "/run/vsocket/pods/uid-1");

  auto check_request = Make<v1::CheckPodRequest>();
  *check_request.mutable_pod() = request.pod();
  v1::CheckPodResponse checked;
  grpc::ClientContext check;
  EXPECT_TRUE(cni->CheckPod(&check, check_request, &checked).ok());
  check_request.mutable_pod()->set_ips(0, "10.1.0.9");
  grpc::ClientContext check_other;
  EXPECT_EQ(cni->CheckPod(&check_other, check_request, &checked).error_code(), grpc::StatusCode::ALREADY_EXISTS);

  v1::ListPodsResponse pods;
  grpc::ClientContext list;
  ASSERT_TRUE(inspect->ListPods(&list, Make<v1::ListPodsRequest>(), &pods).ok());
  ASSERT_EQ(pods.pods_size(), 1);
  EXPECT_EQ(pods.pods(0).pod().SerializeAsString(), request.pod().SerializeAsString());

  auto remove_request = Make<v1::RemovePodRequest>();
  remove_request.set_container_id("c1");
  remove_request.set_ifname("eth0");
  v1::RemovePodResponse removed;
  grpc::ClientContext remove;
  EXPECT_TRUE(cni->RemovePod(&remove, remove_request, &removed).ok());
  check_request = Make<v1::CheckPodRequest>();
  *check_request.mutable_pod() = request.pod();
  grpc::ClientContext check_gone;
  EXPECT_EQ(cni->CheckPod(&check_gone, check_request, &checked).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(RpcServerTest, CollectKeepsOnlyWhatIsListed) {
  auto server = Serve();
  auto cni = v1::Cni::NewStub(Dial());
  v1::AddPodResponse added;
  grpc::ClientContext add, add_other, collect;
  ASSERT_TRUE(cni->AddPod(&add, Web("c1"), &added).ok());
  auto other = Web("c2");
  other.mutable_pod()->set_uid("uid-2");
  ASSERT_TRUE(cni->AddPod(&add_other, other, &added).ok());
  auto request = Make<v1::CollectPodsRequest>();
  v1::Attachment* keep = request.add_keep();
  keep->set_container_id("c2");
  keep->set_ifname("eth0");
  v1::CollectPodsResponse response;
  ASSERT_TRUE(cni->CollectPods(&collect, request, &response).ok());
  EXPECT_EQ(response.removed(), 1U);
  ASSERT_EQ(api_.Pods().size(), 1U);
  EXPECT_EQ(api_.Pods()[0].pod.container_id, "c2");
}

TEST_F(RpcServerTest, AnotherVersionIsRefusedNamingBoth) {
  auto server = Serve();
  auto channel = Dial();
  auto cni = v1::Cni::NewStub(channel);
  auto request = Web();
  request.set_protocol_version(kProtocolVersion + 41);
  v1::AddPodResponse added;
  grpc::ClientContext add;
  const grpc::Status refused = cni->AddPod(&add, request, &added);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(refused.error_message(), "the client speaks protocol version 42 and the agent protocol version 1");
  EXPECT_TRUE(api_.Calls().empty());

  v1::StatusResponse status;
  grpc::ClientContext ask;
  EXPECT_EQ(v1::Inspect::NewStub(channel)->Status(&ask, v1::StatusRequest(), &status).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(RpcServerTest, NamesThatCouldLeaveADirectoryAndBadAddressesAreInvalid) {
  auto server = Serve();
  auto cni = v1::Cni::NewStub(Dial());
  const auto code_of = [&](const v1::AddPodRequest& request) {
    v1::AddPodResponse added;
    grpc::ClientContext add;
    return cni->AddPod(&add, request, &added).error_code();
  };
  for (const char* bad : {"", "..", "a/b", "../etc", "a b", "a\n"}) {
    auto request = Web();
    request.mutable_pod()->set_uid(bad);
    EXPECT_EQ(code_of(request), grpc::StatusCode::INVALID_ARGUMENT) << bad;
    request = Web();
    request.mutable_pod()->set_container_id(bad);
    EXPECT_EQ(code_of(request), grpc::StatusCode::INVALID_ARGUMENT) << bad;
  }
  auto request = Web();
  request.mutable_pod()->add_ips("10.1.0.300");
  EXPECT_EQ(code_of(request), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(api_.Calls().empty());
}

TEST_F(RpcServerTest, EachErrorHasItsCode) {
  auto server = Serve();
  auto cni = v1::Cni::NewStub(Dial());
  const std::pair<model::ApiErrorKind, grpc::StatusCode> pairs[] = {
      {model::ApiErrorKind::kInvalid, grpc::StatusCode::INVALID_ARGUMENT},
      {model::ApiErrorKind::kNotFound, grpc::StatusCode::NOT_FOUND},
      {model::ApiErrorKind::kConflict, grpc::StatusCode::ALREADY_EXISTS},
      {model::ApiErrorKind::kUnavailable, grpc::StatusCode::UNAVAILABLE},
      {model::ApiErrorKind::kInternal, grpc::StatusCode::INTERNAL},
  };
  for (const auto& [kind, code] : pairs) {
    api_.FailWith(kind, "because");
    v1::AddPodResponse added;
    grpc::ClientContext add;
    const grpc::Status failed = cni->AddPod(&add, Web(), &added);
    EXPECT_EQ(failed.error_code(), code);
    EXPECT_EQ(failed.error_message(), "because");
  }
}

TEST_F(RpcServerTest, ManyConnectionsComeInPagesAndAPodSeesOnlyItsOwn) {
  for (int i = 0; i < 3000; i++) {
    model::ConnectionInfo connection;
    connection.pod = i % 3 == 0 ? "default/a" : "default/b";
    connection.cookie = static_cast<std::uint64_t>(i);
    connection.state = i % 2 == 0 ? model::ConnectionState::kRing : model::ConnectionState::kTcp;
    connection.reason = 5;
    api_.connections.push_back(connection);
  }
  auto server = Serve();
  auto inspect = v1::Inspect::NewStub(Dial());
  const auto list = [&](const std::string& pod) {
    auto request = Make<v1::ListConnectionsRequest>();
    request.set_pod(pod);
    grpc::ClientContext context;
    auto pages = inspect->ListConnections(&context, request);
    std::vector<v1::Connection> all;
    v1::ConnectionsPage page;
    while (pages->Read(&page)) all.insert(all.end(), page.connections().begin(), page.connections().end());
    EXPECT_TRUE(pages->Finish().ok());
    return all;
  };
  const auto all = list("");
  ASSERT_EQ(all.size(), 3000U);
  for (std::size_t i = 0; i < all.size(); i++) {
    EXPECT_EQ(all[i].cookie(), i);
    EXPECT_EQ(all[i].reason(), i % 2 == 0 ? 0U : 5U);
    EXPECT_EQ(all[i].reason_text(), i % 2 == 0 ? "" : "a NetworkPolicy does not allow this connection");
  }
  EXPECT_EQ(list("default/a").size(), 1000U);
  EXPECT_EQ(list("default/none").size(), 0U);
}

TEST_F(RpcServerTest, AVerdictKeepsItsExplanation) {
  model::Verdict verdict;
  verdict.egress.allowed = true;
  verdict.egress.pod = "default/a";
  verdict.egress.policy = "default/out";
  verdict.egress.rule = 2;
  verdict.egress.peer = 1;
  verdict.egress.rule_text = "to everyone";
  verdict.egress.peer_text = "nobody";
  verdict.ingress.pod = "default/b";
  verdict.ingress.isolated_by = {"default/deny", "default/web"};
  verdict.ingress.decided_by = "no rule matches";
  verdict.asked = {*model::IpAddress::Parse("10.0.0.1"), *model::IpAddress::Parse("10.0.0.2"), 8080, model::Protocol::kUdp};
  api_.verdict = verdict;
  auto server = Serve();
  auto request = Make<v1::TracePolicyRequest>();
  request.set_source_pod("default/a");
  request.set_destination_pod("default/b");
  request.set_port("http");
  v1::TracePolicyResponse response;
  grpc::ClientContext trace;
  ASSERT_TRUE(v1::Inspect::NewStub(Dial())->TracePolicy(&trace, request, &response).ok());
  EXPECT_EQ(api_.traced, (std::vector<std::string>{"default/a", "default/b", "http"}));
  EXPECT_FALSE(response.allowed());
  EXPECT_TRUE(response.egress().allowed());
  EXPECT_EQ(response.ingress().isolated_by_size(), 2);
  EXPECT_EQ(response.ingress().decided_by(), "no rule matches");
  EXPECT_EQ(response.egress().policy(), "default/out");
  EXPECT_EQ(response.egress().rule(), 2U);
  EXPECT_EQ(response.egress().peer(), 1U);
  EXPECT_EQ(response.egress().rule_text(), "to everyone");
  EXPECT_EQ(response.egress().peer_text(), "nobody");
  EXPECT_EQ(response.source_ip() + " " + response.destination_ip(), "10.0.0.1 10.0.0.2");
  EXPECT_EQ(response.port(), 8080U);
  EXPECT_EQ(response.protocol(), "UDP");
}

TEST_F(RpcServerTest, TheSecondAgentIsTurnedAwayAndTheFirstGoesOn) {
  auto first = Serve();
  RpcServer second(api_, RpcServerOptions{.socket_path = path_, .spool_dir = ""});
  auto started = second.Start();
  ASSERT_FALSE(started.Ok());
  EXPECT_EQ(started.Error().kind, model::ApiErrorKind::kConflict);
  v1::CniStatusResponse status;
  grpc::ClientContext ask;
  EXPECT_TRUE(v1::Cni::NewStub(Dial())->Status(&ask, Make<v1::CniStatusRequest>(), &status).ok());
  first->Stop(milliseconds(100));
  EXPECT_TRUE(RpcServer(api_, RpcServerOptions{.socket_path = path_, .spool_dir = ""}).Start().Ok());
}

UniqueFd BindSocket(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  EXPECT_EQ(::bind(fd.Get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

TEST_F(RpcServerTest, AStaleSocketIsReplacedALiveOneIsNot) {
  UniqueFd other = BindSocket(path_);
  ASSERT_EQ(::listen(other.Get(), 1), 0);
  auto refused = RpcServer(api_, RpcServerOptions{.socket_path = path_, .spool_dir = ""}).Start();
  ASSERT_FALSE(refused.Ok());
  EXPECT_EQ(refused.Error().kind, model::ApiErrorKind::kConflict);
  other.Reset();
  Serve();
}

TEST_F(RpcServerTest, AFileThatIsNoSocketIsLeftAlone) {
  std::ofstream(path_) << "precious";
  auto refused = RpcServer(api_, RpcServerOptions{.socket_path = path_, .spool_dir = ""}).Start();
  ASSERT_FALSE(refused.Ok());
  EXPECT_EQ(refused.Error().kind, model::ApiErrorKind::kInvalid);
  EXPECT_EQ(std::filesystem::file_size(path_), 8U);
}

TEST_F(RpcServerTest, BadPathsAreErrorsInWords) {
  EXPECT_EQ(RpcServer(api_, RpcServerOptions()).Start().Error().kind, model::ApiErrorKind::kInvalid);
  EXPECT_EQ(RpcServer(api_, RpcServerOptions{.socket_path = dir_ + "/" + std::string(100, 'x'), .spool_dir = ""}).Start().Error().kind,
            model::ApiErrorKind::kInvalid);
  auto missing = RpcServer(api_, RpcServerOptions{.socket_path = dir_ + "/no/such.sock", .spool_dir = ""}).Start();
  EXPECT_EQ(missing.Error().kind, model::ApiErrorKind::kUnavailable);
  EXPECT_NE(missing.Error().message.find("No such file or directory"), std::string::npos);
}

// The request is in its handler when Stop is called, so it ends as usual.
TEST_F(RpcServerTest, StopWaitsForARequestInFlight) {
  std::promise<void> entered, leave;
  api_.on_add = [&, leave_future = std::make_shared<std::future<void>>(leave.get_future())] {
    entered.set_value();
    leave_future->wait();
  };
  auto server = Serve();
  auto channel = Dial();
  auto slow = std::async(std::launch::async, [&] {
    v1::AddPodResponse added;
    grpc::ClientContext add;
    return v1::Cni::NewStub(channel)->AddPod(&add, Web(), &added).ok();
  });
  entered.get_future().wait();
  auto stopped = std::async(std::launch::async, [&] { server->Stop(std::chrono::seconds(60)); });
  leave.set_value();
  EXPECT_TRUE(slow.get());
  stopped.wait();
  EXPECT_EQ(api_.Calls().size(), 1U);
}

}  // namespace
}  // namespace vsocket::rpc
