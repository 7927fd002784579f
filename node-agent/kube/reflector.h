// Keeps one kind of a Replica like the API server's: lists it, follows it with a watch, and begins again from where it was, or from the
// start, whenever one of them ends (https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes).
//
// Invariants:
// 1. The resource version to go on from is that of the last list, event or bookmark that has been put into the replica as a whole. So a
//    watch that is cut in the middle of an event loses nothing.
// 2. Whatever cannot be understood leads to a new list, never to an event that is passed over.
// 3. Lists are consistent reads (no resourceVersion is asked for): an older state never replaces a newer one.
// 4. After a failure there is a pause, longer each time, at least as long as the server asks for. A watch that ends as it should is
//    followed by the next at once.
//
// Thread safety: none.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/kube/backoff.h"
#include "node-agent/kube/https_client.h"
#include "node-agent/kube/json_stream.h"
#include "node-agent/kube/json_tree.h"
#include "node-agent/kube/replica.h"
#include "node-agent/kube/resource.h"

namespace vsocket::kube {

struct ReflectorOptions {
  std::chrono::milliseconds list_silence{30'000};
  std::chrono::milliseconds list_total{300'000};  // a page
  // A server that sends bookmarks does so about once a minute.
  std::chrono::milliseconds watch_silence{150'000};
  // How long the server is asked to keep a watch: from this to twice as much.
  std::chrono::seconds watch_lasts{300};
  std::chrono::milliseconds first_pause{250}, longest_pause{15'000};
  unsigned page_objects = 500;
  StreamLimits limits;
};

struct ReflectorCounters {
  std::uint64_t lists = 0;     // that took force
  std::uint64_t watches = 0;   // that began
  std::uint64_t events = 0;    // bookmarks left out
  std::uint64_t failures = 0;  // requests that were refused, cut, or could not be understood
};

class Reflector {
 public:
  // `client` and `replica` outlive it. `now`: the clock, so that tests need not wait.
  Reflector(Kind kind, const std::string& node_name, HttpsClient& client, Replica& replica, const ReflectorOptions& options,
            std::uint64_t seed, std::function<Clock::time_point()> now = Clock::now);
  Reflector(const Reflector&) = delete;
  Reflector& operator=(const Reflector&) = delete;

  // Starts what is due. To be called at first, and at Due.
  void Tick();
  // When Tick has something to do; the far future while a request is under way.
  [[nodiscard]] Clock::time_point Due() const;

  // Why the kind is not being followed, for people; empty while it is, or while nothing speaks against it.
  [[nodiscard]] const std::string& Trouble() const { return trouble_; }
  [[nodiscard]] const ReflectorCounters& Counters() const { return counters_; }

 private:
  enum class Next : std::uint8_t { kList, kWatch };

  void StartPage();
  bool OnItem(std::string_view text);
  void OnPageEnd(const HttpEnd& end);
  void StartWatch();
  bool OnEvent(std::string_view text);
  bool OnChange(const std::string& type, const YamlNode& object);
  bool OnErrorEvent(const YamlNode& status);
  void OnWatchEnd(const HttpEnd& end);
  bool Misunderstood(const std::string& what);

  void Follow(Next next);  // at once
  void Fail(Next next, const std::string& why, const HttpEnd& end);
  void Pause(Next next, const HttpEnd& end);

  const Kind kind_;
  const std::string path_;
  HttpsClient& client_;
  Replica& replica_;
  const ReflectorOptions options_;
  const std::function<Clock::time_point()> now_;
  std::mt19937_64 random_;
  Backoff backoff_;
  std::vector<std::string> omitted_paths_;  // with "object." in front
  OmittedFields omitted_in_events_;         // views of them

  Next next_ = Next::kList;
  Clock::time_point due_;
  bool under_way_ = false;

  std::optional<ListDecoder> page_;
  std::string continue_token_;
  unsigned pages_ = 0;
  bool whole_list_ = false;  // the server's pages expire before we have read them all: ask for one

  std::optional<WatchDecoder> watch_;
  std::string resource_version_;
  Clock::time_point watch_began_;
  std::uint64_t events_before_ = 0;
  bool expired_ = false;  // 410 in an event

  std::string misunderstood_;
  std::string trouble_;
  std::string trouble_since_;
  ReflectorCounters counters_;
};

}  // namespace vsocket::kube
