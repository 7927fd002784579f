// Environment and stdin into an invocation, and every way in which they can be wrong.
#include "cni-plugin/invocation.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace vsocket::cni {
namespace {

const Environment kAdd{"ADD", "c1", "/run/netns/web", "eth0", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=u-1"};

Environment With(const char* command) {
  Environment environment = kAdd;
  environment.command = command;
  return environment;
}

std::string Config(const std::string& more) {
  return R"({"cniVersion":"1.1.0","name":"net","type":"vsocket-cni")" + more + "}";
}
const std::string kPrev = R"(,"prevResult":{"ips":[{"address":"10.1.0.2/24"}]})";

Code CodeOf(const Environment& environment, const std::string& config) {
  auto invocation = ParseInvocation(environment, config);
  EXPECT_FALSE(invocation.Ok()) << config;
  if (invocation.Ok()) return static_cast<Code>(0);
  EXPECT_FALSE(invocation.Error().message.empty());
  return invocation.Error().code;
}

TEST(Invocation, AnAddIsReadWhole) {
  auto call = ParseInvocation(kAdd, Config(R"(,"agentSocket":"/a.sock","spoolDir":"/spool","timeoutMs":70,"required":true)" + kPrev));
  ASSERT_TRUE(call.Ok()) << call.Error().message;
  EXPECT_EQ(call->command, Command::kAdd);
  EXPECT_EQ(call->cni_version, "1.1.0");
  EXPECT_EQ(call->settings.agent_socket, "/a.sock");
  EXPECT_EQ(call->settings.spool_dir, "/spool");
  EXPECT_EQ(call->settings.timeout.count(), 70);
  EXPECT_TRUE(call->settings.required);
  EXPECT_EQ(call->attachment, (Attachment{"c1", "eth0"}));
  EXPECT_EQ(call->netns, "/run/netns/web");
  EXPECT_EQ(call->pod_ns + "/" + call->pod_name + " " + call->pod_uid, "default/web u-1");
  EXPECT_EQ(call->ips, std::vector<std::string>{"10.1.0.2"});
}

TEST(Invocation, DefaultsHold) {
  auto call = ParseInvocation(kAdd, Config(kPrev));
  ASSERT_TRUE(call.Ok());
  EXPECT_EQ(call->settings.agent_socket, "/run/vsocket/agent-rpc.sock");
  EXPECT_EQ(call->settings.spool_dir, "/var/lib/vsocket/cni-spool");
  EXPECT_EQ(call->settings.timeout.count(), 2000);
  EXPECT_FALSE(call->settings.required);
}

TEST(Invocation, PreviousResultKeepsItsBytes) {
  const std::string result = "{ \"z\" : 1.50 ,\n\t\"a\":[1e2, \"}\\\"\\u00e9\"], \"ips\":[], \"big\":123456789012345678901234567890 }";
  for (const std::string& config : {Config(R"(,"prevResult":{"old":1},"prevResult": )" + result + " "),
                                    Config(R"(,"prev\u0052esult":)" + result + R"(,"after":{"prevResult":{"inner":1}})"),
                                    Config(R"(,"x":"\"prevResult\":{","y":[[{"prevResult":7}]],"prevResult":)" + result)}) {
    auto call = ParseInvocation(kAdd, config);
    ASSERT_TRUE(call.Ok()) << call.Error().message << call.Error().details;
    EXPECT_EQ(call->previous_result, result);
  }
}

TEST(Invocation, OnlyAddressesInsideTheContainerAreThePods) {
  auto call = ParseInvocation(kAdd, Config(R"(,"prevResult":{"interfaces":[{"name":"cni0"},{"name":"veth1","sandbox":""},
      {"name":"eth0","sandbox":"/run/netns/web"}],"ips":[{"interface":0,"address":"10.1.0.1/24"},{"interface":1,"address":"10.1.0.9/24"},
      {"interface":2,"address":"10.1.0.2/24"},{"interface":2,"address":"fd00::2/64"},{"address":"10.2.0.2/16"}]})"));
  ASSERT_TRUE(call.Ok()) << call.Error().message;
  EXPECT_EQ(call->ips, (std::vector<std::string>{"10.1.0.2", "fd00::2", "10.2.0.2"}));
}

TEST(Invocation, OutsideKubernetesTheContainerIdIsTheIdentity) {
  Environment environment = kAdd;
  environment.args = "";
  auto call = ParseInvocation(environment, Config(kPrev));
  ASSERT_TRUE(call.Ok());
  EXPECT_EQ(call->pod_uid, "c1");
  EXPECT_EQ(call->pod_ns, kNoNamespace);
  EXPECT_EQ(call->pod_name, "c1");
  environment.args = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web";  // runtimes before the uid was passed on
  call = ParseInvocation(environment, Config(kPrev));
  ASSERT_TRUE(call.Ok());
  EXPECT_EQ(call->pod_uid, "c1");
  EXPECT_EQ(call->pod_name, "web");
}

TEST(Invocation, EnvironmentErrorsAreCode4) {
  EXPECT_EQ(CodeOf(With(""), Config(kPrev)), Code::kInvalidEnvironment);
  EXPECT_EQ(CodeOf(With("add"), Config(kPrev)), Code::kInvalidEnvironment);
  EXPECT_EQ(CodeOf(With("UPDATE"), "not even JSON"), Code::kInvalidEnvironment);
  for (const char* command : {"ADD", "CHECK", "DEL"}) {
    for (auto member : {&Environment::container_id, &Environment::ifname, &Environment::netns}) {
      if (std::string(command) == "DEL" && member == &Environment::netns) continue;
      Environment environment = With(command);
      environment.*member = "";
      EXPECT_EQ(CodeOf(environment, Config(kPrev)), Code::kInvalidEnvironment) << command;
    }
  }
  for (const char* bad : {"../x", "-c", "a b", "a@b", "c\n"}) {
    Environment environment = kAdd;
    environment.container_id = bad;
    EXPECT_EQ(CodeOf(environment, Config(kPrev)), Code::kInvalidEnvironment) << bad;
  }
  for (const char* bad : {".", "..", "a/b", "a:b", "a b", "sixteen-chars-xx"}) {
    Environment environment = kAdd;
    environment.ifname = bad;
    EXPECT_EQ(CodeOf(environment, Config(kPrev)), Code::kInvalidEnvironment) << bad;
  }
  for (const char* bad : {"novalue", "=x", "K8S_POD_NAME=web", "K8S_POD_UID=../x", "K8S_POD_NAMESPACE=a/b;K8S_POD_NAME=c"}) {
    Environment environment = kAdd;
    environment.args = bad;
    EXPECT_EQ(CodeOf(environment, Config(kPrev)), Code::kInvalidEnvironment) << bad;
  }
}

TEST(Invocation, WhatIsNotAJsonObjectIsCode6) {
  for (const char* bad : {"", "{", "[]", "null", "7", "{\"cniVersion\":\"1.1.0\",}", "{} {}", "{\"a\":1e999}", "{\"a\":\"\xff\"}"}) {
    EXPECT_EQ(CodeOf(kAdd, bad), Code::kUndecodable) << bad;
    EXPECT_EQ(CodeOf(With("DEL"), bad), Code::kUndecodable) << bad;
  }
  EXPECT_EQ(CodeOf(kAdd, "\xef\xbb\xbf" + Config(kPrev)), Code::kUndecodable);
  EXPECT_EQ(CodeOf(kAdd, std::string(kLargestConfig + 1, ' ')), Code::kUndecodable);
}

TEST(Invocation, VersionsThatWeDoNotSpeakAreCode1) {
  for (const char* good : {"0.4.0", "1.0.0", "1.1.0"}) {
    EXPECT_TRUE(ParseInvocation(kAdd, std::string(R"({"cniVersion":")") + good + R"(")" + kPrev + "}").Ok()) << good;
  }
  for (const char* bad : {"0.3.1", "1.2.0", "", "1.1"}) {
    EXPECT_EQ(CodeOf(kAdd, std::string(R"({"cniVersion":")") + bad + R"(")" + kPrev + "}"), Code::kIncompatibleVersion) << bad;
  }
  EXPECT_EQ(CodeOf(With("STATUS"), R"({"cniVersion":"1.0.0"})"), Code::kIncompatibleVersion);
  EXPECT_EQ(CodeOf(With("GC"), R"({"cniVersion":"0.4.0","cni.dev/valid-attachments":[]})"), Code::kIncompatibleVersion);
  EXPECT_EQ(CodeOf(kAdd, R"({"cniVersion":1})"), Code::kInvalidConfig);
  EXPECT_EQ(CodeOf(kAdd, "{}"), Code::kInvalidConfig);
}

TEST(Invocation, MembersOfTheWrongKindAreCode7) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  for (const std::string& bad :
       {std::string(R"("agentSocket":7)"), std::string(R"("agentSocket":"relative")"), std::string(R"("agentSocket":"/\u0000")"),
        R"("agentSocket":"/)" + std::string(107, 'x') + R"(")", std::string(R"("spoolDir":"")"), std::string(R"("timeoutMs":0)"),
        std::string(R"("timeoutMs":60001)"), std::string(R"("timeoutMs":-1)"), std::string(R"("timeoutMs":1.5)"),
        std::string(R"("timeoutMs":18446744073709551615)"), std::string(R"("timeoutMs":"1")"), std::string(R"("required":1)"),
        R"("timeoutMs":)" + deep}) {
    EXPECT_EQ(CodeOf(kAdd, Config("," + bad + kPrev)), Code::kInvalidConfig) << bad.substr(0, 80);
  }
}

TEST(Invocation, AddAndCheckNeedAUsablePreviousResult) {
  for (const char* command : {"ADD", "CHECK"}) {
    EXPECT_EQ(CodeOf(With(command), Config("")), Code::kInvalidConfig);
    for (const char* bad : {"null", "[]", R"("x")", R"({"ips":7})", R"({"ips":[7]})", R"({"ips":[{}]})", R"({"ips":[{"address":7}]})",
                            R"({"ips":[{"address":"10.1.0.300/24"}]})", R"({"ips":[{"address":"10.1.0.2\u0000/24"}]})",
                            R"({"ips":[{"address":"10.1.0.2/24","interface":0}]})", R"({"interfaces":7,"ips":[]})",
                            R"({"interfaces":[1],"ips":[{"address":"10.1.0.2/24","interface":-1}]})"}) {
      EXPECT_EQ(CodeOf(With(command), Config(std::string(R"(,"prevResult":)") + bad)), Code::kInvalidConfig) << bad;
    }
  }
  EXPECT_TRUE(ParseInvocation(kAdd, Config(R"(,"prevResult":{})")).Ok());
  EXPECT_TRUE(ParseInvocation(kAdd, Config(R"(,"prevResult":{"ips":null,"interfaces":null})")).Ok());
}

TEST(Invocation, DelNeedsNeitherNamespaceNorResult) {
  Environment environment = With("DEL");
  environment.netns = environment.args = "";
  auto call = ParseInvocation(environment, Config(R"(,"prevResult":{"ips":"nonsense"})"));
  ASSERT_TRUE(call.Ok()) << call.Error().message;
  EXPECT_EQ(call->attachment, (Attachment{"c1", "eth0"}));
}

TEST(Invocation, GcNeedsItsList) {
  const Environment gc{"GC", "", "", "", ""};
  auto call = ParseInvocation(
      gc, Config(R"(,"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"},{"containerID":"b","ifname":"eth1"}])"));
  ASSERT_TRUE(call.Ok()) << call.Error().message;
  EXPECT_EQ(call->keep, (std::vector<Attachment>{{"a", "eth0"}, {"b", "eth1"}}));
  EXPECT_TRUE(ParseInvocation(gc, Config(R"(,"cni.dev/valid-attachments":[])")).Ok());
  for (const char* bad :
       {"", R"(,"cni.dev/valid-attachments":{})", R"(,"cni.dev/valid-attachments":[7])",
        R"(,"cni.dev/valid-attachments":[{"containerID":"a"}])", R"(,"cni.dev/valid-attachments":[{"containerID":1,"ifname":""}])"}) {
    EXPECT_EQ(CodeOf(gc, Config(bad)), Code::kInvalidConfig) << bad;
  }
}

TEST(Invocation, VersionIsAnsweredToAnyone) {
  const Environment environment{"VERSION", "", "", "", ""};
  EXPECT_EQ(ParseInvocation(environment, "").Value().cni_version, "1.1.0");
  EXPECT_EQ(ParseInvocation(environment, R"({"cniVersion":"9.9.9"})").Value().cni_version, "9.9.9");
  EXPECT_EQ(CodeOf(environment, "{"), Code::kUndecodable);
  const auto versions = nlohmann::json::parse(RenderVersions("1.0.0"));
  EXPECT_EQ(versions, nlohmann::json::parse(R"({"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]})"));
}

TEST(Invocation, AnErrorIsOneLineOfValidJson) {
  const std::string text = RenderError("1.1.0", {Code::kTryAgainLater, "line\nbreak \"quoted\"", "\xff"});
  EXPECT_EQ(text.find('\n'), std::string::npos);
  const auto error = nlohmann::json::parse(text);
  EXPECT_EQ(error["code"], 11);
  EXPECT_EQ(error["msg"], "line\nbreak \"quoted\"");
  EXPECT_EQ(error["cniVersion"], "1.1.0");
  EXPECT_TRUE(error.contains("details"));
  EXPECT_FALSE(nlohmann::json::parse(RenderError("1.1.0", {Code::kIo, "x", ""})).contains("details"));
}

}  // namespace
}  // namespace vsocket::cni
