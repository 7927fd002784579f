// HTTPS requests to one API server, many at a time on one thread, none of which can wait for ever. libcurl stays behind this header.
//
// - Every request reads token, CA and client certificate anew, so that what is rotated is used by the next one. What is trusted is the CA
//   file alone, when there is one.
// - A request ends when nothing has come for `silence`, and after `total` whatever has come. A dead peer is found by TCP keep-alive in
//   half a minute, however long the silence may be.
// - No redirects and no proxies: the token goes to the server that was named.
//
// Thread safety: none, but Wake may be called from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "node-agent/kube/api_access.h"

namespace vsocket::kube {

using Clock = std::chrono::steady_clock;

struct HttpEnd {
  bool complete = false;                            // the whole answer has come, whatever it says
  int status = 0;                                   // 0: no answer
  std::string error;                                // empty only for a complete answer of 2xx; else what is wrong, in words
  std::string reason;                               // of the Status object that came with another answer than 2xx: "Expired"
  std::optional<std::chrono::seconds> retry_after;  // as the server asked for
  bool silent = false;                              // given up because nothing came for too long
  [[nodiscard]] bool Good() const { return complete && status >= 200 && status < 300; }
};

struct HttpRequest {
  std::string path;  // with its query
  std::string body;  // not empty: POST, application/json
  std::chrono::milliseconds silence{30'000};
  std::chrono::milliseconds total{120'000};
  // Neither of the next two may start or cancel a request.
  // The answer is 2xx, and its body begins.
  std::function<void()> on_begin;
  // Bytes of the body of a 2xx answer. False: enough of it; the request ends incomplete.
  std::function<bool(std::string_view)> on_body;
  // Once, unless the request is cancelled. It may start other requests.
  std::function<void(const HttpEnd&)> on_end;
};

class HttpsClient {
 public:
  // Fails when the library gives no handle.
  static Result<std::unique_ptr<HttpsClient>, std::string> Make(ApiAccess access, std::string user_agent);
  virtual ~HttpsClient() = default;

  using Id = std::uint64_t;  // never 0
  // Its callbacks run in Run only.
  virtual Id Start(HttpRequest request) = 0;
  // No callback of it is called any more. Does nothing when it has ended.
  virtual void Cancel(Id id) = 0;
  // Lets the requests go on until something has happened, but not beyond `until`.
  virtual void Run(Clock::time_point until) = 0;
  // Makes Run return soon, now or the next time.
  virtual void Wake() = 0;
};

}  // namespace vsocket::kube
