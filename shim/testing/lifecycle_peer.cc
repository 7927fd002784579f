#include "shim/testing/lifecycle_peer.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

extern char** environ;

namespace vsocket::shim {
namespace {

constexpr std::size_t kRound = 64;
constexpr char kPreload[] = "LD_PRELOAD=";

std::string kept_shim;  // KeepShim: the setting that only this program is to have

class Orders {
 public:
  explicit Orders(int connection) : fd_(connection) {}

  std::string Obey(const std::string& verb, std::uint64_t count) {
    if (verb == "rounds") {
      for (std::uint64_t i = 0; i < count; ++i) {
        const std::string problem = Stream(kRound);
        if (problem != "ok") return problem;
      }
      return "ok";
    }
    if (verb == "stream") return Stream(count);
    if (verb == "send") return Send(count);
    if (verb == "recv") return Receive(count);
    if (verb == "half") return ::shutdown(fd_, SHUT_WR) == 0 ? "ok" : "shutdown failed";
    if (verb == "close") return ::close(fd_) == 0 ? "ok" : "close failed";
    char byte = 0;
    const ssize_t got = ::read(fd_, &byte, 1);
    const std::string seen = got > 0 ? "a byte" : got == 0 ? "eof" : errno == ECONNRESET ? "reset" : std::strerror(errno);
    return seen == verb ? "ok" : "expected " + verb + ", saw " + seen;
  }

 private:
  std::string Send(std::uint64_t count) {
    std::vector<std::uint8_t> bytes(count);
    for (auto& byte : bytes) byte = PatternAt(sent_++);
    return WriteAll(fd_, bytes.data(), bytes.size()) ? "ok" : std::string("send: ") + std::strerror(errno);
  }

  std::string Receive(std::uint64_t count) {
    std::uint8_t bytes[16384];
    while (count != 0) {
      const ssize_t got = ::read(fd_, bytes, count < sizeof bytes ? count : sizeof bytes);
      if (got <= 0) return got == 0 ? "early end" : std::string("recv: ") + std::strerror(errno);
      for (ssize_t i = 0; i < got; ++i) {
        if (bytes[i] != PatternAt(received_++)) return "wrong byte at " + std::to_string(received_ - 1);
      }
      count -= static_cast<std::uint64_t>(got);
    }
    return "ok";
  }

  // No more is out than the buffers on the way hold for certain.
  std::string Stream(std::uint64_t count) {
    while (count != 0) {
      const std::uint64_t piece = count < 32768 ? count : 32768;
      std::string problem = Send(piece);
      if (problem == "ok") problem = Receive(piece);
      if (problem != "ok") return problem;
      count -= piece;
    }
    return "ok";
  }

  int fd_;
  std::uint64_t sent_ = 0;
  std::uint64_t received_ = 0;
};

}  // namespace

bool ReadAll(int fd, void* into, std::size_t size) {
  for (std::size_t done = 0; done < size;) {
    const ssize_t got = ::read(fd, static_cast<char*>(into) + done, size - done);
    if (got <= 0) return false;
    done += static_cast<std::size_t>(got);
  }
  return true;
}

bool WriteAll(int fd, const void* from, std::size_t size) {
  for (std::size_t done = 0; done < size;) {
    const ssize_t put = ::write(fd, static_cast<const char*>(from) + done, size - done);
    if (put <= 0) return false;
    done += static_cast<std::size_t>(put);
  }
  return true;
}

bool EchoAll(int fd) {
  char bytes[16384];
  for (;;) {
    const ssize_t got = ::read(fd, bytes, sizeof bytes);
    if (got <= 0) return got == 0;
    if (!WriteAll(fd, bytes, static_cast<std::size_t>(got))) return false;
  }
}

bool Echo(int fd, std::size_t size) {
  char bytes[16384];
  while (size != 0) {
    const ssize_t got = ::read(fd, bytes, size < sizeof bytes ? size : sizeof bytes);
    if (got <= 0 || !WriteAll(fd, bytes, static_cast<std::size_t>(got))) return false;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

bool WarmUp::GoesOn(std::size_t size) {
  constexpr int kMostTurns = 100;
  tcp_info info{};
  socklen_t length = sizeof info;
  ::syscall(SYS_getsockopt, fd_, IPPROTO_TCP, TCP_INFO, &info, &length);
  const std::uint64_t before = by_tcp_;
  by_tcp_ = info.tcpi_bytes_acked + info.tcpi_bytes_received;
  if (std::getenv("LIFECYCLE_ADDRESS") == nullptr || ++turns_ == kMostTurns || on_rings_) return false;
  on_rings_ = by_tcp_ - before < 2 * size - size / 8;
  return true;
}

int RunPeer(const char* address, const char* port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port)));
  ::inet_pton(AF_INET, address, &to.sin_addr);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) return 1;
  Orders orders(fd);
  char line[128];
  while (std::fgets(line, sizeof line, stdin) != nullptr) {
    char verb[32] = {};
    unsigned long long count = 0;
    if (std::sscanf(line, "%31s %llu", verb, &count) < 1) return 2;
    std::printf("%s\n", orders.Obey(verb, count).c_str());
    std::fflush(stdout);
  }
  return 0;
}

int RunReceiver(int channel) {
  char byte = 0;
  iovec part = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (::recvmsg(channel, &message, 0) != 1) return 1;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return 2;
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return EchoAll(fd) ? 0 : 3;
}

void KeepShim() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  const char* shim = std::getenv("LD_PRELOAD");
  if (shim == nullptr) return;
  kept_shim = std::string(kPreload) + shim;
  ::unsetenv("LD_PRELOAD");
#endif
}

pid_t StartSelf(const char* const* words, int input, int output, int inherited, bool shim) {
  std::vector<char*> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (shim || std::strncmp(*entry, kPreload, sizeof kPreload - 1) != 0) environment.push_back(*entry);
  }
  if (shim && !kept_shim.empty()) environment.push_back(kept_shim.data());
  environment.push_back(nullptr);
  std::vector<char*> arguments = {const_cast<char*>("lifecycle_test")};
  for (; *words != nullptr; ++words) arguments.push_back(const_cast<char*>(*words));
  arguments.push_back(nullptr);
  const pid_t child = ::fork();
  if (child != 0) return child;
  if (input > 0) ::dup2(input, 0);
  if (output > 1) ::dup2(output, 1);
  if (inherited == 3) ::fcntl(3, F_SETFD, 0);
  if (inherited > 3) ::dup2(inherited, 3);
  ::execve("/proc/self/exe", arguments.data(), environment.data());
  ::_exit(126);
}

Peer::Peer(int listener) {
  sockaddr_in at{};
  socklen_t size = sizeof at;
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&at), &size);
  char address[INET_ADDRSTRLEN];
  ::inet_ntop(AF_INET, &at.sin_addr, address, sizeof address);
  const std::string port = std::to_string(ntohs(at.sin_port));
  int orders[2];
  int answers[2];
  if (::pipe2(orders, O_CLOEXEC) != 0 || ::pipe2(answers, O_CLOEXEC) != 0) std::abort();
  const char* const words[] = {"--peer", address, port.c_str(), nullptr};
  pid_ = StartSelf(words, orders[0], answers[1], -1, true);
  ::close(orders[0]);
  ::close(answers[1]);
  orders_ = orders[1];
  answers_ = answers[0];
}

Peer::~Peer() {
  ::close(orders_);
  ::close(answers_);
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Peer::Tell(const std::string& order) const {
  const std::string line = order + "\n";
  if (!WriteAll(orders_, line.data(), line.size())) std::perror("peer");
}

std::string Peer::Answer() const {
  std::string line;
  for (char byte = 0; ::read(answers_, &byte, 1) == 1 && byte != '\n';) line.push_back(byte);
  return line;
}

}  // namespace vsocket::shim
