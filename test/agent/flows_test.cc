// Flow events and policies over real gRPC, with a real log of events behind them.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <vsocket/v1/agent.grpc.pb.h>

#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "node-agent/rpc/fake_node_api.h"
#include "node-agent/rpc/rpc_server.h"
#include "node-agent/rpc/services.h"
#include "node-agent/telemetry/flow_log.h"
#include "proto/version.h"

namespace vsocket::rpc {
namespace {

using std::chrono::milliseconds;

class FlowsTest : public testing::Test {
 protected:
  FlowsTest() : log_(kCapacity) {
    std::string dir = testing::TempDir() + "/flowsXXXXXX";
    dir_ = ::mkdtemp(dir.data());
    server_ = std::make_unique<RpcServer>(api_, RpcServerOptions{.socket_path = dir_ + "/s", .spool_dir = "", .flows = &log_});
    auto started = server_->Start();
    EXPECT_TRUE(started.Ok());
    grpc::ChannelArguments own;
    own.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = v1::Inspect::NewStub(grpc::CreateCustomChannel("unix:" + dir_ + "/s", grpc::InsecureChannelCredentials(), own));
  }
  ~FlowsTest() override {
    server_.reset();
    std::filesystem::remove_all(dir_);
  }

  void Append(model::FlowAction action, const std::string& source, const std::string& reason = "") {
    model::FlowEvent event;
    event.action = action;
    event.source_pod = source;
    event.destination_pod = "shop/redis";
    event.flow.destination_port = 6379;
    event.egress.allowed = true;
    event.ingress.isolated_by = {"shop/deny"};
    event.ingress.allowed = action == model::FlowAction::kAllowed;
    event.reason = reason;
    log_.Append(std::move(event));
  }
  static v1::WatchFlowsRequest Request() {
    v1::WatchFlowsRequest request;
    request.set_protocol_version(kProtocolVersion);
    return request;
  }
  std::vector<std::string> Reasons(const v1::WatchFlowsRequest& request) {
    grpc::ClientContext context;
    std::vector<std::string> reasons;
    const auto pages = stub_->WatchFlows(&context, request);
    for (v1::FlowsPage page; pages->Read(&page);) {
      for (const auto& event : page.events()) reasons.push_back(event.reason());
    }
    EXPECT_TRUE(pages->Finish().ok());
    return reasons;
  }

  static constexpr std::size_t kCapacity = 2000;
  using Words = std::vector<std::string>;
  std::string dir_;
  FakeNodeApi api_;
  telemetry::FlowLog log_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::Inspect::Stub> stub_;
};

TEST_F(FlowsTest, WhatIsRememberedAndNoMore) {
  EXPECT_TRUE(Reasons(Request()).empty());
  Append(model::FlowAction::kAllowed, "shop/web", "a");
  Append(model::FlowAction::kDenied, "shop/web", "b");
  Append(model::FlowAction::kCut, "shop/other", "c");
  EXPECT_EQ(Reasons(Request()), (Words{"a", "b", "c"}));
  auto denied = Request();
  denied.set_denied(true);
  EXPECT_EQ(Reasons(denied), (Words{"b", "c"}));
  auto of_pod = Request();
  of_pod.set_pod("shop/web");
  EXPECT_EQ(Reasons(of_pod), (Words{"a", "b"}));
  of_pod.set_pod("shop/redis");
  EXPECT_EQ(Reasons(of_pod).size(), 3U);
  auto later = Request();
  later.set_after_unix_nanos(log_.ReadFlows(0, 1, milliseconds(0)).events[0].unix_nanos);
  EXPECT_EQ(Reasons(later), (Words{"b", "c"}));
}

TEST_F(FlowsTest, AnEventNamesDirectionAndPolicy) {
  Append(model::FlowAction::kDenied, "shop/web");
  grpc::ClientContext context;
  const auto pages = stub_->WatchFlows(&context, Request());
  v1::FlowsPage page;
  ASSERT_TRUE(pages->Read(&page));
  ASSERT_EQ(page.events_size(), 1);
  const v1::FlowEvent& event = page.events(0);
  EXPECT_EQ(event.direction(), "ingress");
  EXPECT_EQ(event.policy(), "shop/deny");
  EXPECT_EQ(event.action(), v1::FLOW_ACTION_DENIED);
  EXPECT_EQ(event.path(), v1::FLOW_PATH_KERNEL);
  EXPECT_EQ(event.protocol(), "TCP");
  EXPECT_EQ(event.sequence(), 1U);
}

TEST_F(FlowsTest, AFollowerSeesWhatComesAndTheEndOfTheAgent) {
  auto request = Request();
  request.set_follow(true);
  grpc::ClientContext context;
  const auto pages = stub_->WatchFlows(&context, request);
  Append(model::FlowAction::kDenied, "shop/web", "first");
  v1::FlowsPage page;
  ASSERT_TRUE(pages->Read(&page));
  EXPECT_EQ(page.events(0).reason(), "first");
  Append(model::FlowAction::kDenied, "shop/web", "second");
  ASSERT_TRUE(pages->Read(&page));
  EXPECT_EQ(page.events(0).reason(), "second");
  log_.Close();
  EXPECT_FALSE(pages->Read(&page));
  EXPECT_TRUE(pages->Finish().ok());
}

// One that does not read holds up neither the writers nor anybody else, and learns how much it has missed.
TEST_F(FlowsTest, ASlowReaderIsToldWhatItLost) {
  auto request = Request();
  request.set_follow(true);
  grpc::ClientContext context;
  const auto pages = stub_->WatchFlows(&context, request);
  Append(model::FlowAction::kDenied, "shop/web", "first");
  v1::FlowsPage page;
  ASSERT_TRUE(pages->Read(&page));
  const std::string long_reason(2000, 'x');
  constexpr std::uint64_t kEvents = 40000;  // 80 MB: far more than what lies in buffers on the way
  for (std::uint64_t i = 0; i < kEvents; ++i) Append(model::FlowAction::kDenied, "shop/web", long_reason);
  log_.Close();
  std::uint64_t given = 1, lost = 0;
  while (pages->Read(&page)) {
    given += static_cast<std::uint64_t>(page.events_size());
    lost += page.lost();
  }
  EXPECT_TRUE(pages->Finish().ok());
  EXPECT_GT(lost, 0U);
  EXPECT_EQ(given + lost, kEvents + 1);
  EXPECT_EQ(log_.Lost(), lost);
}

TEST_F(FlowsTest, FollowersAreBounded) {
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::FlowsPage>>> readers;
  auto request = Request();
  request.set_follow(true);
  Append(model::FlowAction::kDenied, "shop/web");
  v1::FlowsPage page;
  for (int i = 0; i < InspectService::kMostFollowers; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub_->WatchFlows(contexts.back().get(), request));
    ASSERT_TRUE(readers.back()->Read(&page));  // it is being served
  }
  grpc::ClientContext another;
  const auto refused = stub_->WatchFlows(&another, request);
  EXPECT_FALSE(refused->Read(&page));
  EXPECT_EQ(refused->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  log_.Close();
  for (const auto& reader : readers) EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(FlowsTest, PoliciesComeInWords) {
  model::PolicyInfo policy;
  policy.ns = "shop";
  policy.name = "redis";
  policy.selects = "pods app=redis of namespace shop";
  policy.isolates_ingress = true;
  policy.ingress = {"from everyone, on TCP 6379"};
  policy.local_pods = {"shop/redis-0"};
  policy.local_pod_count = 1;
  policy.problems = {"bad"};
  api_.policies = {policy};
  v1::ListPoliciesRequest request;
  request.set_protocol_version(kProtocolVersion);
  grpc::ClientContext context;
  const auto pages = stub_->ListPolicies(&context, request);
  v1::PoliciesPage page;
  ASSERT_TRUE(pages->Read(&page));
  ASSERT_EQ(page.policies_size(), 1);
  EXPECT_EQ(page.policies(0).selects(), policy.selects);
  EXPECT_EQ(page.policies(0).ingress(0), policy.ingress[0]);
  EXPECT_EQ(page.policies(0).local_pods(0), "shop/redis-0");
  EXPECT_EQ(page.policies(0).problems(0), "bad");
}

}  // namespace
}  // namespace vsocket::rpc
