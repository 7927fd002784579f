// What an agent makes of the spool at its start, and that it reads it before it answers anybody.
#include "node-agent/rpc/spool.h"

#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <vsocket/v1/agent.grpc.pb.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <set>
#include <string>

#include "node-agent/rpc/fake_node_api.h"
#include "node-agent/rpc/rpc_server.h"
#include "proto/version.h"

namespace vsocket::rpc {
namespace {

class SpoolTest : public testing::Test {
 protected:
  SpoolTest() {
    std::string dir = testing::TempDir() + "/spoolXXXXXX";
    dir_ = ::mkdtemp(dir.data());
    std::ifstream("/proc/sys/kernel/random/boot_id") >> boot_id_;
  }
  ~SpoolTest() override { std::filesystem::remove_all(dir_); }

  v1::SpoolRecord Add(const std::string& container, std::uint64_t time) {
    v1::SpoolRecord record = Empty(time);
    v1::LocalPod& pod = *record.mutable_add();
    pod.set_uid("uid-" + container);
    pod.set_namespace_("default");
    pod.set_name("web");
    pod.set_container_id(container);
    pod.set_ifname("eth0");
    pod.set_netns_path("/proc/self/ns/net");
    struct stat netns {};
    EXPECT_EQ(::stat("/proc/self/ns/net", &netns), 0);
    pod.set_netns_inode(netns.st_ino);
    pod.add_ips("10.1.0.2");
    return record;
  }
  v1::SpoolRecord Remove(const std::string& container, std::uint64_t time) {
    v1::SpoolRecord record = Empty(time);
    record.mutable_remove()->set_container_id(container);
    record.mutable_remove()->set_ifname("eth0");
    return record;
  }
  void Put(const std::string& name, const v1::SpoolRecord& record) {
    std::string json;
    ASSERT_TRUE(google::protobuf::util::MessageToJsonString(record, &json).ok());
    PutText(name, json);
  }
  void PutText(const std::string& name, const std::string& text) { std::ofstream(dir_ + "/" + name, std::ios::binary) << text; }

  std::set<std::string> Files() {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir_)) names.insert(entry.path().filename());
    return names;
  }

  std::string dir_, boot_id_;
  FakeNodeApi api_;

 private:
  v1::SpoolRecord Empty(std::uint64_t time) {
    v1::SpoolRecord record;
    record.set_protocol_version(kProtocolVersion);
    record.set_boot_id(boot_id_);
    record.set_written_unix_nanos(time);
    return record;
  }
};

TEST_F(SpoolTest, RecordsAreAppliedOldestFirstAndCleared) {
  Put("a@eth0.json", Add("a", 30));
  Put("b@eth0.json", Remove("b", 10));
  Put("c@eth0.json", Add("c", 20));
  const SpoolReport report = ApplySpool(dir_, api_);
  EXPECT_EQ(report.added, 2U);
  EXPECT_EQ(report.removed, 1U);
  EXPECT_TRUE(report.problems.empty());
  EXPECT_EQ(api_.Calls(), (std::vector<std::string>{"remove b", "add c", "add a"}));
  EXPECT_EQ(api_.Pods()[0].pod.ips.size(), 1U);
  EXPECT_TRUE(Files().empty());
}

TEST_F(SpoolTest, AMissingOrEmptyDirectoryIsNoProblem) {
  EXPECT_TRUE(ApplySpool(dir_ + "/none", api_).problems.empty());
  EXPECT_TRUE(ApplySpool(dir_, api_).problems.empty());
}

TEST_F(SpoolTest, ADirectoryThatIsNoneIsReported) {
  PutText("file", "");
  EXPECT_EQ(ApplySpool(dir_ + "/file", api_).problems.size(), 1U);
}

TEST_F(SpoolTest, WhatDidNotOutliveABootOrItsNamespaceIsDropped) {
  auto old = Add("a", 1);
  old.set_boot_id("another boot");
  Put("a@eth0.json", old);
  auto gone = Add("b", 2);
  gone.mutable_add()->set_netns_path(dir_ + "/no-netns");
  Put("b@eth0.json", gone);
  auto reused = Add("c", 3);
  reused.mutable_add()->set_netns_inode(1);
  Put("c@eth0.json", reused);
  const SpoolReport report = ApplySpool(dir_, api_);
  EXPECT_EQ(report.stale, 3U);
  EXPECT_TRUE(api_.Calls().empty());
  EXPECT_TRUE(Files().empty());
}

TEST_F(SpoolTest, WhatCannotBeReadIsKeptAsideAndNamed) {
  PutText("a@eth0.json", "{");
  PutText("b@eth0.json", std::string(100'000, ' '));
  auto other = Add("c", 1);
  other.set_protocol_version(99);
  Put("c@eth0.json", other);
  auto empty = Add("d", 1);
  empty.clear_operation();
  Put("d@eth0.json", empty);
  std::filesystem::create_directory(dir_ + "/e@eth0.json");
  PutText(".tmp-1", "a plugin is writing this");
  const SpoolReport report = ApplySpool(dir_, api_);
  EXPECT_EQ(report.problems.size(), 5U);
  EXPECT_TRUE(api_.Calls().empty());
  EXPECT_EQ(Files(), (std::set<std::string>{".tmp-1", "a@eth0.json.rejected", "b@eth0.json.rejected", "c@eth0.json.rejected",
                                            "d@eth0.json.rejected", "e@eth0.json.rejected"}));
  EXPECT_TRUE(ApplySpool(dir_, api_).problems.empty());
}

TEST_F(SpoolTest, RefusedForNowIsKeptUnderItsNameRefusedForGoodIsDropped) {
  Put("a@eth0.json", Add("a", 1));
  api_.FailWith(model::ApiErrorKind::kUnavailable, "no memory");
  EXPECT_EQ(ApplySpool(dir_, api_).problems.size(), 1U);
  EXPECT_EQ(Files(), (std::set<std::string>{"a@eth0.json"}));
  api_.FailWith(model::ApiErrorKind::kInvalid, "no");
  EXPECT_EQ(ApplySpool(dir_, api_).problems.size(), 1U);
  EXPECT_TRUE(Files().empty());
}

TEST_F(SpoolTest, ANewerRecordOfTheSameAttachmentSurvivesTheOldOne) {
  Put("a@eth0.json", Add("a", 1));
  api_.on_add = [&] { Put("a@eth0.json", Remove("a", 2)); };  // the pod goes while the agent applies its arrival
  ApplySpool(dir_, api_);
  EXPECT_EQ(Files(), (std::set<std::string>{"a@eth0.json"}));
  ApplySpool(dir_, api_);
  EXPECT_EQ(api_.Calls(), (std::vector<std::string>{"add a", "remove a"}));
}

TEST_F(SpoolTest, WhatAnAgentThatDiedHadClaimedIsAppliedByTheNext) {
  Put("a@eth0.json.applying", Add("a", 1));
  EXPECT_EQ(ApplySpool(dir_, api_).added, 1U);
  EXPECT_TRUE(Files().empty());
}

// A removal that arrives by gRPC while the spooled arrival of the same pod is being applied must come second.
TEST_F(SpoolTest, RequestsWaitUntilTheSpoolIsApplied) {
  Put("a@eth0.json", Add("a", 1));
  const std::string path = dir_ + "/s";
  std::future<bool> removed;
  api_.on_add = [&] {
    removed = std::async(std::launch::async, [&] {
      v1::RemovePodRequest request;
      request.set_protocol_version(kProtocolVersion);
      request.set_container_id("a");
      request.set_ifname("eth0");
      v1::RemovePodResponse response;
      grpc::ClientContext context;
      return v1::Cni::NewStub(grpc::CreateChannel("unix:" + path, grpc::InsecureChannelCredentials()))
          ->RemovePod(&context, request, &response)
          .ok();
    });
    // Long enough for the request to be served if nothing held it back; the order below is asserted, not the time.
    EXPECT_EQ(removed.wait_for(std::chrono::milliseconds(200)), std::future_status::timeout);
  };
  RpcServer server(api_, RpcServerOptions{.socket_path = path, .spool_dir = dir_});
  auto started = server.Start();
  ASSERT_TRUE(started.Ok());
  EXPECT_EQ(started->added, 1U);
  EXPECT_TRUE(removed.get());
  EXPECT_EQ(api_.Calls(), (std::vector<std::string>{"add a", "remove a"}));
}

}  // namespace
}  // namespace vsocket::rpc
