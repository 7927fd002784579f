// What it costs to hold a cluster: lists of N pods in JSON, as an API server writes them, decoded into a Replica; then one pod's change.
// replica_bench N... prints a line of JSON for each N: seconds to read the list, MiB that are resident afterwards and at the most while it
// was listed a second time, and milliseconds from the text of an event to the next snapshot.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "node-agent/kube/json_stream.h"
#include "node-agent/kube/json_tree.h"
#include "node-agent/kube/replica.h"

namespace {

using namespace vsocket::kube;  // NOLINT(google-build-using-namespace): one short file
using Seconds = std::chrono::duration<double>;

// About 4 KiB, half of it what nobody looks at, as with a real one. 100 Deployments.
std::string PodText(int number, int version) {
  const std::string n = std::to_string(number);
  const std::string ip =
      "10." + std::to_string(number >> 16) + "." + std::to_string((number >> 8) & 255) + "." + std::to_string(number & 255);
  std::string managed = R"([{"manager":"kubelet","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsV1":{)";
  for (int i = 0; i < 40; ++i) managed += (i == 0 ? "" : ",") + std::string("\"f:field") + std::to_string(i) + R"(":{".":{},"f:type":{}})";
  managed += "}}]";
  return R"({"metadata":{"name":"web-)" + n + R"(","namespace":"team-)" + std::to_string(number % 10) +
         R"(","uid":"00000000-0000-0000-0000-)" + std::to_string(100'000'000'000 + number) + R"(","resourceVersion":")" +
         std::to_string(version) + R"(","labels":{"app":"app-)" + std::to_string(number % 100) +
         R"(","pod-template-hash":"abcdef","tier":"front"},"managedFields":)" + managed + R"(},"spec":{"nodeName":"node-)" +
         std::to_string(number % 500) + R"(","containers":[{"name":"main","image":"app:1","env":[{"name":"A","value":"b"}],)" +
         R"("ports":[{"containerPort":8080,"name":"http"}]}]},)" +
         R"("status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}],"podIP":")" + ip + R"(","podIPs":[{"ip":")" + ip +
         R"("}]}})";
}

double RssMiB(const char* which) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word != which) continue;
    double kib = 0;
    status >> kib;
    return kib / 1024;
  }
  return 0;
}

void List(Replica& replica, int pods) {
  ListDecoder decoder;
  const auto take = [&](std::string_view text) {
    auto tree = ParseJson(text, OmittedFieldsOf(Kind::kPod));
    if (!tree) std::abort();
    const auto identity = IdentityOf(**tree);
    return identity && replica.AddToList(Kind::kPod, identity.Value(), **tree);
  };
  replica.BeginList(Kind::kPod);
  if (!decoder.Feed(R"({"metadata":{"resourceVersion":"1"},"items":[)", take)) std::abort();
  for (int i = 0; i < pods; ++i) {
    if (!decoder.Feed((i == 0 ? "" : ",") + PodText(i, i + 1), take)) std::abort();
  }
  if (!decoder.Feed("]}", take) || !decoder.Finish().Ok()) std::abort();
  replica.EndList(Kind::kPod);
}

}  // namespace

int main(int argc, char** argv) {
  for (int arg = 1; arg < argc; ++arg) {
    const int pods = std::atoi(argv[arg]);
    Replica replica;
    const auto began = std::chrono::steady_clock::now();
    List(replica, pods);
    const double list = Seconds(std::chrono::steady_clock::now() - began).count();
    const double resident = RssMiB("VmRSS:");
    List(replica, pods);
    std::vector<double> changes;
    auto view = replica.Assemble();
    for (int i = 0; i < 20; ++i) {
      std::string text = PodText(i, 1'000'000 + i);
      text.replace(text.find("\"tier\":\"front\""), 14, "\"tier\":\"other\"");
      const auto start = std::chrono::steady_clock::now();
      auto tree = ParseJson(text, OmittedFieldsOf(Kind::kPod));
      const auto identity = IdentityOf(**tree);
      if (!replica.Put(Kind::kPod, identity.Value(), **tree)) return 1;
      view = replica.Assemble();
      changes.push_back(Seconds(std::chrono::steady_clock::now() - start).count() * 1000);
    }
    std::sort(changes.begin(), changes.end());
    std::printf(
        "{\"pods\": %d, \"list_s\": %.3f, \"resident_mib\": %.1f, \"peak_mib\": %.1f, \"change_ms_median\": %.2f, \"change_ms_worst\": "
        "%.2f}\n",
        pods, list, resident, RssMiB("VmHWM:"), changes[changes.size() / 2], changes.back());
    std::fflush(stdout);
  }
  return 0;
}
