#include "node-agent/telemetry/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <utility>

namespace vsocket::telemetry {
namespace {

const char* StatusText(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 503:
      return "Service Unavailable";
    default:
      return "Error";
  }
}

struct ListenAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

Result<ListenAddress, std::string> ParseListen(const std::string& listen) {
  const auto bad = [&] { return Failure("not an address to listen on (ADDRESS:PORT or [V6]:PORT): " + listen); };
  const std::size_t colon = listen.rfind(':');
  if (colon == std::string::npos) return bad();
  std::string host = listen.substr(0, colon);
  std::uint16_t port = 0;
  const char* end = listen.data() + listen.size();
  const auto parsed = std::from_chars(listen.data() + colon + 1, end, port);
  if (parsed.ec != std::errc() || parsed.ptr != end) return bad();
  ListenAddress address;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    auto& v6 = reinterpret_cast<sockaddr_in6&>(address.storage);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    address.length = sizeof v6;
    return ::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1 ? Result<ListenAddress, std::string>(address) : bad();
  }
  auto& v4 = reinterpret_cast<sockaddr_in&>(address.storage);
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  address.length = sizeof v4;
  return ::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1 ? Result<ListenAddress, std::string>(address) : bad();
}

bool SendAll(int client, std::string_view text) {
  while (!text.empty()) {
    const ssize_t sent = ::send(client, text.data(), text.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<HttpServer>, std::string> HttpServer::Start(const std::string& listen, std::map<std::string, Handler> handlers) {
  const auto address = ParseListen(listen);
  if (!address) return Failure(address.Error());
  const auto why = [&](const char* what) { return Failure(std::string("cannot ") + what + " " + listen + ": " + std::strerror(errno)); };
  UniqueFd listener(::socket(address.Value().storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener.Valid()) return why("make a socket for");
  const int on = 1;
  ::setsockopt(listener.Get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(listener.Get(), reinterpret_cast<const sockaddr*>(&address.Value().storage), address.Value().length) != 0) return why("bind");
  if (::listen(listener.Get(), 16) != 0) return why("listen on");
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  ::getsockname(listener.Get(), reinterpret_cast<sockaddr*>(&bound), &length);
  const int port = ntohs(reinterpret_cast<const sockaddr_in&>(bound).sin_port);  // sin6_port is at the same place
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop.Valid()) return why("make an eventfd for");
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(listener), std::move(stop), port, std::move(handlers)));
}

HttpServer::HttpServer(UniqueFd listener, UniqueFd stop, int port, std::map<std::string, Handler> handlers)
    : listener_(std::move(listener)), stop_(std::move(stop)), port_(port), handlers_(std::move(handlers)), thread_([this] { Run(); }) {}

HttpServer::~HttpServer() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto ignored = ::write(stop_.Get(), &one, sizeof one);
  thread_.join();
}

void HttpServer::Run() {
  for (;;) {
    std::array<pollfd, 2> wait{{{listener_.Get(), POLLIN, 0}, {stop_.Get(), POLLIN, 0}}};
    if (::poll(wait.data(), wait.size(), -1) < 0 && errno != EINTR) return;
    if (wait[1].revents != 0) return;
    const UniqueFd client(::accept4(listener_.Get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (client.Valid()) {
      Serve(client.Get());
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      // Level-triggered: without a pause this would spin until descriptors are free again. A stop is still heard.
      pollfd stop{stop_.Get(), POLLIN, 0};
      ::poll(&stop, 1, 200);
    }
  }
}

void HttpServer::Serve(int client) {
  const timeval timeout{kClientSeconds, 0};
  ::setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  ::setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(kClientSeconds);
  std::string request;
  std::array<char, 1024> part{};
  while (request.find("\r\n\r\n") == std::string::npos) {
    const ssize_t received = ::recv(client, part.data(), part.size(), 0);
    if (received < 0 && errno == EINTR) continue;
    if (received <= 0 || std::chrono::steady_clock::now() > deadline) return;
    request.append(part.data(), static_cast<std::size_t>(received));
    if (request.size() > kMaxRequest) return;
  }
  bool head = false;
  const HttpAnswer answer = AnswerTo(request, &head);
  const std::string header = "HTTP/1.1 " + std::to_string(answer.status) + " " + StatusText(answer.status) +
                             "\r\nContent-Type: " + answer.content_type + "\r\nContent-Length: " + std::to_string(answer.body.size()) +
                             "\r\nConnection: close\r\n\r\n";
  if (SendAll(client, header) && !head) SendAll(client, answer.body);
}

HttpAnswer HttpServer::AnswerTo(std::string_view request, bool* head) const {
  const std::string_view line = request.substr(0, request.find("\r\n"));
  const std::size_t first = line.find(' ');
  const std::size_t second = first == std::string_view::npos ? first : line.find(' ', first + 1);
  if (second == std::string_view::npos || !line.substr(second + 1).starts_with("HTTP/1."))
    return {400, "text/plain", "not an HTTP/1 request\n"};
  const std::string_view method = line.substr(0, first);
  if (method != "GET" && method != "HEAD") return {405, "text/plain", "only GET and HEAD\n"};
  *head = method == "HEAD";
  std::string_view path = line.substr(first + 1, second - first - 1);
  path = path.substr(0, path.find('?'));
  const auto handler = handlers_.find(std::string(path));
  if (handler == handlers_.end()) return {404, "text/plain", "try /metrics, /healthz or /readyz\n"};
  return handler->second();
}

}  // namespace vsocket::telemetry
