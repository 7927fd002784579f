// An IPv4 or IPv6 address as a value. IPv4-mapped IPv6 (::ffff:a.b.c.d) is normalised to IPv4 on construction, because a dual-stack
// socket reports its IPv4 peers that way and a policy means the same host either way.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

struct sockaddr;

namespace vsocket::model {

class IpAddress {
 public:
  IpAddress() = default;  // 0.0.0.0
  static std::optional<IpAddress> Parse(std::string_view text);
  // AF_INET or AF_INET6; nothing else.
  static std::optional<IpAddress> FromSockaddr(const sockaddr& address);
  static IpAddress V4(const std::array<std::uint8_t, 4>& bytes);
  static IpAddress V6(const std::array<std::uint8_t, 16>& bytes);  // normalises mapped addresses

  [[nodiscard]] bool IsV4() const { return v4_; }
  [[nodiscard]] bool IsLoopback() const;
  [[nodiscard]] const std::array<std::uint8_t, 16>& Bytes() const { return bytes_; }  // IPv4: the first four, rest 0
  [[nodiscard]] std::string ToString() const;
  auto operator<=>(const IpAddress&) const = default;

 private:
  bool v4_ = true;
  std::array<std::uint8_t, 16> bytes_{};
};

}  // namespace vsocket::model
