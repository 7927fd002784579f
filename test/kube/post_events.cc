// Posts Events by the agent's own poster and says what became of them, as JSON: post_events SERVER CA TOKEN_FILE COUNT DIFFERENT_PODS
// (1: each on a pod of its own, 0: all on one).
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "node-agent/kube/event_poster.h"

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  auto poster = vsocket::kube::EventPoster::Start({argv[1], argv[3], argv[2], "", ""}, "n1", "vsocket-test");
  if (!poster) {
    std::fprintf(stderr, "%s\n", poster.Error().c_str());
    return 1;
  }
  const unsigned count = static_cast<unsigned>(std::atoi(argv[4]));
  for (unsigned i = 0; i < count; ++i) {
    (*poster)->Post({"default", "pod-" + std::to_string(*argv[5] == '1' ? i : 0), "", "ConnectionCut", "CutConnection", "as a test",
                     vsocket::model::PodEvent::Type::kWarning});
  }
  vsocket::model::EventSink::Counters counters;
  do {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));  // counters announce nothing
    counters = (*poster)->GetCounters();
  } while (counters.posted + counters.limited + counters.dropped < count);
  std::printf("{\"posted\": %llu, \"limited\": %llu, \"dropped\": %llu}\n", static_cast<unsigned long long>(counters.posted),
              static_cast<unsigned long long>(counters.limited), static_cast<unsigned long long>(counters.dropped));
  return 0;
}
