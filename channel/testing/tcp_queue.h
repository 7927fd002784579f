// The kernel's TCP from one end to the other, for tests: what is accepted may be less than what is sent, and arrives in any pieces.
// Thread safety: none.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace vsocket::channel::testing {

class TcpQueue {
 public:
  // `limit`: how many bytes fit between the two ends.
  explicit TcpQueue(std::size_t limit) : limit_(limit) {}

  // How many bytes more it accepts from here on, until some are taken.
  void SetRoom(std::size_t room) { limit_ = bytes_.size() - taken_ + room; }

  // How many of `bytes` were accepted; 0 when the queue is full.
  std::size_t Send(std::span<const std::uint8_t> bytes) {
    const std::size_t used = bytes_.size() - taken_;
    const std::size_t size = std::min(bytes.size(), limit_ > used ? limit_ - used : 0);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    return size;
  }

  // Up to `size` accepted bytes arrive at the receiver.
  void Deliver(std::size_t size) { arrived_ += std::min(size, bytes_.size() - arrived_); }

  // The sender ends: the receiver finds the FIN behind the last byte.
  void Close() { closed_ = true; }

  // What has arrived and has not been taken: recv(MSG_PEEK).
  [[nodiscard]] std::span<const std::uint8_t> Peek() const { return std::span(bytes_).subspan(taken_, arrived_ - taken_); }

  // Requires size <= Peek().size().
  void Discard(std::size_t size) {
    taken_ += size;
    if (taken_ < kCompactAt) return;
    bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(taken_));
    arrived_ -= taken_;
    taken_ = 0;
  }

  // The FIN has arrived, and all bytes with it; some may be untaken (POLLRDHUP).
  [[nodiscard]] bool FinArrived() const { return closed_ && arrived_ == bytes_.size(); }

  // Everything accepted has been taken.
  [[nodiscard]] bool Empty() const { return taken_ == bytes_.size(); }

 private:
  static constexpr std::size_t kCompactAt = 1 << 16;

  std::size_t limit_;
  std::vector<std::uint8_t> bytes_;  // all in flight and arrived
  std::size_t taken_ = 0;            // bytes_ below are gone
  std::size_t arrived_ = 0;          // bytes_ below have reached the receiver
  bool closed_ = false;
};

}  // namespace vsocket::channel::testing
