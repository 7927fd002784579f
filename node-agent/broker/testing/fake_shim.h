// A process that speaks channel/control.h as a shim does, for tests of the agent: no ring, no switching, only requests and answers.
//
// Thread safety: none.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>

#include "base/unique_fd.h"
#include "channel/control.h"
#include "channel/layout.h"
#include "channel/reason.h"

namespace vsocket::broker::testing {

struct Answer {
  channel::MessageType type{};
  std::array<std::byte, channel::kMaxMessage> bytes{};
  std::size_t size = 0;
  UniqueFd fd;

  template <typename T>
  [[nodiscard]] T As() const;
};

// A mapped region; unmapped with the object.
class MappedRegion {
 public:
  explicit MappedRegion(int memfd);
  ~MappedRegion();
  MappedRegion(const MappedRegion&) = delete;
  MappedRegion& operator=(const MappedRegion&) = delete;
  [[nodiscard]] bool Valid() const { return map_ != nullptr; }
  [[nodiscard]] channel::RegionHeader& Header() const { return *static_cast<channel::RegionHeader*>(map_); }
  [[nodiscard]] channel::SlotHeader& Slot(std::uint32_t slot) const;

 private:
  void* map_ = nullptr;
};

class FakeShim {
 public:
  static constexpr int kPatienceMs = 5000;

  // Connects; Connected() says whether it worked. Says nothing yet.
  explicit FakeShim(const std::string& agent_sock);

  [[nodiscard]] bool Connected() const { return socket_.Valid(); }
  [[nodiscard]] int Fd() const { return socket_.Get(); }

  // False when the agent has gone or takes nothing.
  bool Send(std::span<const std::byte> bytes, std::span<const int> fds = {});
  template <typename T>
  bool Send(const T& message, std::span<const int> fds = {}) {
    return Send(std::as_bytes(std::span(&message, 1)), fds);
  }

  bool Hello(const char* program = "fake");  // and waits for WELCOME
  bool Upgrade(int tcp);
  bool Cancel(int tcp);
  bool Release(const channel::Grant& grant, channel::Reason reason = channel::Reason::kNone);
  bool Reattach(int tcp, const channel::Grant& grant, int memfd);
  bool AskGrant(int tcp, const channel::Grant& grant);
  bool Note(int tcp, channel::Reason reason);
  bool Wake(channel::MessageType type, std::uint64_t region, std::uint32_t side, std::uint32_t index, int eventfd = -1);

  // The next answer; nullopt at the end of the stream or when nothing comes within kPatienceMs.
  std::optional<Answer> Receive();
  // The next answer must be of this kind, for this socket.
  struct Granted {
    channel::Grant grant{};
    UniqueFd memory;
  };
  std::optional<Granted> ExpectGrant(int tcp);
  std::optional<channel::Deny> ExpectDeny(int tcp);
  bool ExpectEnd();            // the agent disconnects (answers before that are dropped)
  [[nodiscard]] bool Quiet();  // nothing is there to read, after a round trip through the agent
  void Close() { socket_.Reset(); }

 private:
  std::uint64_t round_trips_ = 0;
  UniqueFd socket_;
  std::deque<Answer> early_;
};

std::uint64_t CookieOf(int tcp);

// A connected TCP pair on two addresses of this namespace; port 0 picks the server's.
struct TcpPair {
  UniqueFd client, server, listener;
};
TcpPair MakeTcpPair(const std::string& client_ip, const std::string& server_ip, std::uint16_t port = 0, bool keep_listener = true);

// A connection whose ends were both granted a channel: the client's is side 0.
struct Channel {
  TcpPair tcp;
  FakeShim::Granted client, server;
};
// `a` connects to `b` (which may be the same) and both ask, `a` first. False when one is not granted.
bool GrantBetween(FakeShim& a, FakeShim& b, Channel* channel, const std::string& ip_a, const std::string& ip_b);

template <typename T>
T Answer::As() const {
  T message{};
  if (size == sizeof message) __builtin_memcpy(&message, bytes.data(), sizeof message);
  return message;
}

}  // namespace vsocket::broker::testing
