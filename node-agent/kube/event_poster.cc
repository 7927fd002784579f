#include "node-agent/kube/event_poster.h"

#include <atomic>
#include <chrono>
#include <ctime>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <system_error>
#include <thread>
#include <utility>

#include "node-agent/kube/backoff.h"
#include "node-agent/kube/field_reader.h"
#include "node-agent/kube/https_client.h"

namespace vsocket::kube {
namespace {

constexpr std::size_t kLongestQueue = 256;
constexpr std::size_t kLongestNote = 1024, kLongestWord = 128, kLongestNameOfPod = 200;
constexpr std::chrono::seconds kTriedFor{60};
constexpr std::chrono::seconds kSilence{10}, kTotal{30};
constexpr std::chrono::milliseconds kFirstPause{250}, kLongestPause{10'000};
constexpr std::chrono::hours kIdle{1};
constexpr int kConflict = 409, kUnauthorized = 401, kTooMany = 429;

// At most `size` bytes, not cut within a UTF-8 character.
std::string Cut(std::string text, std::size_t size) {
  if (text.size() <= size) return text;
  while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80) --size;
  text.resize(size);
  return text;
}

std::string MicroTime(std::uint64_t us) {
  const auto seconds = static_cast<std::time_t>(us / 1'000'000);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char date[32], text[48];
  if (std::strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &parts) == 0) return {};
  std::snprintf(text, sizeof(text), "%s.%06uZ", date, static_cast<unsigned>(us % 1'000'000));
  return text;
}

}  // namespace

std::string EventJson(const model::PodEvent& event, const std::string& node_name, std::uint64_t unique, std::uint64_t when_us) {
  char suffix[20];
  std::snprintf(suffix, sizeof(suffix), ".%016llx", static_cast<unsigned long long>(unique));
  nlohmann::json regarding{{"apiVersion", "v1"}, {"kind", "Pod"}, {"namespace", event.ns}, {"name", event.pod}};
  if (!event.uid.empty()) regarding["uid"] = event.uid;
  const nlohmann::json object{{"apiVersion", "events.k8s.io/v1"},
                              {"kind", "Event"},
                              {"metadata", {{"namespace", event.ns}, {"name", Cut(event.pod, kLongestNameOfPod) + suffix}}},
                              {"eventTime", MicroTime(when_us)},
                              {"reportingController", "vsocket.io/agent"},
                              {"reportingInstance", Cut(node_name, kLongestWord)},
                              {"action", Cut(event.action, kLongestWord)},
                              {"reason", Cut(event.reason, kLongestWord)},
                              {"regarding", std::move(regarding)},
                              {"note", Cut(event.note, kLongestNote)},
                              {"type", event.type == model::PodEvent::Type::kWarning ? "Warning" : "Normal"}};
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

class EventPoster::Impl {
 public:
  Impl(std::string node_name, std::unique_ptr<HttpsClient> client)
      : node_name_(std::move(node_name)),
        client_(std::move(client)),
        random_(std::random_device{}()),
        backoff_(kFirstPause, kLongestPause, random_()) {}

  void StartThread() {
    thread_ = std::thread([this] { Run(); });
  }

  ~Impl() {
    if (!thread_.joinable()) return;
    stop_.store(true);
    client_->Wake();
    thread_.join();
  }

  void Post(model::PodEvent event) {
    const auto now = Clock::now();
    {
      const std::lock_guard lock(mutex_);
      const auto left_out = limiter_.Admit(event.ns + "/" + event.pod, now);
      if (!left_out) {
        ++counters_.limited;
        return;
      }
      if (queue_.size() >= kLongestQueue) {
        ++counters_.dropped;
        return;
      }
      if (*left_out > 0) {
        const std::string more = " (" + std::to_string(*left_out) + " more events before this one were not reported)";
        event.note = Cut(std::move(event.note), kLongestNote - more.size()) + more;
      }
      const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
      const auto us = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(since_1970).count());
      queue_.push_back({std::move(event), us, now + kTriedFor});
    }
    client_->Wake();
  }

  Counters GetCounters() const {
    const std::lock_guard lock(mutex_);
    return counters_;
  }

 private:
  struct Queued {
    model::PodEvent event;
    std::uint64_t when_us;
    Clock::time_point tried_until;
  };

  void Run() {
    while (!stop_.load()) {
      const auto now = Clock::now();
      if (!under_way_ && now >= due_) StartNext();
      client_->Run(!under_way_ && due_ > now ? due_ : now + kIdle);
    }
  }

  void StartNext() {
    HttpRequest request;
    {
      const std::lock_guard lock(mutex_);
      if (queue_.empty()) return;
      const Queued& first = queue_.front();
      request.path = "/apis/events.k8s.io/v1/namespaces/" + first.event.ns + "/events";
      request.body = EventJson(first.event, node_name_, random_(), first.when_us);
    }
    request.silence = kSilence;
    request.total = kTotal;
    request.on_end = [this](const HttpEnd& end) { OnEnd(end); };
    under_way_ = true;
    client_->Start(std::move(request));
  }

  void OnEnd(const HttpEnd& end) {
    under_way_ = false;
    const std::lock_guard lock(mutex_);
    // A conflict: an earlier attempt had arrived after all.
    const bool taken = end.status == kConflict || (end.status >= 200 && end.status < 300);
    const bool may_pass = end.status == 0 || end.status == kUnauthorized || end.status == kTooMany || end.status >= 500;
    if (!taken && may_pass && Clock::now() < queue_.front().tried_until) {
      due_ = Clock::now() + std::max<std::chrono::milliseconds>(backoff_.Next(), end.retry_after.value_or(std::chrono::seconds(0)));
      return;
    }
    ++(taken ? counters_.posted : counters_.dropped);
    if (taken) backoff_.Reset();
    queue_.pop_front();
  }

  const std::string node_name_;
  const std::unique_ptr<HttpsClient> client_;
  std::mt19937_64 random_;
  Backoff backoff_;
  bool under_way_ = false;
  Clock::time_point due_;

  mutable std::mutex mutex_;  // guards what follows
  EventLimiter limiter_;
  std::deque<Queued> queue_;
  Counters counters_;

  std::atomic<bool> stop_{false};
  std::thread thread_;
};

EventPoster::EventPoster(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EventPoster::~EventPoster() = default;

void EventPoster::Post(model::PodEvent event) {
  // What is no name cannot be a pod's, and must not become part of a URL.
  if (!IsDnsLabel(event.ns) || !IsDnsSubdomain(event.pod)) return;
  impl_->Post(std::move(event));
}

model::EventSink::Counters EventPoster::GetCounters() const {
  return impl_->GetCounters();
}

Result<std::unique_ptr<EventPoster>, std::string> EventPoster::Start(const ApiAccess& access, std::string node_name,
                                                                     std::string user_agent) {
  if (const std::string why = WhyUnusable(access); !why.empty()) return Failure(why);
  auto client = HttpsClient::Make(access, std::move(user_agent));
  if (!client) return Failure(client.Error());
  auto impl = std::make_unique<Impl>(std::move(node_name), std::move(client.Value()));
  try {
    impl->StartThread();
  } catch (const std::system_error& error) {
    return Failure<std::string>(std::string("cannot start a thread: ") + error.what());
  }
  return std::unique_ptr<EventPoster>(new EventPoster(std::move(impl)));
}

}  // namespace vsocket::kube
