// What policies cost: policy_bench [--pods N] [--policies N] [--wide] [--rules N]
//
// Prints one JSON object: times in milliseconds, sizes in MiB of resident memory. `--wide`: every policy lets everybody in, the worst there
// is for allow lists. `--rules`: one policy with so many rules instead, half of them of overlapping CIDRs.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "node-agent/policy/evaluator.h"
#include "node-agent/policy/testing/builders.h"

namespace vsocket::policy {
namespace {

using namespace testing;  // NOLINT: the builders are this file's language

constexpr unsigned kPodsOfDeployment = 100;
constexpr unsigned kDeploymentsOfNamespace = 5;
constexpr unsigned kLocalPods = 100;
constexpr unsigned kChanges = 100;

struct Options {
  unsigned pods = 10'000;
  unsigned policies = 1'000;
  unsigned rules = 0;
  bool wide = false;
};

double ResidentMiB() {
  std::ifstream file("/proc/self/statm");
  double total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

double MillisecondsOf(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

model::IpAddress AddressOf(unsigned pod) {
  return model::IpAddress::V4(
      {10, static_cast<std::uint8_t>(1 + (pod >> 16)), static_cast<std::uint8_t>(pod >> 8), static_cast<std::uint8_t>(pod)});
}

std::string NamespaceOf(unsigned deployment) {
  return "namespace-" + std::to_string(deployment / kDeploymentsOfNamespace);
}

model::Pod PodOf(unsigned number) {
  const unsigned deployment = number / kPodsOfDeployment;
  model::Pod pod;
  pod.ns = NamespaceOf(deployment);
  pod.name = "deployment-" + std::to_string(deployment) + "-7c9f8b6d5-" + std::to_string(number);
  pod.uid = "6f1c2f0e-0000-4000-8000-" + std::to_string(100'000'000'000 + number);
  pod.labels = {{"app", "deployment-" + std::to_string(deployment)},
                {"tier", deployment % 2 == 0 ? "front" : "back"},
                {"pod-template-hash", "7c9f8b6d5"}};
  pod.annotations = {{"vsocket.io/inject", "true"}};
  pod.ips = {AddressOf(number)};
  pod.ports = {{"http", 8080, model::Protocol::kTcp}, {"metrics", 9090, model::Protocol::kTcp}};
  pod.node = "node-" + std::to_string(number % 100);
  return pod;
}

model::NetworkPolicy PolicyOf(unsigned number, unsigned deployments, bool wide) {
  const unsigned subject = number % deployments;
  const auto app = [&](unsigned deployment) { return model::Labels{{"app", "deployment-" + std::to_string(deployment % deployments)}}; };
  std::vector<model::PolicyPeer> peers = {
      PodsIn(app(subject + number / deployments + 1), {}), PodsIn(app(subject + 7 * number), {}),
      Block("10.200." + std::to_string(number % 256) + ".0/24", {"10.200." + std::to_string(number % 256) + ".0/28"})};
  if (wide) peers.push_back(Namespaces());
  auto policy =
      Ingress(NamespaceOf(subject), "policy-" + std::to_string(number), Select(app(subject)), {{peers, {Named("http"), Port(9090)}}});
  policy.isolates_egress = number % 3 == 0;
  policy.egress = {{{PodsIn({{"tier", "back"}}, {{"kubernetes.io/metadata.name", NamespaceOf(subject)}})}, {Named("http")}},
                   {{Block("0.0.0.0/0")}, {Port(53, model::Protocol::kUdp)}}};
  return policy;
}

model::LocalPod Wired(const model::Pod& pod) {
  model::LocalPod local;
  local.uid = pod.uid;
  local.ns = pod.ns;
  local.name = pod.name;
  local.ips = pod.ips;
  return local;
}

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {
    const unsigned deployments = std::max(1U, options.pods / kPodsOfDeployment);
    for (unsigned i = 0; i * kDeploymentsOfNamespace < deployments; ++i) {
      state_.namespaces.push_back(model::Namespace{NamespaceOf(i * kDeploymentsOfNamespace), {{"number", std::to_string(i)}}, {}});
    }
    for (unsigned i = 0; i < options.pods; ++i) state_.pods.push_back(PodOf(i));
    for (unsigned i = 0; i < options.policies; ++i) state_.policies.push_back(PolicyOf(i, deployments, options.wide));
    // One of each of as many Deployments as there are.
    for (unsigned i = 0; i < kLocalPods; ++i)
      wired_.push_back(Wired(*state_.pods[(i * kPodsOfDeployment + i / deployments) % options.pods]));
  }

  void Run() {
    const double before = ResidentMiB();
    const double compiled = MillisecondsOf([&] { Apply(); });
    const EvaluatorSize size = evaluator_.Size();
    std::cout << "{\"pods\": " << size.pods << ", \"policies\": " << size.policies << ", \"identities\": " << size.identities
              << ", \"groups\": " << size.groups << ", \"local_pods\": " << wired_.size() << ", \"compile_ms\": " << compiled
              << ", \"state_mib\": " << before << ", \"resident_mib\": " << ResidentMiB();
    std::size_t entries = 0;
    for (const auto& pod : wired_) {
      const auto list = evaluator_.AllowListOf(pod);
      entries += (*list)->ingress.entries.size() + (*list)->egress.entries.size();
    }
    std::cout << ", \"allow_entries\": " << entries;
    const unsigned spread = options_.pods / kChanges;
    Report("relabel", [&](unsigned i) { state_.pods[i * spread + 1].Edit().labels["version"] = "2"; });
    Report("relabel_back", [&](unsigned i) { state_.pods[i * spread + 1].Edit().labels.erase("version"); });
    Report("move", [&](unsigned i) { state_.pods[i * spread + 1].Edit().ips = {AddressOf(options_.pods + i)}; });
    Report("remove", [&](unsigned i) { state_.pods.erase(state_.pods.begin() + i * (spread - 1) + 1); });
    Report("add", [&](unsigned i) { state_.pods.insert(state_.pods.begin() + i * spread, PodOf(options_.pods + kChanges + i)); });
    Report("policy", [&](unsigned i) {
      state_.policies[i % state_.policies.size()].Edit().ingress[0].ports = {Port(static_cast<std::uint16_t>(i + 1))};
    });
    Verdicts();
    std::cout << "}\n";
  }

 private:
  Delta Apply() {
    ++state_.revision;
    return evaluator_.Apply(std::make_shared<const model::ClusterState>(state_), wired_, {Ip("10.0.0.1")});
  }

  // One change at a time, from a source that has noticed it to verdicts and allow lists.
  void Report(const char* name, const std::function<void(unsigned)>& change) {
    std::vector<double> times;
    std::size_t lists = 0;
    for (unsigned i = 0; i < kChanges; ++i) {
      change(i);
      times.push_back(MillisecondsOf([&] { lists += Apply().lists.size(); }));
    }
    std::sort(times.begin(), times.end());
    std::cout << ", \"" << name << "\": {\"median_ms\": " << times[times.size() / 2] << ", \"worst_ms\": " << times.back()
              << ", \"lists\": " << static_cast<double>(lists) / kChanges << "}";
  }

  void Verdicts() {
    constexpr unsigned kVerdicts = 100'000;
    unsigned allowed = 0;
    const double time = MillisecondsOf([&] {
      for (unsigned i = 0; i < kVerdicts; ++i) {
        const auto& source = state_.pods[i * 7919ULL % state_.pods.size()];
        const auto& destination = state_.pods[i * 104'729ULL % state_.pods.size()];
        if (evaluator_.Evaluate({source->ips[0], destination->ips[0], 8080, model::Protocol::kTcp}).allowed) ++allowed;
      }
    });
    std::cout << ", \"verdict_us\": " << time * 1000 / kVerdicts << ", \"allowed\": " << allowed;
  }

  const Options options_;
  model::ClusterState state_;
  std::vector<model::LocalPod> wired_;
  Evaluator evaluator_;
};

// One policy of many rules: half of them CIDRs that overlap, half of them pods.
void ManyRules(unsigned rules) {
  model::ClusterState state;
  for (unsigned i = 0; i < 1'000; ++i) state.pods.push_back(PodOf(i));
  std::vector<model::PolicyRule> list;
  for (unsigned i = 0; i < rules; ++i) {
    const auto port = static_cast<std::uint16_t>(1 + i % 60'000);
    if (i % 2 == 0) {
      const std::string base = "10." + std::to_string(i / 2 % 256) + "." + std::to_string(i / 512 % 256) + ".0/";
      list.push_back({{Block(base + std::to_string(8 + i / 2 % 17))}, {Ports(port, static_cast<std::uint16_t>(port + 100))}});
    } else {
      list.push_back({{PodsIn({{"app", "deployment-" + std::to_string(i % 100)}}, {{"number", std::to_string(i)}})}, {Port(port)}});
    }
  }
  state.policies = {Ingress(NamespaceOf(0), "long", Select(), list)};
  const std::vector<model::LocalPod> wired = {Wired(*state.pods[0])};
  Evaluator evaluator;
  const double compiled =
      MillisecondsOf([&] { static_cast<void>(evaluator.Apply(std::make_shared<const model::ClusterState>(state), wired, {})); });
  constexpr unsigned kVerdicts = 100'000;
  unsigned allowed = 0;
  const double time = MillisecondsOf([&] {
    for (unsigned i = 0; i < kVerdicts; ++i) {
      const auto port = static_cast<std::uint16_t>(i % 65'535);
      if (evaluator.Evaluate({AddressOf(i * 7919), state.pods[0]->ips[0], port, model::Protocol::kTcp}).allowed) ++allowed;
    }
  });
  state.pods[500].Edit().labels["version"] = "2";
  const double change =
      MillisecondsOf([&] { static_cast<void>(evaluator.Apply(std::make_shared<const model::ClusterState>(state), wired, {})); });
  std::cout << "{\"rules\": " << rules << ", \"compile_ms\": " << compiled << ", \"verdict_us\": " << time * 1000 / kVerdicts
            << ", \"allowed\": " << allowed << ", \"relabel_ms\": " << change << ", \"resident_mib\": " << ResidentMiB() << "}\n";
}

int Main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto value = [&] { return i + 1 < argc ? static_cast<unsigned>(std::atoi(argv[++i])) : 0U; };
    if (name == "--wide") {
      options.wide = true;
    } else if (name == "--pods") {
      options.pods = value();
    } else if (name == "--policies") {
      options.policies = value();
    } else if (name == "--rules") {
      options.rules = value();
    } else {
      std::cerr << "usage: policy_bench [--pods N] [--policies N] [--wide] [--rules N]\n";
      return 2;
    }
  }
  if (options.rules != 0) {
    ManyRules(options.rules);
    return 0;
  }
  if (options.pods < 1'000 || options.policies == 0) {
    std::cerr << "policy_bench: at least 1000 pods and a policy\n";
    return 2;
  }
  Bench(options).Run();
  return 0;
}

}  // namespace
}  // namespace vsocket::policy

int main(int argc, char** argv) {
  return vsocket::policy::Main(argc, argv);
}
