#include "node-agent/kube/api_access.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace vsocket::kube {
namespace {

namespace fs = std::filesystem;

TEST(ApiAccess, OnlyHttpsAndNothingButAServer) {
  const auto why = [](const std::string& server) { return WhyUnusable({server, "", "", "", ""}); };
  EXPECT_EQ(why("https://10.0.0.1:6443"), "");
  EXPECT_EQ(why("https://[fd00::1]:6443"), "");
  EXPECT_EQ(why("https://kubernetes.default.svc"), "");
  for (const char* bad :
       {"", "http://10.0.0.1", "10.0.0.1:6443", "https://", "https://a/b", "https://a?b", "https://user@a", "https://a\r\nb"}) {
    EXPECT_NE(why(bad), "") << bad;
  }
  EXPECT_NE(WhyUnusable({"https://a", "", "", "cert", ""}), "");
}

TEST(ApiAccess, InAClusterItIsTheServiceAccount) {
  ::setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
  ::setenv("KUBERNETES_SERVICE_PORT", "443", 1);
  EXPECT_EQ(InClusterAccess().server, "https://[fd00::1]:443");
  ::setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1", 1);
  EXPECT_EQ(InClusterAccess().server, "https://10.96.0.1:443");
  EXPECT_EQ(InClusterAccess().token_file, "/var/run/secrets/kubernetes.io/serviceaccount/token");
  ::unsetenv("KUBERNETES_SERVICE_HOST");
  EXPECT_EQ(InClusterAccess().server, "");
}

class CredentialsTest : public ::testing::Test {
 protected:
  CredentialsTest() {
    char name[] = "/tmp/vsocket-credentials-XXXXXX";
    dir_ = ::mkdtemp(name);
  }
  ~CredentialsTest() override { fs::remove_all(dir_); }
  std::string Write(const std::string& name, const std::string& text) {
    std::ofstream(dir_ / name) << text;
    return (dir_ / name).string();
  }
  fs::path dir_;
};

TEST_F(CredentialsTest, AreReadAnewEachTime) {
  const ApiAccess access{"https://a", Write("token", "one\n"), Write("ca", "CA"), "", ""};
  EXPECT_EQ(ReadCredentials(access).Value().token, "one");
  Write("token", "two");
  EXPECT_EQ(ReadCredentials(access).Value().token, "two");
  EXPECT_EQ(ReadCredentials(access).Value().ca, "CA");
}

TEST_F(CredentialsTest, WhatMakesNoSenseIsAnErrorWithTheFilesName) {
  const std::string ca = Write("ca", "CA");
  for (const char* token : {"", "\n", "a b", "a\r\nX-Header: b", "\x01"}) {
    const auto read = ReadCredentials({"https://a", Write("token", token), ca, "", ""});
    ASSERT_FALSE(read.Ok()) << token;
    EXPECT_NE(read.Error().find((dir_ / "token").string()), std::string::npos) << read.Error();
  }
  EXPECT_FALSE(ReadCredentials({"https://a", (dir_ / "absent").string(), ca, "", ""}).Ok());
  EXPECT_FALSE(ReadCredentials({"https://a", "", dir_.string(), "", ""}).Ok()) << "a directory";
}

}  // namespace
}  // namespace vsocket::kube
