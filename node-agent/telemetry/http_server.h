// A small HTTP/1.1 server (RFC 9112) for /metrics, /healthz and /readyz: GET and HEAD, one request a connection, answered in turn.
//
// It exists because an idle agent must not wake up: one thread sleeps in accept, nothing polls. A client that dawdles is cut off after
// kClientSeconds, and a request is at most kMaxRequest bytes.
//
// Thread safety: Start and Stop from one thread; handlers run on the server's thread.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "base/result.h"
#include "base/unique_fd.h"

namespace vsocket::telemetry {

struct HttpAnswer {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

class HttpServer {
 public:
  using Handler = std::function<HttpAnswer()>;
  static constexpr std::size_t kMaxRequest = 8192;
  static constexpr int kClientSeconds = 2;

  // `listen` is "ADDRESS:PORT" or "[V6]:PORT"; port 0 picks one. `handlers` by path. Errors are sentences.
  static Result<std::unique_ptr<HttpServer>, std::string> Start(const std::string& listen, std::map<std::string, Handler> handlers);
  ~HttpServer();
  [[nodiscard]] int Port() const { return port_; }

 private:
  HttpServer(UniqueFd listener, UniqueFd stop, int port, std::map<std::string, Handler> handlers);
  void Run();
  void Serve(int client);
  [[nodiscard]] HttpAnswer AnswerTo(std::string_view request, bool* head) const;

  UniqueFd listener_, stop_;
  int port_;
  std::map<std::string, Handler> handlers_;
  std::thread thread_;
};

}  // namespace vsocket::telemetry
