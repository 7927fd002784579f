// Agents of one process, over real loopback TLS: everything but the kernel sockets of pods, which are only named.
#include "node-agent/peer/peers.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <ctime>
#include <mutex>
#include <thread>

#include "base/unique_fd.h"
#include "node-agent/peer/testing/certificates.h"
#include "node-agent/peer/testing/fake_host.h"

namespace vsocket::peer {
namespace {

using namespace std::chrono_literals;
using channel::Reason;
using testing::Authority;
using testing::CertificateWish;
using testing::ClientEnd;
using testing::EndOf;
using testing::Ip;
using testing::Replace;
using testing::ServerEnd;
using testing::WishOf;

constexpr auto kLong = 30s;  // for what must come; on a busy machine

// A FakeHost that can be waited for.
class Host final : public model::PeerHost {
 public:
  std::optional<model::PeerRefusal> Judge(const model::PeerEnd& own, const model::PeerEnd& far) override {
    const std::lock_guard lock(mutex_);
    return fake_.Judge(own, far);
  }
  std::optional<std::string> Prepare(const model::PeerChannel& channel, const model::PeerEnd& own, const model::PeerEnd& far,
                                     const std::string& transport, const std::string* far_setup, model::PeerRefusal* why) override {
    const std::lock_guard lock(mutex_);
    return fake_.Prepare(channel, own, far, transport, far_setup, why);
  }
  bool Complete(const model::PeerChannel& channel, const std::string& far_setup) override {
    const std::lock_guard lock(mutex_);
    return fake_.Complete(channel, far_setup);
  }
  void Granted(const model::PeerChannel& channel) override {
    Change([&] { fake_.Granted(channel); });
  }
  void Closed(const model::PeerChannel& channel, const model::PeerRefusal& why) override {
    Change([&] { fake_.Closed(channel, why); });
  }
  void Refused(const model::PeerEnd& own, const model::PeerRefusal& why) override {
    Change([&] { fake_.Refused(own, why); });
  }
  void Noted(const model::PeerChannel& channel, const model::PeerNote& note) override {
    Change([&] { fake_.Noted(channel, note); });
  }
  void PeerUp(const std::string& node, std::uint64_t instance, const std::string& transport) override {
    Change([&] { fake_.PeerUp(node, instance, transport); });
  }
  void PeerDown(const std::string& node, const std::string& why) override {
    Change([&] { fake_.PeerDown(node, why); });
  }
  void LinkSetup(const std::string& node, const std::string& transport, const std::string& data) override {
    Change([&] { fake_.LinkSetup(node, transport, data); });
  }

  template <typename Predicate>
  bool WaitFor(Predicate predicate, std::chrono::seconds limit = kLong) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, limit, [&] { return predicate(fake_); });
  }
  // Whether `part` has been told, `times` times.
  bool WaitHeard(const std::string& part, std::size_t times = 1) {
    return WaitFor([&](const testing::FakeHost& fake) {
      std::size_t count = 0;
      for (const auto& line : fake.told) count += line.find(part) != std::string::npos ? 1 : 0;
      return count >= times;
    });
  }
  std::string Told() {
    const std::lock_guard lock(mutex_);
    std::string all;
    for (const auto& line : fake_.told) all += line + "\n";
    return all;
  }

 private:
  template <typename Function>
  void Change(Function function) {
    const std::lock_guard lock(mutex_);
    function();
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  testing::FakeHost fake_;
};

// What an agent says in its log.
class Words {
 public:
  void Say(const std::string& line) {
    const std::lock_guard lock(mutex_);
    lines_ += line + "\n";
    changed_.notify_all();
  }
  bool WaitFor(const std::string& part) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kLong, [&] { return lines_.find(part) != std::string::npos; });
  }
  std::string All() {
    const std::lock_guard lock(mutex_);
    return lines_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string lines_;
};

// One agent with its files.
struct Agent {
  Agent(const std::string& name, const std::filesystem::path& folder) : node(name), files(folder / name) {
    std::filesystem::create_directories(files);
    options.node = name;
    options.trust_domain = "test.local";
    options.listen = "127.0.0.1:0";
    options.certificate_file = files / "tls.crt";
    options.key_file = files / "tls.key";
    options.roots_file = files / "ca.crt";
    options.agent_version = "1.0-" + name;
    options.instance = 100 + static_cast<unsigned char>(name[0]);
    options.transports = {"verbs"};
    options.heartbeat_ms = 100;
    options.silence_ms = 10'000;
    options.first_retry_ms = 20;
    options.longest_retry_ms = 200;
    options.say = [this](const std::string& line) { words.Say(line); };
  }
  void Use(const testing::Pair& pair, const std::string& roots) const {
    Replace(options.key_file, pair.key);
    Replace(options.certificate_file, pair.certificate);
    Replace(options.roots_file, roots);
  }
  void Start() {
    auto started = Peers::Start(options, host);
    ASSERT_TRUE(started) << started.Error();
    peers = std::move(started.Value());
    options.listen = "127.0.0.1:" + std::to_string(peers->Port());  // the same one after a restart
  }
  [[nodiscard]] model::NodeAgent Address() const { return {node, options.listen, {}}; }
  std::string StateOf(const std::string& far) const {
    for (const auto& info : peers->List()) {
      if (info.node == far) return info.state;
    }
    return "unknown";
  }

  const std::string node;
  const std::filesystem::path files;
  PeersOptions options;
  Host host;
  Words words;
  std::unique_ptr<Peers> peers;
};

class PeersTest : public ::testing::Test {
 protected:
  PeersTest() : folder_(std::filesystem::temp_directory_path() / ("vsocket-peers-" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(folder_);
    a.emplace("a", folder_);
    b.emplace("b", folder_);
    a->Use(authority.Sign(WishOf("a")), authority.Pem());
    b->Use(authority.Sign(WishOf("b")), authority.Pem());
  }
  ~PeersTest() override {
    a.reset();
    b.reset();
    std::filesystem::remove_all(folder_);
  }
  static std::vector<model::Shared<model::Pod>> Pods() {
    std::vector<model::Shared<model::Pod>> pods;
    for (const auto& [ip, place] : testing::TwoNodes().pods) {
      model::Pod pod;
      pod.ns = "shop";
      pod.name = place.pod.substr(5);
      pod.node = place.node;
      pod.ips = {ip};
      pods.emplace_back(pod);
    }
    return pods;
  }
  void Tell() {
    for (Agent* agent : {&*a, &*b}) {
      if (agent->peers) agent->peers->SetCluster(Directory(Pods(), {a->Address(), b->Address()}));
    }
  }
  void Start() {
    a->Start();
    b->Start();
    Tell();
  }
  void Connect() {
    Start();
    ASSERT_TRUE(a->host.WaitHeard("up b by verbs")) << a->words.All() << b->words.All();
    ASSERT_TRUE(b->host.WaitHeard("up a by verbs")) << b->words.All();
  }
  void Grant(std::uint16_t port) {
    a->peers->Ask(ClientEnd(port));
    b->peers->Ask(ServerEnd(port));
  }

  const std::filesystem::path folder_;
  Authority authority{"authority"};
  std::optional<Agent> a, b;
};

TEST_F(PeersTest, TwoAgentsAgreeOnAChannel) {
  Connect();
  Grant(40000);
  ASSERT_TRUE(a->host.WaitHeard("granted b/1")) << a->host.Told();
  ASSERT_TRUE(b->host.WaitHeard("granted a/1")) << b->host.Told();
  const auto info = a->peers->List().at(0);
  EXPECT_EQ(info.state, "connected");
  EXPECT_EQ(info.version, "1.0-b");
  EXPECT_EQ(info.transport, "verbs");
  EXPECT_EQ(info.channels, 1U);
  const model::PeerNote note{model::PeerNote::Kind::kEofAnswer, 2, 12345, 1};
  b->peers->Send({"a", 1}, note);
  EXPECT_TRUE(a->host.WaitFor([&](const auto& fake) { return fake.notes == std::vector{note}; }));
  a->peers->SendLink("b", "queue pairs");
  EXPECT_TRUE(b->host.WaitHeard("link a verbs queue pairs"));
  a->peers->CloseChannel({"b", 1}, Reason::kClosing);
  EXPECT_TRUE(b->host.WaitHeard("closed a/1: closed by node a"));
}

TEST_F(PeersTest, ThousandsAtOnce) {
  Connect();
  constexpr std::uint16_t kMany = 3000;
  for (std::uint16_t port = 1; port <= kMany; ++port) Grant(port);
  const auto all = [](const auto& fake) { return fake.granted.size() == kMany; };
  EXPECT_TRUE(a->host.WaitFor(all));
  EXPECT_TRUE(b->host.WaitFor(all));
}

TEST_F(PeersTest, ACertificateOfAnotherNodeThanTheOneCalled) {
  b->Use(authority.Sign(WishOf("c")), authority.Pem());
  Start();
  EXPECT_TRUE(b->words.WaitFor("own certificate: the certificate is that of node c, this is node b"));
  EXPECT_TRUE(a->words.WaitFor("the certificate is that of node c, the one called is node b")) << a->words.All();
  EXPECT_EQ(a->host.Told(), "");
  EXPECT_GT(a->peers->Counters().refused_certificates, 0U);
}

TEST_F(PeersTest, ACallerWithTheCertificateOfAnotherNode) {
  // What c says, it says as c: nothing of a's is its to touch, and b knows no node c.
  a->Use(authority.Sign(WishOf("c")), authority.Pem());
  Start();
  EXPECT_TRUE(a->words.WaitFor("node b knows no node c")) << a->words.All();
  EXPECT_EQ(b->host.Told(), "");
}

TEST_F(PeersTest, AnAuthorityThatIsNotTrusted) {
  Authority other("other");
  a->Use(other.Sign(WishOf("a")), authority.Pem());
  Start();
  EXPECT_TRUE(b->words.WaitFor("certificate refused: the certificate of node a: unable to get local issuer certificate")) << b->words.All();
  EXPECT_EQ(a->host.Told() + b->host.Told(), "");
}

TEST_F(PeersTest, AnExpiredCertificateIsRefusedInWordsAndANewOneTakenWithoutARestart) {
  CertificateWish expired = WishOf("b");
  expired.ends_in = -60;
  b->Use(authority.Sign(expired), authority.Pem());
  Start();
  EXPECT_TRUE(a->words.WaitFor("the certificate of node b: certificate has expired on 20")) << a->words.All();
  EXPECT_EQ(a->host.Told(), "");
  b->Use(authority.Sign(WishOf("b")), authority.Pem());
  EXPECT_TRUE(a->host.WaitHeard("up b by verbs")) << a->words.All();
}

TEST_F(PeersTest, ACertificateThatRunsOutEndsTheStreamAndTheNextOneBringsItBack) {
  CertificateWish brief = WishOf("b");
  brief.ends_in = 3;
  b->Use(authority.Sign(brief), authority.Pem());
  Connect();
  Grant(40000);
  ASSERT_TRUE(a->host.WaitHeard("granted b/1"));
  EXPECT_TRUE(a->words.WaitFor("its certificate has run out")) << a->words.All();
  EXPECT_TRUE(a->words.WaitFor("certificate has expired on")) << a->words.All();
  b->Use(authority.Sign(WishOf("b")), authority.Pem());
  EXPECT_TRUE(a->host.WaitHeard("up b by verbs", 2)) << a->words.All();
  EXPECT_EQ(a->host.Told().find("closed b/1"), std::string::npos) << "the channel in use has outlived it";
}

TEST_F(PeersTest, RotationDropsNothing) {
  Connect();
  Grant(40000);
  ASSERT_TRUE(a->host.WaitHeard("granted b/1"));
  // A new authority comes in beside the old one, then new certificates, then the old authority goes.
  Authority next("next");
  const auto old_a = authority.Sign(WishOf("a")), old_b = authority.Sign(WishOf("b"));
  a->Use(old_a, authority.Pem() + next.Pem());
  b->Use(old_b, authority.Pem() + next.Pem());
  a->Use(next.Sign(WishOf("a")), authority.Pem() + next.Pem());
  b->Use(next.Sign(WishOf("b")), authority.Pem() + next.Pem());
  a->Use(next.Sign(WishOf("a")), next.Pem());
  b->Use(next.Sign(WishOf("b")), next.Pem());
  Grant(40001);
  EXPECT_TRUE(b->host.WaitHeard("granted a/2"));
  EXPECT_EQ(a->host.Told().find("down"), std::string::npos);
  EXPECT_EQ(a->peers->Counters().sessions, 1U);
  // The next stream is made with what is there now: an agent that trusts the new authority alone is let in.
  a->peers.reset();
  a->options.instance = 999;
  a->Start();
  Tell();
  EXPECT_TRUE(b->host.WaitHeard("up a by verbs", 2)) << b->words.All();
}

TEST_F(PeersTest, VersionsThatDoNotOverlap) {
  a->options.min_version = 2;
  a->options.max_version = 3;
  Start();
  EXPECT_TRUE(a->words.WaitFor("node b speaks version 1 of the protocol, node a 2 to 3")) << a->words.All();
  EXPECT_EQ(a->host.Told() + b->host.Told(), "");
}

TEST_F(PeersTest, VersionsThatDoOverlapWhileANodeIsUpgraded) {
  a->options.max_version = 3;
  Connect();
}

TEST_F(PeersTest, APeerThatIsKilledIsCalledAgain) {
  Connect();
  Grant(40000);
  ASSERT_TRUE(a->host.WaitHeard("granted b/1"));
  b->peers.reset();
  ASSERT_TRUE(a->host.WaitHeard("down b")) << a->host.Told();
  b->options.instance = 1234;
  b->Start();
  Tell();
  EXPECT_TRUE(a->host.WaitHeard("up b by verbs", 2)) << a->words.All();
  EXPECT_TRUE(a->host.WaitHeard("closed b/1: the agent of node b has been restarted"));
  Grant(40000);
  EXPECT_TRUE(a->host.WaitHeard("granted b/2")) << a->host.Told();
}

TEST_F(PeersTest, TheCallerIsKilled) {
  Connect();
  a->peers.reset();
  ASSERT_TRUE(b->host.WaitHeard("down a")) << b->host.Told();
  a->options.instance = 1234;
  a->Start();
  Tell();
  EXPECT_TRUE(b->host.WaitHeard("up a by verbs", 2)) << b->words.All();
}

TEST_F(PeersTest, ANodeThatLeavesTheClusterIsNotSpokenToAnyMore) {
  Connect();
  a->peers->SetCluster(Directory(Pods(), {a->Address()}));
  EXPECT_TRUE(b->host.WaitHeard("down a: the other agent says: the node is not in the cluster any more")) << b->host.Told();
  EXPECT_TRUE(a->peers->List().empty());
}

TEST_F(PeersTest, AnEndOfAPodElsewhereIsRefusedWithTheReason) {
  Connect();
  a->peers->Ask(EndOf("a1", "10.1.0.1", 4, "8.8.8.8", 53));
  EXPECT_TRUE(a->host.WaitHeard("refused shop/a1: 8.8.8.8 is no pod's"));
}

TEST_F(PeersTest, WhatIsNoTlsGetsNowhere) {
  b->Start();
  b->peers->SetCluster(Directory(Pods(), {a->Address(), b->Address()}));
  UniqueFd client(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(b->peers->Port());
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(client.Get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const char request[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  ASSERT_GT(::write(client.Get(), request, sizeof(request)), 0);
  // The server ends it: an alert perhaps, then the end.
  char answer[4096];
  ssize_t got = 0;
  do {
    got = ::read(client.Get(), answer, sizeof(answer));
  } while (got > 0);
  EXPECT_EQ(b->host.Told(), "");
  EXPECT_EQ(b->peers->Counters().sessions, 0U);
}

// A relay of bytes between a and b that can stop relaying without closing: a half-open connection, a cable that is cut.
class Relay {
 public:
  explicit Relay(std::uint16_t target) : target_(target), listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = Loopback(0);
    ::bind(listener_.Get(), reinterpret_cast<sockaddr*>(&address), sizeof(address));
    ::listen(listener_.Get(), 16);
    socklen_t size = sizeof(address);
    ::getsockname(listener_.Get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    accepting_ = std::thread([this] { Accept(); });
  }
  ~Relay() {
    ::shutdown(listener_.Get(), SHUT_RDWR);
    accepting_.join();
    for (const auto& fd : fds_) ::shutdown(fd->Get(), SHUT_RDWR);
    for (auto& thread : pumps_) thread.join();
  }
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;
  [[nodiscard]] std::uint16_t Port() const { return port_; }
  void Cut(bool cut) { cut_ = cut; }

 private:
  static sockaddr_in Loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }
  void Accept() {
    while (true) {
      auto from = std::make_shared<UniqueFd>(::accept(listener_.Get(), nullptr, nullptr));
      if (!from->Valid()) return;
      auto to = std::make_shared<UniqueFd>(::socket(AF_INET, SOCK_STREAM, 0));
      sockaddr_in address = Loopback(target_);
      if (::connect(to->Get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) continue;
      fds_.push_back(from);
      fds_.push_back(to);
      pumps_.emplace_back([this, from, to] { Pump(from->Get(), to->Get()); });
      pumps_.emplace_back([this, from, to] { Pump(to->Get(), from->Get()); });
    }
  }
  void Pump(int from, int to) const {
    char bytes[65536];
    ssize_t got = 0;
    while ((got = ::read(from, bytes, sizeof(bytes))) > 0) {
      if (cut_) continue;  // lost
      for (ssize_t sent = 0; sent < got;) {
        const ssize_t now = ::send(to, bytes + sent, static_cast<std::size_t>(got - sent), MSG_NOSIGNAL);
        if (now <= 0) return;
        sent += now;
      }
    }
    ::shutdown(to, SHUT_RDWR);
  }
  const std::uint16_t target_;
  UniqueFd listener_;
  std::uint16_t port_ = 0;
  std::atomic<bool> cut_{false};
  std::vector<std::shared_ptr<UniqueFd>> fds_;
  std::vector<std::thread> pumps_;
  std::thread accepting_;
};

TEST_F(PeersTest, SilenceIsNoticedByBothAndTheyComeBack) {
  a->options.silence_ms = b->options.silence_ms = 600;
  a->Start();
  b->Start();
  Relay relay(b->peers->Port());
  model::NodeAgent through = b->Address();
  through.endpoint = "127.0.0.1:" + std::to_string(relay.Port());
  a->peers->SetCluster(Directory(Pods(), {a->Address(), through}));
  b->peers->SetCluster(Directory(Pods(), {a->Address(), b->Address()}));
  ASSERT_TRUE(a->host.WaitHeard("up b by verbs")) << a->words.All();
  ASSERT_TRUE(b->host.WaitHeard("up a by verbs"));
  Grant(40000);
  ASSERT_TRUE(b->host.WaitHeard("granted a/1"));
  relay.Cut(true);
  EXPECT_TRUE(a->host.WaitHeard("down b: nothing heard for")) << a->host.Told();
  EXPECT_TRUE(b->host.WaitHeard("down a: nothing heard for")) << b->host.Told();
  relay.Cut(false);
  EXPECT_TRUE(a->host.WaitHeard("up b by verbs", 2)) << a->words.All();
  EXPECT_EQ(a->host.Told().find("closed b/1"), std::string::npos) << "the channel was resumed";
}

}  // namespace
}  // namespace vsocket::peer
