#include "node-agent/enforce/enforcement_choice.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace vsocket::enforce {
namespace {

namespace fs = std::filesystem;

Surroundings Seen(std::vector<std::string> types, std::set<std::string> processes, std::set<std::string> chains) {
  Surroundings seen;
  seen.conflist = "/etc/cni/net.d/10-x.conflist";
  seen.plugin_types = std::move(types);
  seen.processes = std::move(processes);
  seen.processes.insert("kthreadd");
  seen.processes_seen = true;
  seen.chains = std::move(chains);
  return seen;
}

EnforcementChoice Auto(const Surroundings& seen) {
  return Choose(EnforcementMode::kAuto, seen);
}

TEST(EnforcementMode, Names) {
  for (const auto mode : {EnforcementMode::kAuto, EnforcementMode::kBoth, EnforcementMode::kRingOnly}) {
    EXPECT_EQ(ParseEnforcementMode(NameOf(mode)), mode);
  }
  EXPECT_FALSE(ParseEnforcementMode("on"));
}

TEST(EnforcementChoice, WhatIsAskedForIsDone) {
  const Surroundings calico = Seen({"calico"}, {"calico-node"}, {"cali-FORWARD"});
  EXPECT_TRUE(Choose(EnforcementMode::kBoth, calico).kernel);
  EXPECT_FALSE(Choose(EnforcementMode::kRingOnly, Surroundings{}).kernel);
}

TEST(EnforcementChoice, AnEnforcerAtWorkIsTrusted) {
  const EnforcementChoice calico = Auto(Seen({"calico", "portmap"}, {"calico-node"}, {}));
  EXPECT_FALSE(calico.kernel);
  EXPECT_EQ(calico.why, "Calico enforces policies on this node: calico-node runs, and pods are wired by it");
  EXPECT_FALSE(Auto(Seen({"cilium-cni"}, {"cilium-agent"}, {})).kernel);
  EXPECT_FALSE(Auto(Seen({"antrea", "portmap", "bandwidth"}, {"antrea-agent"}, {})).kernel);
  EXPECT_FALSE(Auto(Seen({"bridge"}, {"kube-router"}, {"KUBE-ROUTER-FORWARD"})).kernel);
  EXPECT_FALSE(Auto(Seen({"flannel"}, {"k3s-agent"}, {"KUBE-ROUTER-FORWARD"})).kernel);
  EXPECT_FALSE(Auto(Seen({"flannel"}, {"calico-node"}, {"cali-FORWARD"})).kernel);  // Canal
  const EnforcementChoice knp = Auto(Seen({"ptp"}, {"netpol"}, {"table kube-network-policies"}));
  EXPECT_FALSE(knp.kernel);
  EXPECT_EQ(knp.why,
            "kube-network-policies enforces policies on this node: netpol runs, and its rules are in place (table "
            "kube-network-policies)");
  EXPECT_FALSE(Auto(Seen({"ptp"}, {"kindnetd"}, {"table kindnet-network-policies"})).kernel);
  EXPECT_FALSE(Auto(Seen({"weave-net"}, {"weave-npc"}, {})).kernel);
}

TEST(EnforcementChoice, HalfOfTheEvidenceIsNotEnough) {
  const EnforcementChoice stopped = Auto(Seen({"calico"}, {}, {"cali-FORWARD"}));
  EXPECT_TRUE(stopped.kernel);
  EXPECT_EQ(stopped.why, "Calico is not sure to enforce policies here: pods are wired by it, but its agent does not run");
  EXPECT_TRUE(Auto(Seen({"bridge"}, {"kube-router"}, {"KUBE-ROUTER-SERVICES"})).kernel);  // a proxy without a firewall
  EXPECT_TRUE(Auto(Seen({"bridge"}, {"calico-node"}, {})).kernel);
  EXPECT_TRUE(Auto(Seen({"flannel"}, {"kindnetd"}, {"cali-FORWARD"})).kernel);  // of two different ones
  Surroundings blind = Seen({"cilium-cni"}, {}, {});
  blind.processes_seen = false;
  EXPECT_NE(Auto(blind).why.find("hostPID"), std::string::npos);
  EXPECT_TRUE(Auto(blind).kernel);
}

TEST(EnforcementChoice, NobodyKnownMeansThatTheAgentDoesIt) {
  const EnforcementChoice bridge = Auto(Seen({"bridge", "portmap"}, {"redis-server"}, {"KUBE-SERVICES"}));
  EXPECT_TRUE(bridge.kernel);
  EXPECT_EQ(bridge.why,
            "pods are wired by the CNI plugin bridge (/etc/cni/net.d/10-x.conflist), and nothing that is known to enforce "
            "policies was seen");
  EXPECT_TRUE(Auto(Surroundings{}).kernel);
  EXPECT_TRUE(Auto(Seen({"calico-ipam-of-mine"}, {"calico-node-backup"}, {"calicoat"})).kernel);
}

TEST(PluginTypes, ConflistSinglePluginAndNonsense) {
  using Types = std::vector<std::string>;
  EXPECT_EQ(PluginTypes(R"({"name": "x", "plugins": [{"type": "bridge"}, {"type": "portmap"}]})"), (Types{"bridge", "portmap"}));
  EXPECT_EQ(PluginTypes(R"({"type": "ptp"})"), Types{"ptp"});
  for (const char* bad : {"", "[]", "{", "{\"plugins\": {}}", "{\"plugins\": [1, {}, {\"type\": 3}]}", "\"calico\""}) {
    EXPECT_TRUE(PluginTypes(bad).empty()) << bad;
  }
}

TEST(ChainNames, OfNftAndOfIptables) {
  EXPECT_EQ(ChainNames("table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n"
                       "\tchain cali-FORWARD {\n\t}\n}\ntable inet kube-network-policies {\n}\n"),
            (std::set<std::string>{"FORWARD", "cali-FORWARD", "table filter", "table kube-network-policies"}));
  EXPECT_EQ(ChainNames("-P INPUT ACCEPT\n-N KUBE-ROUTER-FORWARD\n-A INPUT -j X\n"), std::set<std::string>{"KUBE-ROUTER-FORWARD"});
}

TEST(Survey, ReadsTheFirstConfigurationByNameAndTheProcesses) {
  std::string folder = fs::temp_directory_path() / "vsocket-survey-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const fs::path root = folder;
  fs::create_directories(root / "net.d");
  fs::create_directories(root / "proc/12");
  fs::create_directories(root / "proc/self");
  std::ofstream(root / "net.d/00-readme.txt") << "no";
  std::ofstream(root / "net.d/05-broken.conflist") << "{";
  std::ofstream(root / "net.d/20-later.conflist") << R"({"plugins": [{"type": "later"}]})";
  std::ofstream(root / "net.d/10-first.conflist") << R"({"plugins": [{"type": "bridge"}]})";
  std::ofstream(root / "proc/12/comm") << "calico-node\n";
  std::ofstream(root / "proc/self/comm") << "me\n";
  const Surroundings seen = Survey({root / "net.d", root / "proc", "/nonexistent/nft"});
  EXPECT_EQ(seen.conflist, root / "net.d/10-first.conflist");
  EXPECT_EQ(seen.plugin_types, std::vector<std::string>{"bridge"});
  EXPECT_EQ(seen.processes, std::set<std::string>{"calico-node"});
  EXPECT_FALSE(seen.processes_seen);
  EXPECT_TRUE(Survey({root / "nowhere", root / "nowhere", "/nonexistent/nft"}).plugin_types.empty());
  fs::remove_all(root);
}

}  // namespace
}  // namespace vsocket::enforce
