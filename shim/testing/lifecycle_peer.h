// The other end of a connection in lifecycle_test.cc: a process that does what it is told, one line of words at a time, and checks every
// byte. Its own end of the stream is a pattern by position, so a byte lost, repeated or out of order shows at once.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace vsocket::shim {

// The byte at `position` of every stream in these tests.
constexpr std::uint8_t PatternAt(std::uint64_t position) {
  return static_cast<std::uint8_t>(position * 131 + (position >> 8));
}

// Reads or writes all of it by read(2) and write(2). False: an error or the end came before.
bool ReadAll(int fd, void* into, std::size_t size);
bool WriteAll(int fd, const void* from, std::size_t size);

// Gives back what comes until it ends. True: by EOF.
bool EchoAll(int fd);
bool Echo(int fd, std::size_t size);

// Warms a connection up until it is on rings, where there is an agent (LIFECYCLE_ADDRESS is set) to put it there. The kernel's own counts
// tell, whatever a library in between makes of getsockopt(2).
class WarmUp {
 public:
  explicit WarmUp(int fd) : fd_(fd) {}
  // After `size` bytes went each way since the last call. False: that was once more after some had gone by rings, or it is no use to wait.
  [[nodiscard]] bool GoesOn(std::size_t size);

 private:
  int fd_;
  int turns_ = 0;
  bool on_rings_ = false;
  std::uint64_t by_tcp_ = 0;
};

// Orders, answered "ok" or by what went wrong:
//   rounds N    N times 64 bytes out and back
//   stream N    N bytes out while they come back
//   send N      N bytes out
//   recv N      N bytes in, the pattern where "send" or the last "recv" left it
//   half        shutdown(SHUT_WR)
//   close       the last order
//   eof         the end must come, and no error
//   reset       ECONNRESET must come
// Returns the exit status.
int RunPeer(const char* address, const char* port);

// Echoes on a descriptor that it is sent over `channel`, a UNIX socket.
int RunReceiver(int channel);

// The peer as the test sees it: started by the constructor, killed by the destructor.
class Peer {
 public:
  explicit Peer(int listener);
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  void Tell(const std::string& order) const;
  [[nodiscard]] std::string Answer() const;  // to the oldest order not answered yet; waits

 private:
  pid_t pid_ = -1;
  int orders_ = -1;
  int answers_ = -1;
};

// In a sanitized build: takes the shim out of the environment of all that is started but by StartSelf. Other programs do not have the
// sanitizer's runtime, without which that shim cannot be loaded.
void KeepShim();

// A program of this very binary, with `words` as arguments and `inherited` as its descriptor 3 (or none); `shim` false takes LD_PRELOAD
// away.
pid_t StartSelf(const char* const* words, int input, int output, int inherited, bool shim);

}  // namespace vsocket::shim
