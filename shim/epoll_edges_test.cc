// Edge-triggered and one-shot epoll, as nginx, libuv and thread pools use it: who was told that a connection is ready, and has used that
// up, must be told again when it is ready again. Every test must pass bare, with the shim, and on rings (epoll_ring_test.py runs it in a
// pod and looks at the counters afterwards). A test fails when nobody is told anything for kPatienceMs while bytes are under way.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "shim/testing/lifecycle_peer.h"

namespace vsocket::shim {
namespace {

constexpr int kPatienceMs = 5000;
constexpr std::size_t kMostAtOnce = 1 << 17;
constexpr std::size_t kLongest = 4000000;
constexpr std::uint32_t kEdges = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;

void Fill(std::uint8_t* into, std::size_t size, std::uint64_t position) {
  for (std::size_t i = 0; i < size; ++i) into[i] = PatternAt(position + i);
}

bool IsPattern(const std::uint8_t* bytes, std::size_t size, std::uint64_t position) {
  for (std::size_t i = 0; i < size; ++i) {
    if (bytes[i] != PatternAt(position + i)) return false;
  }
  return true;
}

// Both ends of a connection, in this process.
class EpollEdgesTest : public ::testing::Test {
 protected:
  void Connect() {
    const char* given = std::getenv("LIFECYCLE_ADDRESS");
    const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in at{};
    socklen_t size = sizeof at;
    at.sin_family = AF_INET;
    ::inet_pton(AF_INET, given != nullptr ? given : "127.0.0.1", &at.sin_addr);
    ASSERT_EQ(::bind(listener.Get(), reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    ASSERT_EQ(::listen(listener.Get(), 1), 0);
    ASSERT_EQ(::getsockname(listener.Get(), reinterpret_cast<sockaddr*>(&at), &size), 0);
    client_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(client_.Get(), reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    server_ = UniqueFd(::accept4(listener.Get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    ASSERT_GE(server_.Get(), 0);
    epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  }

  // Bytes back and forth until the connection is on its ring, where that is possible. Both descriptors as they are.
  void WarmUp() const {
    constexpr int kRounds = 400;
    std::uint8_t bytes[64];
    shim::WarmUp warm_up(client_.Get());
    do {
      for (int round = 0; round < kRounds; ++round) PingPong(bytes);
    } while (!HasFatalFailure() && warm_up.GoesOn(kRounds * sizeof bytes));
  }

  void PingPong(std::uint8_t (&bytes)[64]) const {
    ASSERT_TRUE(WriteAll(client_.Get(), bytes, sizeof bytes));
    for (std::size_t got = 0; got < sizeof bytes;) {
      const ssize_t one = ::read(server_.Get(), bytes, sizeof bytes - got);
      if (one > 0) got += static_cast<std::size_t>(one);
    }
    ASSERT_TRUE(WriteAll(server_.Get(), bytes, sizeof bytes));
    ASSERT_TRUE(ReadAll(client_.Get(), bytes, sizeof bytes));
  }

  static void SetNonBlocking(int fd) { ASSERT_EQ(::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK), 0); }

  void Watch(int fd, std::uint32_t events, int op = EPOLL_CTL_ADD) const {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    ASSERT_EQ(::epoll_ctl(epoll_.Get(), op, fd, &event), 0);
  }

  UniqueFd client_, server_, epoll_;
  std::atomic<bool> stop_{false};
};

// One end of a stream in an event loop that believes epoll(7): after a short read or write, the next event says when to go on.
struct End {
  int fd = -1;
  bool readable = true;
  bool writable = true;
  std::uint64_t sent = 0;
  std::uint64_t to_send = 0;
  std::uint64_t received = 0;
  std::uint64_t to_receive = 0;

  [[nodiscard]] bool Done() const { return sent == to_send && received == to_receive; }
};

class Loop {
 public:
  // `file`: the pattern from its beginning. It is never written again: TCP refers to its pages.
  Loop(unsigned seed, int file) : random_(seed), file_(file) {}

  std::size_t Below(std::size_t limit) { return random_() % limit; }
  std::size_t Size() { return 1 + Below(Below(4) == 0 ? kMostAtOnce : 3000); }

  // False: there was nothing to do.
  bool Write(End* end) {
    if (!end->writable || end->sent == end->to_send) return false;
    const std::size_t size = std::min<std::uint64_t>(Size(), end->to_send - end->sent);
    Fill(buffer_, size, end->sent);
    ssize_t sent;
    switch (Below(3)) {
      case 0:
        sent = ::write(end->fd, buffer_, size);
        break;
      case 1: {
        iovec parts[2] = {{buffer_, size / 3}, {buffer_ + size / 3, size - size / 3}};
        sent = ::writev(end->fd, parts, 2);
        break;
      }
      default:
        off_t at = static_cast<off_t>(end->sent);
        sent = ::sendfile(end->fd, file_, &at, size);
    }
    if (sent > 0) end->sent += static_cast<std::uint64_t>(sent);
    EXPECT_TRUE(sent >= 0 || errno == EAGAIN) << errno;
    if (sent < static_cast<ssize_t>(size)) end->writable = false;
    return true;
  }

  bool Read(End* end) {
    if (!end->readable || end->received == end->to_receive) return false;
    const std::size_t size = Size();
    const ssize_t got = ::read(end->fd, buffer_, size);
    if (got > 0) {
      EXPECT_TRUE(IsPattern(buffer_, static_cast<std::size_t>(got), end->received)) << "after byte " << end->received;
      end->received += static_cast<std::uint64_t>(got);
    }
    EXPECT_TRUE(got >= 0 || errno == EAGAIN) << errno;
    EXPECT_NE(got, 0);
    if (got < static_cast<ssize_t>(size)) end->readable = false;
    return true;
  }

 private:
  std::minstd_rand random_;
  int file_;
  std::uint8_t buffer_[kMostAtOnce];
};

// What the kernel's epoll promises, for any order in which a single thread reads, writes and waits: bulk in both directions, readers that
// pause until the writer is stuck, and switches to the ring and back wherever the shim makes them.
TEST_F(EpollEdgesTest, ALoopIsToldOfAllThatComesAfterAShortReadOrWrite) {
  const UniqueFd file(::memfd_create("pattern", MFD_CLOEXEC));
  std::vector<std::uint8_t> pattern(kLongest);
  Fill(pattern.data(), pattern.size(), 0);
  ASSERT_TRUE(WriteAll(file.Get(), pattern.data(), pattern.size()));
  for (unsigned seed = 1; seed <= 60 && !HasFailure(); ++seed) {
    Connect();
    SetNonBlocking(client_.Get());
    auto loop = std::make_unique<Loop>(seed, file.Get());
    End ends[2];
    ends[0].fd = server_.Get();
    ends[1].fd = client_.Get();
    ends[0].to_send = ends[1].to_receive = kLongest / 4 + loop->Below(kLongest / 4 * 3);
    ends[1].to_send = ends[0].to_receive = seed % 2 == 0 ? 100 : 2000000;
    Watch(server_.Get(), kEdges);
    Watch(client_.Get(), kEdges);
    std::size_t reads_of_16 = 16;  // readers pause for a while now and then
    while ((!ends[0].Done() || !ends[1].Done()) && !HasFailure()) {
      if (loop->Below(64) == 0) reads_of_16 = loop->Below(17);
      bool busy = false;
      for (End& end : ends) {
        if (loop->Below(2) == 0) busy |= loop->Write(&end);
        if (loop->Below(16) < reads_of_16) busy |= loop->Read(&end);
      }
      if (busy && loop->Below(16) != 0) continue;
      for (End& end : ends) busy = loop->Write(&end) || loop->Read(&end) || busy;
      epoll_event events[4];
      const int count = ::epoll_wait(epoll_.Get(), events, 4, busy ? 0 : kPatienceMs);
      ASSERT_TRUE(busy || count > 0) << "seed " << seed << ": server sent " << ends[0].sent << " of " << ends[0].to_send << ", client got "
                                     << ends[1].received << "; client sent " << ends[1].sent << " of " << ends[1].to_send << ", server got "
                                     << ends[0].received;
      for (int i = 0; i < count; ++i) {
        End& end = ends[events[i].data.fd == ends[0].fd ? 0 : 1];
        if ((events[i].events & EPOLLIN) != 0) end.readable = true;
        if ((events[i].events & EPOLLOUT) != 0) end.writable = true;
      }
    }
  }
}

// A dispatcher sleeps in epoll_wait while the thread that it gave the last event to asks for the next one.
TEST_F(EpollEdgesTest, AnotherThreadArmsAOneShotAgain) {
  constexpr int kRounds = 3000;
  Connect();
  WarmUp();
  Watch(server_.Get(), EPOLLIN | EPOLLONESHOT);
  sem_t told;
  ::sem_init(&told, 0, 0);
  std::atomic<bool> stop{false}, late{false};
  std::thread dispatcher([&] {
    for (int round = 0; round < kRounds; ++round) {
      epoll_event event{};
      const int count = ::epoll_wait(epoll_.Get(), &event, 1, kPatienceMs);
      if (count != 1 || (event.events & EPOLLIN) == 0) late = stop = true;
      ::sem_post(&told);
      if (stop) return;
    }
  });
  std::thread worker([&] {
    for (int round = 0; round < kRounds; ++round) {
      ::sem_wait(&told);
      char byte = 0;
      if (stop || ::read(server_.Get(), &byte, 1) != 1) stop = true;
      if (stop) return ::shutdown(server_.Get(), SHUT_RDWR), void();
      // Every other time the answer, and with it the next byte, comes before the new arming.
      if (round % 2 == 0 && ::write(server_.Get(), &byte, 1) != 1) stop = true;
      Watch(server_.Get(), EPOLLIN | EPOLLONESHOT, EPOLL_CTL_MOD);
      if (round % 2 != 0 && ::write(server_.Get(), &byte, 1) != 1) stop = true;
    }
  });
  for (int round = 0; round < kRounds && !stop; ++round) {
    char byte = static_cast<char>(round);
    if (::write(client_.Get(), &byte, 1) != 1 || ::read(client_.Get(), &byte, 1) != 1) break;
  }
  dispatcher.join();
  worker.join();
  EXPECT_FALSE(late) << "a byte was there, the connection armed, and nobody was told";
}

// The thread that sends is not the one that waits for room.
TEST_F(EpollEdgesTest, ASleepingThreadIsToldOfRoomThatAnotherNeeds) {
  constexpr std::uint64_t kBytes = 90000000;
  constexpr std::uint64_t kPauseEvery = 20000000;  // more than a connection holds
  Connect();
  WarmUp();
  Watch(server_.Get(), kEdges);
  sem_t room;
  ::sem_init(&room, 0, 0);
  std::atomic<bool> stop{false}, late{false};
  std::atomic<bool> stuck{false};
  int waits = 0;
  std::thread dispatcher([&] {
    while (!stop) {
      epoll_event event{};
      const int count = ::epoll_wait(epoll_.Get(), &event, 1, kPatienceMs);
      if (count == 0) late = stop = true;
      if (count == 1 && (event.events & EPOLLOUT) != 0) ::sem_post(&room);
    }
    ::sem_post(&room);
    ::shutdown(server_.Get(), SHUT_RDWR);
  });
  std::thread reader([&] {
    std::vector<std::uint8_t> bytes(kMostAtOnce);
    std::uint64_t received = 0;
    std::uint64_t pause = kPauseEvery;
    while (received < kBytes) {
      if (received >= pause && kBytes - received > kPauseEvery) {
        pause += kPauseEvery;
        while (!stuck && !stop) std::this_thread::yield();
      }
      const ssize_t got = ::read(client_.Get(), bytes.data(), 1 + received % kMostAtOnce);
      if (got <= 0) return;
      EXPECT_TRUE(IsPattern(bytes.data(), static_cast<std::size_t>(got), received));
      received += static_cast<std::uint64_t>(got);
    }
    stop = true;
    EXPECT_EQ(::write(client_.Get(), "", 1), 1);  // an event for the dispatcher
  });
  std::vector<std::uint8_t> bytes(kMostAtOnce);
  for (std::uint64_t sent = 0; sent < kBytes && !stop;) {
    const std::size_t size = std::min<std::uint64_t>(bytes.size(), kBytes - sent);
    Fill(bytes.data(), size, sent);
    const ssize_t now = ::write(server_.Get(), bytes.data(), size);
    if (now > 0) sent += static_cast<std::uint64_t>(now);
    if (now >= 0) continue;
    ASSERT_EQ(errno, EAGAIN);
    ++waits;
    stuck = true;
    ::sem_wait(&room);
    stuck = false;
  }
  reader.join();
  dispatcher.join();
  EXPECT_FALSE(late) << "there is room again, and nobody was told; after " << waits << " waits";
  EXPECT_GT(waits, 0);
}

std::uint64_t CpuMs() {
  timespec used{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<std::uint64_t>(used.tv_sec) * 1000 + static_cast<std::uint64_t>(used.tv_nsec) / 1000000;
}

// In a thread that has not learnt yet that spinning does not pay.
template <typename Act>
void InNewThread(Act act) {
  std::thread(act).join();
}

// The last bytes' bell and the FIN are one edge of the kernel's, which is told once: whoever takes the bell must find the end behind it.
TEST_F(EpollEdgesTest, ALoopIsToldOfAnEndBehindTheLastBytes) {
  for (int round = 0; round < 20; ++round) {
    const std::uint32_t mode = round % 2 == 0 ? 0U : static_cast<std::uint32_t>(EPOLLET);
    Connect();
    WarmUp();
    std::uint8_t bytes[64];
    ASSERT_EQ(::read(server_.Get(), bytes, sizeof bytes), -1);
    ASSERT_TRUE(WriteAll(client_.Get(), bytes, sizeof bytes));
    client_ = UniqueFd();
    Watch(server_.Get(), EPOLLIN | mode);
    std::uint64_t received = 0;
    for (bool ended = false; !ended;) {
      epoll_event event{};
      const auto asked = std::chrono::steady_clock::now();
      ASSERT_EQ(::epoll_wait(epoll_.Get(), &event, 1, kPatienceMs), 1);
      // Told, not found by the last look when the time is over.
      ASSERT_LT(std::chrono::steady_clock::now() - asked, std::chrono::milliseconds(kPatienceMs / 2)) << "after " << received << " bytes";
      // Level-triggered, one read for each event: what is left is told of again. Edge-triggered, until there is nothing.
      ssize_t got = 0;
      do {
        got = ::read(server_.Get(), bytes, sizeof bytes);
        if (got > 0) received += static_cast<std::uint64_t>(got);
        ended = got == 0;
      } while (got > 0 && mode != 0);
    }
    EXPECT_EQ(received, sizeof bytes);
  }
}

bool SleepsInTheKernel(pid_t thread) {
  std::string word;
  std::ifstream stat("/proc/" + std::to_string(thread) + "/stat");
  stat >> word >> word >> word;
  return word == "S";
}

// A thread waits for room in the ring while another looks at the connection, and makes the direction leave the ring (as it does where
// epoll_ring_test.py lets directions flap): there is room by TCP, and neither the kernel nor the peer has anything to tell of it.
TEST_F(EpollEdgesTest, ASleepingThreadIsToldThatAnotherHasLeftTheRing) {
  for (int round = 0; round < 5; ++round) {
    Connect();
    const int buffer = 1 << 20;
    ::setsockopt(server_.Get(), SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    WarmUp();
    Watch(server_.Get(), EPOLLOUT | EPOLLET);
    const std::vector<std::uint8_t> bytes(1 << 18);
    std::uint64_t sent = 0;
    epoll_event event{};
    do {
      for (ssize_t now; (now = ::write(server_.Get(), bytes.data(), bytes.size())) > 0;) sent += static_cast<std::uint64_t>(now);
      ASSERT_EQ(errno, EAGAIN);
    } while (::epoll_wait(epoll_.Get(), &event, 1, 0) != 0);
    std::atomic<pid_t> waiter{0};
    std::atomic<bool> told{false};
    std::atomic<bool> awake{false};  // told before it slept: where directions flap, room may come at any moment
    std::thread thread([&] {
      epoll_event room{};
      const auto asked = std::chrono::steady_clock::now();
      waiter = ::gettid();
      const int count = ::epoll_wait(epoll_.Get(), &room, 1, kPatienceMs);
      // Told, not found by the last look when the time is over.
      told = count == 1 && std::chrono::steady_clock::now() - asked < std::chrono::milliseconds(kPatienceMs / 2);
      awake = true;
    });
    while (!awake && (waiter == 0 || !SleepsInTheKernel(waiter))) std::this_thread::yield();
    pollfd item = {server_.Get(), POLLIN | POLLOUT, 0};
    for (int look = 0; look < 20000 && item.revents == 0; ++look) ASSERT_GE(::poll(&item, 1, 0), 0);
    if (item.revents == 0) {  // no other way was taken: room comes with the reader
      std::vector<std::uint8_t> into(1 << 16);
      for (; sent > into.size(); sent -= into.size()) ASSERT_TRUE(ReadAll(client_.Get(), into.data(), into.size()));
    }
    thread.join();
    EXPECT_TRUE(told) << "there is room, and nobody was told; round " << round;
  }
}

// Asleep in the kernel, with nothing more to come of it until somebody reads?
bool HasFilledItsWay(pid_t writer, int reader) {
  static thread_local int before = -1;
  int unread = 0;
  ::ioctl(reader, FIONREAD, &unread);
  const bool same = unread == before;
  before = unread;
  return same && unread != 0 && SleepsInTheKernel(writer);
}

// A writer that is killed while it waits for room: what the reader tells it of room then meets a closed socket, whose kernel resets. The
// reader has sent nothing, and is to be told of an end.
TEST_F(EpollEdgesTest, RoomThatAKilledWriterIsToldOfResetsNothing) {
  for (int round = 0; round < 8; ++round) {
    const bool end_seen_first = round % 2 != 0;
    const std::uint32_t mode = round % 4 < 2 ? 0U : static_cast<std::uint32_t>(EPOLLET);
    Connect();
    WarmUp();
    const pid_t writer = ::fork();
    if (writer == 0) {
      server_ = UniqueFd();
      const std::vector<std::uint8_t> bytes(1 << 24);
      ::_exit(WriteAll(client_.Get(), bytes.data(), bytes.size()) ? 0 : 1);
    }
    client_ = UniqueFd();
    while (!HasFilledItsWay(writer, server_.Get())) std::this_thread::yield();
    Watch(server_.Get(), EPOLLIN | EPOLLRDHUP | mode);
    ::kill(writer, SIGKILL);
    ASSERT_EQ(::waitpid(writer, nullptr, 0), writer);
    pollfd item = {server_.Get(), POLLRDHUP, 0};
    if (end_seen_first) {  // by TCP it is behind the bytes
      ASSERT_GE(::poll(&item, 1, 0), 0);
      EXPECT_EQ(item.revents & ~POLLRDHUP, 0);
    }
    std::vector<std::uint8_t> bytes(1 << 16);
    ssize_t got = 0;
    do {
      got = ::read(server_.Get(), bytes.data(), bytes.size());
    } while (got > 0 || (got < 0 && errno == EAGAIN));
    ASSERT_EQ(got, 0) << std::strerror(errno);
    epoll_event event{};
    ASSERT_EQ(::epoll_wait(epoll_.Get(), &event, 1, kPatienceMs), 1);
    EXPECT_EQ(event.events, static_cast<std::uint32_t>(EPOLLIN | EPOLLRDHUP)) << "round " << round;
    event.events = 0;  // again, now that the kernel's own news are taken
    ASSERT_GE(::epoll_wait(epoll_.Get(), &event, 1, 0), mode == 0 ? 1 : 0);
    EXPECT_EQ(event.events & (EPOLLERR | EPOLLHUP), 0U) << "round " << round;
    item.events = POLLIN;
    ASSERT_EQ(::poll(&item, 1, kPatienceMs), 1);
    EXPECT_EQ(item.revents, POLLIN) << "round " << round;
    int error = 0;
    socklen_t size = sizeof error;
    ASSERT_EQ(::getsockopt(server_.Get(), SOL_SOCKET, SO_ERROR, &error, &size), 0);
    EXPECT_EQ(error, 0);
  }
}

// Looks at a connection for longer than a direction may stay on its ring where epoll_ring_test.py lets directions flap.
void LookForLong(int fd) {
  pollfd item = {fd, POLLIN, 0};
  for (int look = 0; look < 20000; ++look) EXPECT_GE(::poll(&item, 1, 0), 0);
}

// A writer that is killed when its kernel still has much of what it sent, beside a frame that it has never read: where directions flap,
// the reader's way back to TCP, which comes when all is there that was sent so far. The writer must take it before it sends more.
TEST_F(EpollEdgesTest, WhatAKilledWriterHasSentByTcpArrives) {
  for (int round = 0; round < 5; ++round) {
    Connect();
    WarmUp();
    int go[2], done[2];
    ASSERT_EQ(::pipe2(go, O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(done, O_CLOEXEC), 0);
    const pid_t writer = ::fork();
    if (writer == 0) {
      server_ = UniqueFd();
      SetNonBlocking(client_.Get());
      const std::vector<std::uint8_t> bytes(1 << 16);
      std::uint64_t accepted = 0;
      char byte = 0;
      LookForLong(client_.Get());
      // Not for long: all of it must reach the reader's kernel.
      if (WriteAll(client_.Get(), bytes.data(), 1000) && ::write(done[1], "x", 1) == 1 && ::read(go[0], &byte, 1) == 1) accepted = 1000;
      for (ssize_t now; (now = ::write(client_.Get(), bytes.data(), bytes.size())) > 0;) accepted += static_cast<std::uint64_t>(now);
      (void)!::write(done[1], &accepted, sizeof accepted);
      ::pause();
    }
    client_ = UniqueFd();
    char byte = 0;
    ASSERT_EQ(::read(done[0], &byte, 1), 1);
    LookForLong(server_.Get());
    ASSERT_EQ(::write(go[1], "x", 1), 1);
    std::uint64_t accepted = 0;
    ASSERT_EQ(::read(done[0], &accepted, sizeof accepted), static_cast<ssize_t>(sizeof accepted));
    ::kill(writer, SIGKILL);
    ASSERT_EQ(::waitpid(writer, nullptr, 0), writer);
    std::vector<std::uint8_t> bytes(1 << 16);
    std::uint64_t received = 0;
    ssize_t got = 0;
    pollfd item = {server_.Get(), POLLIN, 0};
    do {
      ASSERT_EQ(::poll(&item, 1, kPatienceMs), 1);
      got = ::read(server_.Get(), bytes.data(), bytes.size());
      if (got > 0) received += static_cast<std::uint64_t>(got);
    } while (got > 0 || (got < 0 && errno == EAGAIN));
    EXPECT_EQ(got, 0) << std::strerror(errno);
    EXPECT_EQ(received, accepted);
    for (const int fd : {go[0], go[1], done[0], done[1]}) ::close(fd);
  }
}

// Waiting in vain costs next to nothing, whatever way the connection took before: by poll, epoll and a blocking call; for bytes, and for
// room while the peer does not read.
TEST_F(EpollEdgesTest, NobodySpinsInVain) {
  constexpr int kWaitMs = 60;
  Connect();
  WarmUp();
  Watch(server_.Get(), EPOLLIN);
  const timeval limit = {0, kWaitMs * 1000};
  ASSERT_EQ(::setsockopt(client_.Get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
  std::uint8_t bytes[4096] = {};
  for (int round = 0; round < 4; ++round) {
    ASSERT_EQ(::write(client_.Get(), bytes, 64), 64);
    for (std::size_t got = 0; got < 64;) {
      const ssize_t one = ::read(server_.Get(), bytes, sizeof bytes);
      if (one > 0) got += static_cast<std::size_t>(one);
    }
    ASSERT_TRUE(WriteAll(server_.Get(), bytes, 64));
    ASSERT_TRUE(ReadAll(client_.Get(), bytes, 64));
    const std::uint64_t before = CpuMs();
    pollfd item = {server_.Get(), POLLIN, 0};
    epoll_event event{};
    InNewThread([&] { EXPECT_EQ(::poll(&item, 1, kWaitMs), 0); });
    InNewThread([&] { EXPECT_EQ(::epoll_wait(epoll_.Get(), &event, 1, kWaitMs), 0); });
    InNewThread([&] { EXPECT_EQ(::read(client_.Get(), bytes, 1), -1); });
    EXPECT_LT(CpuMs() - before, kWaitMs / 2) << "for bytes, round " << round;
  }
  for (int round = 0; round < 4; ++round) {
    std::uint64_t sent = 0;
    Watch(server_.Get(), EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    for (bool stuck = false; !stuck;) {  // a full ring may be left for TCP, which has room again
      for (ssize_t now; (now = ::write(server_.Get(), bytes, sizeof bytes)) > 0;) sent += static_cast<std::uint64_t>(now);
      ASSERT_EQ(errno, EAGAIN);
      const std::uint64_t before = CpuMs();
      pollfd item = {server_.Get(), POLLIN | POLLOUT, 0};
      epoll_event event{};
      InNewThread([&] { stuck = ::poll(&item, 1, kWaitMs) == 0; });
      if (stuck) InNewThread([&] { stuck = ::epoll_wait(epoll_.Get(), &event, 1, kWaitMs) == 0; });
      EXPECT_LT(CpuMs() - before, kWaitMs / 2) << "for room, round " << round << ", after " << sent << " bytes";
    }
    while (sent > 0) {
      const ssize_t got = ::read(client_.Get(), bytes, sizeof bytes);
      ASSERT_GT(got, 0) << sent << " bytes are missing";
      sent -= static_cast<std::uint64_t>(got);
    }
    const std::uint64_t before = CpuMs();
    pollfd item = {client_.Get(), POLLIN, 0};
    InNewThread([&] { EXPECT_EQ(::poll(&item, 1, kWaitMs), 0); });
    InNewThread([&] { EXPECT_EQ(::read(client_.Get(), bytes, 1), -1); });
    EXPECT_LT(CpuMs() - before, kWaitMs / 2) << "for bytes after those, round " << round;
  }
}

// Several threads in epoll_wait on one set: whoever leaves must not take the others' wake-up along.
TEST_F(EpollEdgesTest, ThreadsShareASet) {
  constexpr int kThreads = 3;
  constexpr int kRounds = 3000;
  Connect();
  WarmUp();
  Watch(server_.Get(), EPOLLIN | EPOLLET);
  const UniqueFd end(::eventfd(0, EFD_CLOEXEC));
  Watch(end.Get(), EPOLLIN);
  std::atomic<int> answered{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (;;) {
        epoll_event event{};
        if (::epoll_wait(epoll_.Get(), &event, 1, -1) != 1 || event.data.fd == end.Get()) return;
        char byte = 0;
        while (::read(server_.Get(), &byte, 1) == 1) {
          ++answered;
          EXPECT_EQ(::write(server_.Get(), &byte, 1), 1);
        }
        // The thread is busy with other things until another has answered: nobody may wait for it to come back.
        for (const int before = answered; byte % 4 == 3 && answered == before && !stop_;) std::this_thread::yield();
      }
    });
  }
  bool late = false;
  for (int round = 0; round < kRounds && !late; ++round) {
    char byte = static_cast<char>(round % 100);
    EXPECT_EQ(::write(client_.Get(), &byte, 1), 1);
    pollfd item = {client_.Get(), POLLIN, 0};
    late = ::poll(&item, 1, kPatienceMs) != 1 || ::read(client_.Get(), &byte, 1) != 1;
  }
  stop_ = true;
  EXPECT_EQ(::eventfd_write(end.Get(), 1), 0);
  for (auto& thread : threads) thread.join();
  EXPECT_FALSE(late) << "a byte was there, threads waited, and none was told; " << answered << " were answered";
}

// A thread that spins on a set looks at its connections without the set's lock, while others come and go, and the lists of them grow.
TEST_F(EpollEdgesTest, ConnectionsComeAndGoUnderAThreadThatLooks) {
  constexpr int kRounds = 100;
  constexpr int kCopies = 100;
  constexpr int kBytes = 100;  // a round
  Connect();
  WarmUp();
  Watch(server_.Get(), EPOLLIN | EPOLLET);
  std::atomic<int> seen{0};
  std::thread looker([&] {
    while (seen != kRounds * kBytes && !stop_) {
      epoll_event event{};
      (void)::epoll_wait(epoll_.Get(), &event, 1, kPatienceMs);
      for (char byte = 0; ::read(server_.Get(), &byte, 1) == 1;) ++seen;
    }
  });
  bool late = false;
  for (int round = 0; round < kRounds && !late; ++round) {
    std::vector<UniqueFd> copies;
    for (int i = 0; i < kCopies; ++i) {
      copies.emplace_back(::fcntl(server_.Get(), F_DUPFD_CLOEXEC, 3));
      Watch(copies.back().Get(), EPOLLIN | EPOLLET);
    }
    const char bytes[kBytes] = {};
    EXPECT_TRUE(WriteAll(client_.Get(), bytes, sizeof bytes));
    for (auto& copy : copies) {
      EXPECT_EQ(::epoll_ctl(epoll_.Get(), EPOLL_CTL_DEL, copy.Get(), nullptr), 0);  // a close would not: the file is open elsewhere
      copy.Reset();
    }
    const auto patience = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatienceMs);
    while (seen != (round + 1) * kBytes && !late) late = std::chrono::steady_clock::now() > patience;
  }
  stop_ = true;
  looker.join();
  EXPECT_EQ(seen, kRounds * kBytes) << "bytes were there, and the thread that waited was not told";
}

}  // namespace
}  // namespace vsocket::shim
