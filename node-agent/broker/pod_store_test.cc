#include "node-agent/broker/pod_store.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace vsocket::broker {
namespace {

class PodStoreTest : public ::testing::Test {
 protected:
  PodStoreTest() {
    char pattern[] = "/tmp/vsocket-store-XXXXXX";
    dir_ = ::mkdtemp(pattern);
  }
  ~PodStoreTest() override { std::filesystem::remove_all(dir_); }
  void Write(const std::string& name, const std::string& text) { std::ofstream(dir_ + "/" + name) << text; }
  std::string dir_;
};

model::LocalPod Example() {
  model::LocalPod pod;
  pod.uid = "0a-1.b_2";
  pod.ns = "default";
  pod.name = "web \"0\"";
  pod.container_id = "c0";
  pod.ifname = "eth0";
  pod.netns_path = "/var/run/netns/x";
  pod.netns_cookie = ~0ULL;
  pod.netns_inode = 4026531840;
  pod.ips = {*model::IpAddress::Parse("10.1.2.3"), *model::IpAddress::Parse("fd00::1")};
  return pod;
}

TEST_F(PodStoreTest, GivesBackWhatItWasGiven) {
  PodStore store(dir_ + "/deeper/state");
  ASSERT_TRUE(store.Open());
  ASSERT_TRUE(store.Put(Example()));
  ASSERT_TRUE(store.Put(Example()));
  const auto loaded = store.Load();
  EXPECT_TRUE(loaded.problems.empty());
  ASSERT_EQ(loaded.pods.size(), 1U);
  EXPECT_EQ(loaded.pods[0], Example());
  store.Remove(Example().uid);
  EXPECT_TRUE(store.Load().pods.empty());
}

TEST_F(PodStoreTest, BadFilesAreNamedAndLeftAlone) {
  PodStore store(dir_);
  ASSERT_TRUE(store.Open());
  ASSERT_TRUE(store.Put(Example()));
  std::ifstream good(dir_ + "/0a-1.b_2.json");
  const std::string text{std::istreambuf_iterator<char>(good), std::istreambuf_iterator<char>()};
  Write("cut.json", text.substr(0, text.size() / 2));
  Write("empty.json", "");
  Write("list.json", "[]");
  Write("future.json", R"({"format": 2})");
  Write("other-name.json", text);
  Write(".0a.tmp", "left by a crash");
  const auto loaded = store.Load();
  EXPECT_EQ(loaded.pods.size(), 1U);
  EXPECT_EQ(loaded.problems.size(), 5U);
  EXPECT_TRUE(std::filesystem::exists(dir_ + "/cut.json"));
}

TEST_F(PodStoreTest, AFullDiskIsAnErrorAndTheOldRecordStays) {
  PodStore store(dir_);
  ASSERT_TRUE(store.Open());
  ASSERT_TRUE(store.Put(Example()));
  // A file that may not grow stands for a disk that is full: the same write fails, with EFBIG (setrlimit(2)).
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit nothing{0, before.rlim_max};
  ASSERT_NE(::signal(SIGXFSZ, SIG_IGN), SIG_ERR);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &nothing), 0);
  model::LocalPod changed = Example();
  changed.ifname = "eth7";
  const auto stored = store.Put(changed);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_FALSE(stored);
  EXPECT_NE(stored.Error().find("cannot write " + dir_), std::string::npos) << stored.Error();
  const auto loaded = store.Load();
  ASSERT_EQ(loaded.pods.size(), 1U);
  EXPECT_EQ(loaded.pods[0], Example());
  EXPECT_TRUE(loaded.problems.empty());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_), {}), 1) << "nothing half written is left";
}

TEST_F(PodStoreTest, SaysWhyItCannotOpen) {
  Write("file", "");
  PodStore store(dir_ + "/file/state");
  const auto opened = store.Open();
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.Error().find("/file/state"), std::string::npos) << opened.Error();
}

TEST(IsSafeUid, NamesADirectoryAndNothingElse) {
  EXPECT_TRUE(IsSafeUid("6f1c2f0e-8f52-4f6b-9d43-000000000000"));
  EXPECT_TRUE(IsSafeUid("a.b_c"));
  for (const char* bad : {"", ".", "..", "a/b", "../x", "a b", "ä", "a\n"}) EXPECT_FALSE(IsSafeUid(bad)) << bad;
  EXPECT_FALSE(IsSafeUid(std::string(65, 'a')));
}

}  // namespace
}  // namespace vsocket::broker
