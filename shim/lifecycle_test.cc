// What programs do with a connection besides reading and writing: copy it, hand it to children, to other programs and to strangers, close
// it by the dozen, ask about it. Every test must pass bare, with the shim, and with the connection on a ring (lifecycle_ring_test.py runs
// it in a pod and looks at the counters afterwards): what the peer sees is the same.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/close_range.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "shim/testing/lifecycle_peer.h"

extern char** environ;

namespace vsocket::shim {
namespace {

constexpr int kRounds = 400;  // of 64 bytes, until the connection is where it is to be
constexpr int kStream = 200000;
const char kCat[] = "/bin/cat";

const char* Address() {
  const char* given = std::getenv("LIFECYCLE_ADDRESS");
  return given != nullptr ? given : "127.0.0.1";
}

int Wait(pid_t child) {
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

class LifecycleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    listener_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in at{};
    at.sin_family = AF_INET;
    ::inet_pton(AF_INET, Address(), &at.sin_addr);
    ASSERT_EQ(::bind(listener_.Get(), reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    ASSERT_EQ(::listen(listener_.Get(), 16), 0);
    Meet(&peer_, &fd_);
  }

  // A peer, and the connection with it, after enough rounds to be on a ring where that is possible. Close-on-exec, or the next peer
  // would inherit it.
  void Meet(std::unique_ptr<Peer>* peer, int* fd) {
    *peer = std::make_unique<Peer>(listener_.Get());
    *fd = ::accept4(listener_.Get(), nullptr, nullptr, SOCK_CLOEXEC);
    ASSERT_GE(*fd, 0);
    WarmUp warm_up(*fd);
    std::uint64_t moved = 0;
    do {
      (*peer)->Tell("rounds " + std::to_string(kRounds));
      ASSERT_TRUE(Echo(*fd, 64 * kRounds));
      ASSERT_EQ((*peer)->Answer(), "ok");
      moved += 64 * kRounds;
    } while (warm_up.GoesOn(64 * kRounds));
    if (peer == &peer_) moved_ = moved;
  }

  // The peer streams through whoever echoes, ends its direction, and must see the end. Returns when its first bytes are here.
  void BeginStream() const {
    peer_->Tell("stream " + std::to_string(kStream));
    peer_->Tell("half");
    peer_->Tell("eof");
    pollfd item = {fd_, POLLIN, 0};
    EXPECT_EQ(::poll(&item, 1, 10000), 1);
  }

  void StreamEnds() const {
    EXPECT_EQ(peer_->Answer(), "ok");
    EXPECT_EQ(peer_->Answer(), "ok");
    EXPECT_EQ(peer_->Answer(), "ok");
  }

  void GoesOn() const {
    peer_->Tell("stream " + std::to_string(kStream));
    EXPECT_TRUE(Echo(fd_, kStream));
    EXPECT_EQ(peer_->Answer(), "ok");
  }

  void PeerSees(const char* end) const {
    peer_->Tell(end);
    EXPECT_EQ(peer_->Answer(), "ok");
  }

  UniqueFd listener_;
  std::unique_ptr<Peer> peer_;
  int fd_ = -1;
  std::uint64_t moved_ = 0;  // each way on `fd_`, before the test began
};

TEST_F(LifecycleTest, ForkDup2ExecLikeInetd) {
  BeginStream();
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(fd_, 0);
    ::dup2(fd_, 1);
    ::close(fd_);
    ::execl(kCat, "cat", static_cast<char*>(nullptr));
    ::_exit(126);
  }
  ::close(fd_);
  StreamEnds();
  EXPECT_EQ(Wait(child), 0);
}

TEST_F(LifecycleTest, ForkCloseDupExec) {  // the lowest free number, without naming it
  BeginStream();
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(0);
    ::close(1);
    if (::dup(fd_) != 0 || ::fcntl(fd_, F_DUPFD, 1) != 1) ::_exit(125);
    ::execlp("cat", "cat", static_cast<char*>(nullptr));
    ::_exit(126);
  }
  ::close(fd_);
  StreamEnds();
  EXPECT_EQ(Wait(child), 0);
}

TEST_F(LifecycleTest, VforkDup2Exec) {
  BeginStream();
  char* const argv[] = {const_cast<char*>("cat"), nullptr};
  const pid_t child = ::vfork();
  if (child == 0) {
    ::dup2(fd_, 0);
    ::dup2(fd_, 1);
    ::close(fd_);
    ::execve(kCat, argv, environ);
    ::_exit(126);
  }
  ::close(fd_);
  StreamEnds();
  EXPECT_EQ(Wait(child), 0);
}

TEST_F(LifecycleTest, VforkChildLeavesTheParentsTableAlone) {
  char* const argv[] = {const_cast<char*>("true"), nullptr};
  std::unique_ptr<Peer> other;
  int other_fd = -1;
  Meet(&other, &other_fd);
  const pid_t child = ::vfork();
  if (child == 0) {
    ::dup2(other_fd, 200);
    ::dup2(2, other_fd);
    ::close(fd_);
    ::close_range(3, ~0u, 0);
    ::execve("/bin/true", argv, environ);
    ::_exit(126);
  }
  EXPECT_EQ(Wait(child), 0);
  GoesOn();
  other->Tell("stream 5000");
  EXPECT_TRUE(Echo(other_fd, 5000));
  EXPECT_EQ(other->Answer(), "ok");
  ::close(other_fd);
  ::close(fd_);
  PeerSees("eof");
}

TEST_F(LifecycleTest, PosixSpawnWithActions) {
  BeginStream();
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, fd_, 0);
  ::posix_spawn_file_actions_adddup2(&actions, fd_, 1);
  ::posix_spawn_file_actions_addclose(&actions, fd_);
  char* const argv[] = {const_cast<char*>("cat"), nullptr};
  pid_t child = -1;
  ASSERT_EQ(::posix_spawn(&child, kCat, &actions, nullptr, argv, environ), 0);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(fd_);
  StreamEnds();
  EXPECT_EQ(Wait(child), 0);
}

TEST_F(LifecycleTest, AHandOverDoesNotNeedThePeersProgram) {  // which is busy elsewhere: no socket call of its will come
  int executed[2];
  ASSERT_EQ(::pipe2(executed, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(fd_, 0);
    ::dup2(fd_, 1);
    ::execl(kCat, "cat", static_cast<char*>(nullptr));
    ::_exit(126);
  }
  ::close(executed[1]);
  ::close(fd_);
  char byte = 0;
  EXPECT_EQ(::read(executed[0], &byte, 1), 0);  // its last writer went with the exec
  ::close(executed[0]);
  peer_->Tell("stream " + std::to_string(kStream));
  peer_->Tell("half");
  peer_->Tell("eof");
  StreamEnds();
  EXPECT_EQ(Wait(child), 0);
}

TEST_F(LifecycleTest, AHandOverAfterThePeersEndHasAllThatItSent) {  // closed with the bytes unread in the ring
  constexpr std::size_t kLeft = 12000;
  peer_->Tell("send " + std::to_string(kLeft));
  peer_->Tell("close");
  ASSERT_EQ(peer_->Answer(), "ok");
  ASSERT_EQ(peer_->Answer(), "ok");
  int counted[2];
  ASSERT_EQ(::pipe2(counted, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(fd_, 0);
    ::dup2(counted[1], 1);
    ::execl(kCat, "cat", static_cast<char*>(nullptr));
    ::_exit(126);
  }
  ::close(counted[1]);
  ::close(fd_);
  std::size_t total = 0;
  char bytes[4096];
  for (ssize_t got; (got = ::read(counted[0], bytes, sizeof bytes)) > 0;) total += static_cast<std::size_t>(got);
  ::close(counted[0]);
  EXPECT_EQ(total, kLeft);
  EXPECT_EQ(Wait(child), 0);
}

// The peer goes up behind payload by TCP that this end has not read, as it does with a reader that has shown that it reads. No frame, nor
// what is in the ring, can overtake that payload; the program that comes next reads it all by TCP.
class BehindUnreadTest : public LifecycleTest {
 protected:
  void SetUp() override {
    LifecycleTest::SetUp();
    peer_->Tell("stream " + std::to_string(kProof));
    ASSERT_TRUE(Echo(fd_, kProof));
    ASSERT_EQ(peer_->Answer(), "ok");
    Send(kFirst);  // more than the ring holds: the second comes by TCP
    Send(kFirst);
    std::vector<std::uint8_t> bytes(kRead);
    ASSERT_TRUE(ReadAll(fd_, bytes.data(), kRead));
    Send(kBehind);
    ASSERT_EQ(::pipe2(counted_, O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(executed_, O_CLOEXEC), 0);
  }

  void Send(std::size_t size) {
    peer_->Tell("send " + std::to_string(size));
    ASSERT_EQ(peer_->Answer(), "ok");
    sent_ += size;
  }

  void Close() const {
    peer_->Tell("close");
    EXPECT_EQ(peer_->Answer(), "ok");
  }

  void HandOver() {
    child_ = ::fork();
    if (child_ == 0) {
      ::dup2(fd_, 0);
      ::dup2(counted_[1], 1);
      ::execl(kCat, "cat", static_cast<char*>(nullptr));
      ::_exit(126);
    }
    ::close(counted_[1]);
    ::close(executed_[1]);  // the child's goes with the exec
    ::close(fd_);
  }

  // By the program that has the connection now, up to the end.
  void AllArrives() const {
    std::size_t total = 0;
    char block[4096];
    for (ssize_t got; (got = ::read(counted_[0], block, sizeof block)) > 0; total += static_cast<std::size_t>(got)) {
      for (ssize_t i = 0; i < got; ++i) {
        const std::uint64_t at = moved_ + kProof + kRead + total + static_cast<std::size_t>(i);
        ASSERT_EQ(static_cast<std::uint8_t>(block[i]), PatternAt(at)) << at;
      }
    }
    EXPECT_EQ(total, sent_ - kRead);
    ::close(counted_[0]);
    ::close(executed_[0]);
    EXPECT_EQ(Wait(child_), 0);
  }

  static constexpr std::size_t kProof = 1200000, kFirst = 40000, kRead = 70000, kBehind = 1000;
  int counted_[2] = {-1, -1};
  int executed_[2] = {-1, -1};
  pid_t child_ = -1;
  std::size_t sent_ = 0;
  std::uint64_t read_ = kProof + kRead;  // since then
};

TEST_F(BehindUnreadTest, AHandOverWhileThePeerSends) {
  HandOver();
  for (pollfd item = {executed_[0], POLLIN, 0}; ::poll(&item, 1, 0) == 0;) Send(1);
  Close();
  AllArrives();
}

TEST_F(BehindUnreadTest, AHandOverAfterThePeersEnd) {
  Close();
  HandOver();
  AllArrives();
}

TEST_F(BehindUnreadTest, AHandOverAfterThePeerHasOutgrownTheRing) {
  Send(kFirst);
  Send(kFirst);
  Send(kFirst);
  HandOver();
  for (pollfd item = {executed_[0], POLLIN, 0}; ::poll(&item, 1, 0) == 0;) Send(1);
  Close();
  AllArrives();
}

TEST_F(BehindUnreadTest, ThisProgramReadsItAll) {
  for (int round = 0; round < 3; ++round) {
    std::vector<std::uint8_t> bytes(sent_ - (round == 0 ? kRead : 0));
    ASSERT_TRUE(ReadAll(fd_, bytes.data(), bytes.size()));
    for (std::size_t i = 0; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], PatternAt(moved_ + read_ + i)) << round;
    read_ += bytes.size();
    sent_ = 0;
    Send(kFirst);
    Send(kFirst);
  }
  Close();
}

TEST_F(LifecycleTest, SystemInherits) {
  BeginStream();
  ASSERT_EQ(::fcntl(fd_, F_SETFD, 0), 0);
  const std::string command = "cat <&" + std::to_string(fd_) + " >&" + std::to_string(fd_);
  const pid_t closer = ::fork();  // system waits for the end of what it started, and the stream must be fed meanwhile
  if (closer == 0) ::_exit(::system(command.c_str()) == 0 ? 0 : 1);
  ::close(fd_);
  StreamEnds();
  EXPECT_EQ(Wait(closer), 0);
}

TEST_F(LifecycleTest, PassedToAStranger) {
  BeginStream();
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const char* const words[] = {"--receiver", nullptr};
  const pid_t stranger = StartSelf(words, -1, -1, ends[1], false);
  ::close(ends[1]);
  char byte = 'x';
  iovec part = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd_, sizeof fd_);
  ASSERT_EQ(::sendmsg(ends[0], &message, 0), 1);
  ::close(fd_);
  StreamEnds();
  EXPECT_EQ(Wait(stranger), 0);
  ::close(ends[0]);
}

TEST_F(LifecycleTest, StdioOnASocket) {
  peer_->Tell("stream 6400");
  pollfd item = {fd_, POLLIN, 0};
  EXPECT_EQ(::poll(&item, 1, 10000), 1);
  FILE* in = ::fdopen(fd_, "r");
  FILE* out = ::fdopen(::dup(fd_), "w");
  ASSERT_TRUE(in != nullptr && out != nullptr);
  for (int i = 0; i < 100; ++i) {
    char bytes[64];
    ASSERT_EQ(std::fread(bytes, 1, sizeof bytes, in), sizeof bytes);
    ASSERT_EQ(std::fwrite(bytes, 1, sizeof bytes, out), sizeof bytes);
  }
  ASSERT_GT(::dprintf(fd_, "%s", ""), -1);
  std::fclose(out);
  EXPECT_EQ(peer_->Answer(), "ok");
  std::fclose(in);
  PeerSees("eof");
}

TEST_F(LifecycleTest, ExecWithoutTheSocketChangesNothing) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl("/bin/true", "true", static_cast<char*>(nullptr));
    ::_exit(126);
  }
  EXPECT_EQ(Wait(child), 0);
  GoesOn();
  ::close(fd_);
  PeerSees("eof");
}

TEST_F(LifecycleTest, AFailedExecChangesNothing) {
  EXPECT_EQ(::execl("/nonexistent/program", "program", static_cast<char*>(nullptr)), -1);
  EXPECT_EQ(errno, ENOENT);
  GoesOn();
  ::close(fd_);
  PeerSees("eof");
}

TEST_F(LifecycleTest, ParentAndChildTakeTurns) {
  int turn[2];
  ASSERT_EQ(::pipe2(turn, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char go = 0;
    for (int i = 0; i < 3; ++i) {
      if (::read(turn[0], &go, 1) != 1 || !Echo(fd_, kStream)) ::_exit(1);
    }
    ::_exit(0);
  }
  for (int i = 0; i < 3; ++i) {
    GoesOn();
    peer_->Tell("stream " + std::to_string(kStream));
    ASSERT_EQ(::write(turn[1], "x", 1), 1);
    ASSERT_EQ(peer_->Answer(), "ok");  // the child has written it all, and reads no more
  }
  EXPECT_EQ(Wait(child), 0);
  GoesOn();
  ::close(fd_);
  PeerSees("eof");
  ::close(turn[0]);
  ::close(turn[1]);
}

TEST_F(LifecycleTest, AChildServesAndTheParentCloses) {
  BeginStream();
  const pid_t child = ::fork();
  if (child == 0) ::_exit(EchoAll(fd_) ? 0 : 1);
  ::close(fd_);
  StreamEnds();
  EXPECT_EQ(Wait(child), 0);
}

TEST_F(LifecycleTest, TheLastOfSeveralHoldersEndsTheStream) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(Echo(fd_, kStream) ? 0 : 1);
  peer_->Tell("stream " + std::to_string(kStream));
  EXPECT_EQ(peer_->Answer(), "ok");
  EXPECT_EQ(Wait(child), 0);
  GoesOn();  // the child's end was not the stream's
  ::close(fd_);
  PeerSees("eof");
}

TEST_F(LifecycleTest, Daemon) {
  BeginStream();
  const pid_t child = ::fork();
  if (child == 0) {
    if (::daemon(1, 1) != 0) ::_exit(1);
    ::_exit(EchoAll(fd_) ? 0 : 1);
  }
  EXPECT_EQ(Wait(child), 0);  // daemon(3)'s parent
  ::close(fd_);
  StreamEnds();
}

TEST_F(LifecycleTest, CopiesAreTheSameConnection) {
  const int copy = ::dup(fd_);
  const int high = ::fcntl(fd_, F_DUPFD_CLOEXEC, 100);
  ASSERT_GE(high, 100);
  ::close(fd_);
  fd_ = copy;
  GoesOn();
  ::close(copy);
  fd_ = high;
  GoesOn();
  ASSERT_EQ(::dup3(high, 150, O_CLOEXEC), 150);
  ASSERT_EQ(::dup2(high, high), high);
  EXPECT_EQ(::dup2(-1, high), -1);  // closes nothing
  EXPECT_EQ(errno, EBADF);
  ::close(high);
  fd_ = 150;
  GoesOn();
  ::close(150);
  PeerSees("eof");
}

TEST_F(LifecycleTest, Dup2OntoAConnectionClosesIt) {
  std::unique_ptr<Peer> other;
  int other_fd = -1;
  Meet(&other, &other_fd);
  ASSERT_EQ(::dup2(other_fd, fd_), fd_);
  PeerSees("eof");
  other->Tell("stream 5000");
  EXPECT_TRUE(Echo(fd_, 5000));
  EXPECT_EQ(other->Answer(), "ok");
  ::close(other_fd);
  ::close(fd_);
  other->Tell("eof");
  EXPECT_EQ(other->Answer(), "ok");
}

TEST_F(LifecycleTest, UnreadBytesAtCloseAreAReset) {
  peer_->Tell("send 1000");
  ASSERT_EQ(peer_->Answer(), "ok");
  char byte = 0;
  ASSERT_EQ(::recv(fd_, &byte, 1, 0), 1);
  ::close(fd_);
  PeerSees("reset");
}

TEST_F(LifecycleTest, UnreadBytesAtDup2AreAReset) {
  peer_->Tell("send 1000");
  ASSERT_EQ(peer_->Answer(), "ok");
  char byte = 0;
  ASSERT_EQ(::recv(fd_, &byte, 1, 0), 1);
  ASSERT_EQ(::dup2(2, fd_), fd_);
  PeerSees("reset");
  ::close(fd_);
}

TEST_F(LifecycleTest, UnreadBytesAtExitAreAReset) {
  const pid_t child = ::fork();
  if (child == 0) {
    char byte = 0;
    if (::recv(fd_, &byte, 1, 0) != 1) ::_exit(1);
    // The rest must be there before the end: the peer has said so through the parent, which writes to nobody but waits for us.
    for (int queued = 0; queued != 999;) ::ioctl(fd_, FIONREAD, &queued);
    ::_exit(0);
  }
  ::close(fd_);
  peer_->Tell("send 1000");
  ASSERT_EQ(peer_->Answer(), "ok");
  EXPECT_EQ(Wait(child), 0);
  PeerSees("reset");
}

TEST_F(LifecycleTest, CloseRangeAndCloseFrom) {
  std::unique_ptr<Peer> other;
  int other_fd = -1;
  Meet(&other, &other_fd);
  const int low = ::fcntl(fd_, F_DUPFD, 300);
  const int high = ::fcntl(other_fd, F_DUPFD, 310);
  ::close(fd_);
  ::close(other_fd);
  ASSERT_EQ(::close_range(300, 400, CLOSE_RANGE_CLOEXEC), 0);
  fd_ = low;
  GoesOn();
  ASSERT_EQ(::close_range(300, 305, 0), 0);
  PeerSees("eof");
  EXPECT_EQ(::fcntl(low, F_GETFD), -1);
  other->Tell("stream 5000");
  EXPECT_TRUE(Echo(high, 5000));
  EXPECT_EQ(other->Answer(), "ok");
  ::closefrom(306);
  other->Tell("eof");
  EXPECT_EQ(other->Answer(), "ok");
  EXPECT_EQ(::close_range(10, 5, 0), -1);
  EXPECT_EQ(errno, EINVAL);
  // The shim's own descriptors have survived: another connection works as well as the first.
  Meet(&peer_, &fd_);
  GoesOn();
  ::close(fd_);
  PeerSees("eof");
}

TEST_F(LifecycleTest, QueueSizesCountPayload) {
  peer_->Tell("send 5000");
  ASSERT_EQ(peer_->Answer(), "ok");
  int queued = 0;
  while (queued != 5000) ASSERT_EQ(::ioctl(fd_, FIONREAD, &queued), 0);
  tcp_info info{};
  socklen_t size = sizeof info;
  ASSERT_EQ(::getsockopt(fd_, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
  const std::uint64_t so_far = moved_;
  EXPECT_EQ(info.tcpi_bytes_received, so_far + 5000);
  char bytes[5000];
  ASSERT_TRUE(ReadAll(fd_, bytes, sizeof bytes));
  ASSERT_EQ(::ioctl(fd_, FIONREAD, &queued), 0);
  EXPECT_EQ(queued, 0);
  ASSERT_TRUE(WriteAll(fd_, bytes, sizeof bytes));
  peer_->Tell("recv 5000");
  ASSERT_EQ(peer_->Answer(), "ok");
  int untaken = 1;
  while (untaken != 0) ASSERT_EQ(::ioctl(fd_, SIOCOUTQ, &untaken), 0);
  size = sizeof info;
  ASSERT_EQ(::getsockopt(fd_, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
  EXPECT_EQ(info.tcpi_bytes_acked, so_far + 5000);
  int error = -1;
  size = sizeof error;
  ASSERT_EQ(::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size), 0);
  EXPECT_EQ(error, 0);
  ::close(fd_);
}

TEST_F(LifecycleTest, OptionsReadBackAsSet) {
  for (const int name : {TCP_NODELAY, TCP_CORK}) {
    for (const int wanted : {1, 0}) {
      ASSERT_EQ(::setsockopt(fd_, IPPROTO_TCP, name, &wanted, sizeof wanted), 0);
      int value = -1;
      socklen_t size = sizeof value;
      ASSERT_EQ(::getsockopt(fd_, IPPROTO_TCP, name, &value, &size), 0);
      EXPECT_EQ(value != 0, wanted != 0) << name;
    }
  }
  GoesOn();
  const int low_water = 100;  // from here on it is TCP that decides when a receive is worth it
  peer_->Tell("recv 1");      // it waits on the socket while the option takes the connection down
  ASSERT_EQ(::setsockopt(fd_, SOL_SOCKET, SO_RCVLOWAT, &low_water, sizeof low_water), 0);
  const std::uint8_t next = PatternAt(moved_ + kStream);
  ASSERT_EQ(::send(fd_, &next, 1, 0), 1);
  ASSERT_EQ(peer_->Answer(), "ok");
  peer_->Tell("send 99");
  ASSERT_EQ(peer_->Answer(), "ok");
  pollfd item = {fd_, POLLIN, 0};
  EXPECT_EQ(::poll(&item, 1, 50), 0);
  peer_->Tell("send 1");
  EXPECT_EQ(::poll(&item, 1, 10000), 1);
  ::close(fd_);
}

// A call that only TCP can serve, while another thread is in the middle of a blocking call.
class LeaveMeanwhile {
 public:
  LeaveMeanwhile(int fd, std::uint64_t so_far) : fd_(fd), so_far_(so_far) {}
  void operator()() const {
    for (tcp_info info{}; info.tcpi_bytes_acked + info.tcpi_bytes_received < so_far_ + 100000;) {
      socklen_t size = sizeof info;
      ASSERT_EQ(::getsockopt(fd_, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
    }
    const int low_water = 2;
    ASSERT_EQ(::setsockopt(fd_, SOL_SOCKET, SO_RCVLOWAT, &low_water, sizeof low_water), 0);
  }

 private:
  int fd_;
  std::uint64_t so_far_;
};

constexpr std::size_t kLongCall = 64 << 20;  // it takes longer than to leave a ring

TEST_F(LifecycleTest, ABlockingSendIsWholeThoughTheRingIsLeftMeanwhile) {
  std::vector<std::uint8_t> bytes(kLongCall);
  for (std::size_t i = 0; i < kLongCall; ++i) bytes[i] = PatternAt(moved_ + i);
  peer_->Tell("recv " + std::to_string(kLongCall));
  std::thread leaver(LeaveMeanwhile(fd_, 2 * moved_));
  iovec parts[100];  // more than are looked at in one attempt
  for (std::size_t i = 0; i < 100; ++i) {
    const std::size_t from = kLongCall * i / 100;
    parts[i] = {bytes.data() + from, kLongCall * (i + 1) / 100 - from};
  }
  EXPECT_EQ(::writev(fd_, parts, 100), static_cast<ssize_t>(kLongCall));
  leaver.join();
  EXPECT_EQ(peer_->Answer(), "ok");
  ::close(fd_);
  PeerSees("eof");
}

TEST_F(LifecycleTest, AReceiveOfAllIsWholeThoughTheRingIsLeftMeanwhile) {
  std::vector<std::uint8_t> bytes(kLongCall);
  peer_->Tell("send " + std::to_string(kLongCall));
  std::thread leaver(LeaveMeanwhile(fd_, 2 * moved_));
  EXPECT_EQ(::recv(fd_, bytes.data(), kLongCall, MSG_WAITALL), static_cast<ssize_t>(kLongCall));
  leaver.join();
  EXPECT_EQ(peer_->Answer(), "ok");
  for (std::size_t i = 0; i < kLongCall; ++i) ASSERT_EQ(bytes[i], PatternAt(moved_ + i)) << i;
  ::close(fd_);
  PeerSees("eof");
}

volatile sig_atomic_t alarms;
int alarm_fd;

// Signals until stopped: the first may come before the wait it is to interrupt.
void EveryTick(bool on) {
  const itimerval ticks = {{0, on ? 5000 : 0}, {0, on ? 5000 : 0}};
  ::setitimer(ITIMER_REAL, &ticks, nullptr);
}

TEST_F(LifecycleTest, AHandlerWithoutRestartEndsAWait) {
  struct sigaction action = {};
  action.sa_handler = [](int) { alarms = alarms + 1; };
  ASSERT_EQ(::sigaction(SIGALRM, &action, nullptr), 0);
  EveryTick(true);
  char byte = 0;
  EXPECT_EQ(::recv(fd_, &byte, 1, 0), -1);
  EXPECT_EQ(errno, EINTR);
  EveryTick(false);
  ::signal(SIGALRM, SIG_IGN);
  GoesOn();
  ::close(fd_);
}

TEST_F(LifecycleTest, AHandlerWithRestartDoesNot) {
  int orders[2];
  ASSERT_EQ(::pipe2(orders, O_CLOEXEC), 0);
  alarm_fd = orders[1];
  alarms = 0;
  const auto handler = [](int) {
    alarms = alarms + 1;
    if (alarms == 5) (void)!::write(alarm_fd, "x", 1);
  };
#if defined(__SANITIZE_THREAD__)
  // ThreadSanitizer's signal(2) does not restart.
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  ASSERT_EQ(::sigaction(SIGALRM, &action, nullptr), 0);
#else
  ::signal(SIGALRM, handler);  // restarts
#endif
  const pid_t teller = ::fork();
  if (teller == 0) {  // no byte comes before five signals have
    char go = 0;
    if (::read(orders[0], &go, 1) == 1) peer_->Tell("send 1");
    ::_exit(0);
  }
  EveryTick(true);
  char byte = 0;
  EXPECT_EQ(::recv(fd_, &byte, 1, 0), 1);
  EveryTick(false);
  ::signal(SIGALRM, SIG_IGN);
  EXPECT_GE(alarms, 5);
  EXPECT_EQ(Wait(teller), 0);
  EXPECT_EQ(peer_->Answer(), "ok");
  ::close(orders[0]);
  ::close(orders[1]);
  ::close(fd_);
}

}  // namespace
}  // namespace vsocket::shim

int main(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "--peer") == 0) return vsocket::shim::RunPeer(argv[2], argv[3]);
  if (argc == 2 && std::strcmp(argv[1], "--receiver") == 0) return vsocket::shim::RunReceiver(3);
  vsocket::shim::KeepShim();
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
