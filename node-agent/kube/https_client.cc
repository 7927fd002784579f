#include "node-agent/kube/https_client.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "node-agent/kube/field_reader.h"
#include "node-agent/kube/json_tree.h"

namespace vsocket::kube {
namespace {

constexpr std::size_t kLargestStatus = 16384;  // of an answer other than 2xx
constexpr std::size_t kShownMessage = 300;
constexpr std::chrono::seconds kLongestRetryAfter{120};
constexpr long kConnectMs = 10'000;
constexpr long kKeepIdleSeconds = 15, kKeepIntervalSeconds = 5;
constexpr int kKeepCount = 3;
constexpr unsigned kDeadPeerMs = 30'000;

// tcp(7): unanswered data ends a connection as early as unanswered keep-alives do.
int OnSocket(void*, curl_socket_t fd, curlsocktype) {
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &kKeepCount, sizeof(kKeepCount));
  ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &kDeadPeerMs, sizeof(kDeadPeerMs));
  return CURL_SOCKOPT_OK;
}

curl_blob BlobOf(std::string& text) {
  return {text.data(), text.size(), CURL_BLOB_COPY};
}

// Printable, and not too long: it comes from the network and goes into a log.
std::string Shown(std::string text) {
  if (text.size() > kShownMessage) text = text.substr(0, kShownMessage) + "...";
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; }, ' ');
  return text;
}

struct EasyEnd {
  void operator()(CURL* handle) const { ::curl_easy_cleanup(handle); }
};
struct HeadersEnd {
  void operator()(curl_slist* list) const { ::curl_slist_free_all(list); }
};

struct Transfer {
  HttpRequest request;
  std::unique_ptr<CURL, EasyEnd> handle;
  std::unique_ptr<curl_slist, HeadersEnd> headers;
  char error[CURL_ERROR_SIZE] = {};
  Clock::time_point begun = Clock::now();
  Clock::time_point heard = begun;
  int status = 0;
  bool enough = false;  // on_body asked to stop
  bool begin_told = false;
  std::string status_body;   // of another answer than 2xx
  std::string cannot_begin;  // no transfer at all
  [[nodiscard]] Clock::time_point Deadline() const { return std::min(heard + request.silence, begun + request.total); }
};

class CurlClient : public HttpsClient {
 public:
  CurlClient(ApiAccess access, std::string user_agent, CURLM* multi)
      : access_(std::move(access)), user_agent_(std::move(user_agent)), multi_(multi) {}

  ~CurlClient() override {
    for (auto& [id, transfer] : transfers_) Detach(*transfer);
    transfers_.clear();
    ::curl_multi_cleanup(multi_);
  }

  Id Start(HttpRequest request) override {
    auto transfer = std::make_unique<Transfer>();
    transfer->request = std::move(request);
    Prepare(*transfer);
    transfers_.emplace(++last_id_, std::move(transfer));
    return last_id_;
  }

  void Cancel(Id id) override {
    const auto found = transfers_.find(id);
    if (found == transfers_.end()) return;
    Detach(*found->second);
    transfers_.erase(found);
  }

  void Run(Clock::time_point until) override {
    if (EndThose([](const Transfer& transfer) { return !transfer.cannot_begin.empty(); })) return;
    Clock::time_point wake = until;
    for (const auto& [id, transfer] : transfers_) wake = std::min(wake, transfer->Deadline());
    const auto wait = std::chrono::ceil<std::chrono::milliseconds>(wake - Clock::now());
    int running = 0;
    ::curl_multi_perform(multi_, &running);
    if (!TakeEnded()) {
      ::curl_multi_poll(multi_, nullptr, 0, static_cast<int>(std::clamp<std::int64_t>(wait.count(), 0, 3'600'000)), nullptr);
      ::curl_multi_perform(multi_, &running);
      TakeEnded();
    }
    const Clock::time_point now = Clock::now();
    EndThose([now](const Transfer& transfer) { return transfer.Deadline() <= now; });
  }

  void Wake() override { ::curl_multi_wakeup(multi_); }

 private:
  template <typename T>
  static void Set(Transfer& transfer, CURLoption option, T value) {
    // Fails only for an option that this library was built without; the request then does so too.
    if (::curl_easy_setopt(transfer.handle.get(), option, value) != CURLE_OK && transfer.cannot_begin.empty()) {
      transfer.cannot_begin = "the HTTP library does not know option " + std::to_string(option);
    }
  }

  static void AddHeader(Transfer& transfer, const std::string& line) {
    curl_slist* longer = ::curl_slist_append(transfer.headers.get(), line.c_str());
    if (longer == nullptr) return;
    static_cast<void>(transfer.headers.release());  // the head of the longer list
    transfer.headers.reset(longer);
  }

  void Prepare(Transfer& transfer) {
    auto credentials = ReadCredentials(access_);
    if (!credentials) {
      transfer.cannot_begin = credentials.Error();
      return;
    }
    transfer.handle.reset(::curl_easy_init());
    if (transfer.handle == nullptr) {
      transfer.cannot_begin = "no memory for a request";
      return;
    }
    Set(transfer, CURLOPT_URL, (access_.server + transfer.request.path).c_str());
    Set(transfer, CURLOPT_PROTOCOLS_STR, "https");
    Set(transfer, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));  // a connection each: no request can hold up another
    Set(transfer, CURLOPT_NOPROXY, "*");
    Set(transfer, CURLOPT_FOLLOWLOCATION, 0L);
    Set(transfer, CURLOPT_NOSIGNAL, 1L);
    Set(transfer, CURLOPT_CONNECTTIMEOUT_MS, kConnectMs);
    Set(transfer, CURLOPT_TCP_KEEPALIVE, 1L);
    Set(transfer, CURLOPT_TCP_KEEPIDLE, kKeepIdleSeconds);
    Set(transfer, CURLOPT_TCP_KEEPINTVL, kKeepIntervalSeconds);
    Set(transfer, CURLOPT_SOCKOPTFUNCTION, &OnSocket);
    Set(transfer, CURLOPT_USERAGENT, user_agent_.c_str());
    Set(transfer, CURLOPT_ERRORBUFFER, &transfer.error[0]);
    Set(transfer, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    SetTrust(transfer, credentials.Value());
    Set(transfer, CURLOPT_HEADERFUNCTION, &OnHeader);
    Set(transfer, CURLOPT_HEADERDATA, static_cast<void*>(&transfer));
    Set(transfer, CURLOPT_WRITEFUNCTION, &OnBody);
    Set(transfer, CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
    AddHeader(transfer, "Accept: application/json");
    if (!credentials->token.empty()) AddHeader(transfer, "Authorization: Bearer " + credentials->token);
    if (!transfer.request.body.empty()) {
      AddHeader(transfer, "Content-Type: application/json");
      AddHeader(transfer, "Expect:");
      Set(transfer, CURLOPT_POST, 1L);
      Set(transfer, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(transfer.request.body.size()));
      Set(transfer, CURLOPT_POSTFIELDS, transfer.request.body.c_str());
    }
    Set(transfer, CURLOPT_HTTPHEADER, transfer.headers.get());
    if (transfer.cannot_begin.empty() && ::curl_multi_add_handle(multi_, transfer.handle.get()) != CURLM_OK) {
      transfer.cannot_begin = "the HTTP library takes no more requests";
    }
  }

  // As contents, not as files: the library keeps what it has read of a file, and would go on trusting a CA that was taken away.
  static void SetTrust(Transfer& transfer, Credentials& credentials) {
    if (!credentials.ca.empty()) {
      Set(transfer, CURLOPT_CAPATH, static_cast<const char*>(nullptr));
      Set(transfer, CURLOPT_CAINFO, static_cast<const char*>(nullptr));
      curl_blob ca = BlobOf(credentials.ca);
      Set(transfer, CURLOPT_CAINFO_BLOB, &ca);
    }
    if (!credentials.cert.empty()) {
      curl_blob cert = BlobOf(credentials.cert);
      curl_blob key = BlobOf(credentials.key);
      Set(transfer, CURLOPT_SSLCERT_BLOB, &cert);
      Set(transfer, CURLOPT_SSLKEY_BLOB, &key);
    }
  }

  static std::size_t OnHeader(char* bytes, std::size_t size, std::size_t count, void* data) {
    Transfer& transfer = *static_cast<Transfer*>(data);
    transfer.heard = Clock::now();
    // The empty line after the headers: a watch has begun, though it may be long before it says something.
    if (std::string_view(bytes, size * count) == "\r\n") TellBegin(transfer);
    return size * count;
  }

  static std::size_t OnBody(char* bytes, std::size_t size, std::size_t count, void* data) {
    Transfer& transfer = *static_cast<Transfer*>(data);
    const std::string_view piece(bytes, size * count);
    transfer.heard = Clock::now();
    if (!TellBegin(transfer)) {
      transfer.status_body.append(piece.substr(0, kLargestStatus - std::min(kLargestStatus, transfer.status_body.size())));
      return piece.size();
    }
    if (transfer.request.on_body && !transfer.request.on_body(piece)) {
      transfer.enough = true;
      return piece.size() + 1;  // which is how the library is told to stop
    }
    return piece.size();
  }

  // Whether the answer is 2xx.
  static bool TellBegin(Transfer& transfer) {
    if (transfer.status == 0) {
      long status = 0;
      ::curl_easy_getinfo(transfer.handle.get(), CURLINFO_RESPONSE_CODE, &status);
      if (status < 200) return false;  // none yet, or an interim one
      transfer.status = static_cast<int>(status);
    }
    const bool good = transfer.status >= 200 && transfer.status < 300;
    if (good && !std::exchange(transfer.begin_told, true) && transfer.request.on_begin) transfer.request.on_begin();
    return good;
  }

  void Detach(Transfer& transfer) const {
    if (transfer.handle) ::curl_multi_remove_handle(multi_, transfer.handle.get());
  }

  // Those whose answer is over, or that failed.
  bool TakeEnded() {
    std::vector<std::pair<CURL*, CURLcode>> ended;
    int left = 0;
    while (const CURLMsg* message = ::curl_multi_info_read(multi_, &left)) {
      if (message->msg == CURLMSG_DONE) ended.emplace_back(message->easy_handle, message->data.result);
    }
    for (const auto& [handle, result] : ended) {
      const auto found =
          std::find_if(transfers_.begin(), transfers_.end(), [h = handle](const auto& entry) { return entry.second->handle.get() == h; });
      if (found == transfers_.end()) continue;  // cancelled by another's callback
      Transfer& transfer = *found->second;
      TellBegin(transfer);
      HttpEnd end = EndOf(transfer);
      end.complete = result == CURLE_OK && transfer.status != 0;
      if (result != CURLE_OK && !transfer.enough) {
        end.error = Shown(transfer.error[0] != '\0' ? transfer.error : ::curl_easy_strerror(result));
      }
      Finish(found->first, end);
    }
    return !ended.empty();
  }

  template <typename Condition>
  bool EndThose(Condition condition) {
    std::vector<Id> ending;
    for (const auto& [id, transfer] : transfers_) {
      if (condition(*transfer)) ending.push_back(id);
    }
    for (const Id id : ending) {
      const auto found = transfers_.find(id);
      if (found == transfers_.end()) continue;
      Transfer& transfer = *found->second;
      HttpEnd end = EndOf(transfer);
      end.error = transfer.cannot_begin;
      if (end.error.empty()) {
        end.silent = Clock::now() < transfer.begun + transfer.request.total;
        const auto limit = std::chrono::ceil<std::chrono::seconds>(end.silent ? transfer.request.silence : transfer.request.total);
        end.error = (end.silent ? "nothing came for " : "it was not over after ") + std::to_string(limit.count()) + " s";
      }
      Finish(id, end);
    }
    return !ending.empty();
  }

  void Finish(Id id, const HttpEnd& end) {
    const auto found = transfers_.find(id);
    const std::unique_ptr<Transfer> transfer = std::move(found->second);
    transfers_.erase(found);
    Detach(*transfer);
    if (transfer->request.on_end) transfer->request.on_end(end);
  }

  // Status, and what the server said of its own accord about an answer other than 2xx.
  static HttpEnd EndOf(const Transfer& transfer) {
    HttpEnd end;
    end.status = transfer.status;
    if (transfer.handle == nullptr) return end;
    curl_off_t seconds = 0;
    if (::curl_easy_getinfo(transfer.handle.get(), CURLINFO_RETRY_AFTER, &seconds) == CURLE_OK && seconds > 0) {
      end.retry_after = std::min<std::chrono::seconds>(std::chrono::seconds(seconds), kLongestRetryAfter);
    }
    if (end.status == 0 || (end.status >= 200 && end.status < 300)) return end;
    end.error = "HTTP " + std::to_string(end.status);
    auto tree = ParseJson(transfer.status_body);
    if (!tree) return end;
    std::vector<YamlError> ignored;
    FieldReader reader(ignored);
    end.reason = Shown(reader.Text((*tree)->Find("reason"), "reason").value_or(""));
    const std::string message = reader.Text((*tree)->Find("message"), "message").value_or("");
    if (!message.empty()) end.error += ", " + Shown(message);
    return end;
  }

  const ApiAccess access_;
  const std::string user_agent_;
  CURLM* const multi_;
  std::map<Id, std::unique_ptr<Transfer>> transfers_;
  Id last_id_ = 0;
};

}  // namespace

Result<std::unique_ptr<HttpsClient>, std::string> HttpsClient::Make(ApiAccess access, std::string user_agent) {
  static std::once_flag once;
  static CURLcode ready = CURLE_OK;
  std::call_once(once, [] { ready = ::curl_global_init(CURL_GLOBAL_DEFAULT); });
  CURLM* multi = ready == CURLE_OK ? ::curl_multi_init() : nullptr;
  if (multi == nullptr) return Failure<std::string>("libcurl cannot be used");
  return std::unique_ptr<HttpsClient>(std::make_unique<CurlClient>(std::move(access), std::move(user_agent), multi));
}

}  // namespace vsocket::kube
