#include "node-agent/telemetry/http_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>

#include "node-agent/telemetry/metrics.h"

namespace vsocket::telemetry {
namespace {

std::string Ask(int port, const std::string& request) {
  const UniqueFd client(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(client.Get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return "no connection";
  if (::send(client.Get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) return "not sent";
  std::string answer;
  std::array<char, 512> part{};
  for (;;) {
    const ssize_t received = ::recv(client.Get(), part.data(), part.size(), 0);
    if (received <= 0) return answer;
    answer.append(part.data(), static_cast<std::size_t>(received));
  }
}

TEST(HttpServer, AnswersMetricsAndHealth) {
  Metrics metrics([] {
    MetricsSample sample;
    sample.Add(MetricsSample::Kind::kGauge, "vsocket_channels", "Channels.", 3);
    sample.metrics.push_back(
        {"vsocket_denials_total", "Denials.", MetricsSample::Kind::kCounter, {{{{"reason", "policy"}}, 2}, {{{"reason", "quota"}}, 0}}});
    return sample;
  });
  bool ready = false;
  auto server = HttpServer::Start("127.0.0.1:0", {{"/metrics",
                                                   [&] {
                                                     return HttpAnswer{200, "text/plain; version=0.0.4", metrics.Render()};
                                                   }},
                                                  {"/readyz", [&] {
                                                     return HttpAnswer{ready ? 200 : 503, "text/plain", "x"};
                                                   }}});
  ASSERT_TRUE(server) << server.Error();
  const int port = (*server)->Port();
  const std::string answer = Ask(port, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(answer.find("HTTP/1.1 200 OK"), std::string::npos);
  EXPECT_NE(answer.find("vsocket_channels 3"), std::string::npos) << answer;
  EXPECT_NE(answer.find("vsocket_denials_total{reason=\"policy\"} 2"), std::string::npos) << answer;
  EXPECT_NE(Ask(port, "GET /readyz?verbose HTTP/1.1\r\n\r\n").find("503"), std::string::npos);
  EXPECT_NE(Ask(port, "GET /other HTTP/1.1\r\n\r\n").find("404"), std::string::npos);
  EXPECT_NE(Ask(port, "POST /metrics HTTP/1.1\r\n\r\n").find("405"), std::string::npos);
  EXPECT_NE(Ask(port, "nonsense\r\n\r\n").find("400"), std::string::npos);
  const std::string head = Ask(port, "HEAD /metrics HTTP/1.1\r\n\r\n");
  EXPECT_EQ(head.substr(head.size() - 4), "\r\n\r\n");
  EXPECT_EQ(Ask(port, std::string(HttpServer::kMaxRequest + 1000, 'x')), "");
}

TEST(HttpServer, SaysWhatIsWrongWithAnAddress) {
  EXPECT_FALSE(HttpServer::Start("nonsense", {}));
  EXPECT_FALSE(HttpServer::Start("127.0.0.1:99999", {}));
  auto first = HttpServer::Start("127.0.0.1:0", {});
  ASSERT_TRUE(first);
  const auto second = HttpServer::Start("127.0.0.1:" + std::to_string((*first)->Port()), {});
  ASSERT_FALSE(second);
  EXPECT_NE(second.Error().find("in use"), std::string::npos) << second.Error();
}

}  // namespace
}  // namespace vsocket::telemetry
