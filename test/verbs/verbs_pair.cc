// Traffic over mirrored rings between two machines with real RDMA devices: one process on each plays the agent and the pods of its node.
// Every byte is checked. The two find each other by TCP, which carries nothing else.
//
//   verbs_pair listen PORT [options]          on one machine
//   verbs_pair connect HOST PORT [options]    on the other, with the same options
//
//   --connections N    1 (at most 1024)
//   --seconds S        5
//   --traffic KIND     mixed: both ways on all connections, 1 B to 64 KiB at a time
//                      pingpong: 64 bytes there and back on one connection, the others idle
//                      stream: one way on one connection
//                      idle: nothing, once all are up
//                      slow: as mixed, and the last connection's reader sleeps all the time: the others must not notice
//   --device NAME, --address IP, --gid-index I, --mtu 1..5, --timeout T, --retry R
//   --software         a software device is good enough
//   --spin-us U        0: the agents never poll for nothing
//   --pods-poll        the pods never sleep, so with --spin-us nobody need be woken
//
// Prints a line a result; exit status 0 when all bytes were right and the path held.
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "node-agent/transport/mirror/runner.h"
#include "node-agent/transport/mirror/testing/ring_end.h"
#include "node-agent/transport/region.h"
#include "node-agent/transport/verbs/verbs_device.h"

namespace vsocket::test {
namespace {

using transport::ConnectionSpec;
using transport::Link;
using transport::LinkAddress;
using transport::RingMemory;
using transport::testing::RingEnd;

constexpr std::uint32_t kMostConnections = 1024;
constexpr std::uint32_t kAgentObject = channel::kFirstWakeFd;
constexpr std::uint32_t kPodObject = channel::kFirstWakeFd + 1;

struct Options {
  bool listens = false;
  std::string host, port;
  std::uint32_t connections = 1;
  double seconds = 5;
  std::string traffic = "mixed";
  bool pods_poll = false;
  transport::DeviceWish wish;
  transport::MirrorOptions mirror;
};

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "verbs_pair: %s\n", why.c_str());
  std::exit(1);
}

std::uint64_t NowNs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000000000ULL + static_cast<std::uint64_t>(now.tv_nsec);
}

Options Parse(int count, char** arguments) {
  Options options;
  std::vector<std::string> words(arguments + 1, arguments + count);
  std::size_t at = 0;
  const auto next = [&]() -> std::string {
    if (at >= words.size()) Die("an argument is missing; see the head of verbs_pair.cc");
    return words[at++];
  };
  const std::string mode = next();
  options.listens = mode == "listen";
  if (!options.listens && mode != "connect") Die("listen or connect");
  if (!options.listens) options.host = next();
  options.port = next();
  while (at < words.size()) {
    const std::string name = next();
    const auto number = [&] { return std::strtoul(next().c_str(), nullptr, 10); };
    if (name == "--connections")
      options.connections = static_cast<std::uint32_t>(std::clamp<unsigned long>(number(), 1, kMostConnections));
    else if (name == "--seconds")
      options.seconds = std::strtod(next().c_str(), nullptr);
    else if (name == "--traffic")
      options.traffic = next();
    else if (name == "--device")
      options.wish.device = next();
    else if (name == "--address")
      options.wish.address = next();
    else if (name == "--gid-index")
      options.wish.gid_index = static_cast<int>(number());
    else if (name == "--mtu")
      options.wish.mtu = static_cast<std::uint8_t>(number());
    else if (name == "--timeout")
      options.wish.timeout = static_cast<std::uint8_t>(number());
    else if (name == "--retry")
      options.wish.retry_count = static_cast<std::uint8_t>(number());
    else if (name == "--software")
      options.wish.allow_software = true;
    else if (name == "--pods-poll")
      options.pods_poll = true;
    else if (name == "--spin-us")
      options.mirror.spin_ns = number() * 1000;
    else
      Die("unknown option " + name);
  }
  return options;
}

int Meet(const Options& options) {
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = options.listens ? AI_PASSIVE : 0;
  addrinfo* found = nullptr;
  if (::getaddrinfo(options.listens ? nullptr : options.host.c_str(), options.port.c_str(), &hints, &found) != 0) Die("no such address");
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> address(found, &::freeaddrinfo);
  const std::uint64_t give_up = NowNs() + 30ULL * 1000000000;
  for (;;) {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    if (options.listens) {
      ::setsockopt(fd.Get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
      if (::bind(fd.Get(), address->ai_addr, address->ai_addrlen) != 0 || ::listen(fd.Get(), 1) != 0) Die("cannot listen");
      return ::accept4(fd.Get(), nullptr, nullptr, SOCK_CLOEXEC);
    }
    if (::connect(fd.Get(), address->ai_addr, address->ai_addrlen) == 0) {
      ::setsockopt(fd.Get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      return fd.Release();
    }
    if (NowNs() > give_up) Die("nobody listens");
    const timespec pause = {0, 100000000};
    ::nanosleep(&pause, nullptr);
  }
}

// Both give and take the same number of bytes.
void Exchange(int fd, const void* mine, void* theirs, std::size_t size) {
  for (std::size_t done = 0; done < size;) {
    const ssize_t sent = ::send(fd, static_cast<const char*>(mine) + done, size - done, MSG_NOSIGNAL);
    if (sent <= 0) Die("the other side has gone");
    done += static_cast<std::size_t>(sent);
  }
  for (std::size_t done = 0; done < size;) {
    const ssize_t got = ::recv(fd, static_cast<char*>(theirs) + done, size - done, 0);
    if (got <= 0) Die("the other side has gone");
    done += static_cast<std::size_t>(got);
  }
}

void Ring(int fd) {
  const std::uint64_t one = 1;
  if (::write(fd, &one, sizeof one) < 0) Die("eventfd");
}

void Drain(int fd) {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto got = ::read(fd, &count, sizeof count);
}

// The node's part of the test: regions, link, agent thread.
class Node final : public transport::MirrorHost {
 public:
  Node(const Options& options, transport::Device* device) : options_(options), device_(device), runner_(*device, options.mirror) {
    agent_fd_.Reset(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    pod_fd_.Reset(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    const std::uint32_t regions = (options.connections + channel::kSlots - 1) / channel::kSlots;
    for (std::uint32_t i = 0; i < regions; ++i) {
      auto region = transport::Region::Create(i + 1, UINT64_MAX);
      if (!region) Die(region.Error().what);
      auto memory = RingMemory::Map(region.Value()->Fd(), Side(), *device);
      if (!memory) Die(memory.Error().what);
      void* map = ::mmap(nullptr, channel::kRegionBytes, PROT_READ | PROT_WRITE, MAP_SHARED, region.Value()->Fd(), 0);
      if (map == MAP_FAILED) Die("mmap");
      maps_.push_back(static_cast<std::byte*>(map));
      regions_.push_back(std::move(region.Value()));
      memories_.push_back(std::move(memory.Value()));
    }
    auto link = Link::Create(*device, *this, options.mirror);
    if (!link) Die(link.Error().what);
    link_ = std::move(link.Value());
    runner_.Add(link_.get());
  }

  void Connect(int fd) {
    struct Offer {
      LinkAddress link;
      std::uint64_t ring[kMostConnections];
      std::uint32_t key[kMostConnections];
    };
    const auto mine = std::make_unique<Offer>();
    const auto theirs = std::make_unique<Offer>();
    mine->link = link_->Local();
    const std::uint64_t begun = NowNs();
    for (std::uint32_t i = 0; i < options_.connections; ++i) {
      regions_[i / channel::kSlots]->PrepareSlot(i % channel::kSlots, 1);
      const auto rings = memories_[i / channel::kSlots]->Use(i % channel::kSlots);
      if (!rings) Die(rings.Error().what);
      mine->ring[i] = reinterpret_cast<std::uint64_t>(rings.Value().in);
      mine->key[i] = rings.Value().in_remote_key;
    }
    std::uint32_t registrations = 0;
    for (const auto& memory : memories_) registrations += memory->Registrations();
    const double took_ms = static_cast<double>(NowNs() - begun) / 1e6;
    std::printf("registered %u pieces for %u connections in %.1f ms\n", registrations, options_.connections, took_ms);
    Exchange(fd, mine.get(), theirs.get(), sizeof(Offer));
    const auto connected = link_->Connect(theirs->link, NowNs());
    if (!connected) Die(connected.Error().what);
    for (std::uint32_t i = 0; i < options_.connections; ++i) {
      ConnectionSpec spec;
      spec.number = static_cast<std::uint16_t>(i);
      spec.epoch = 1;
      spec.memory = memories_[i / channel::kSlots].get();
      spec.slot = i % channel::kSlots;
      spec.wake_target = kAgentObject;
      spec.path = 1;
      spec.far_ring = theirs->ring[i];
      spec.far_key = theirs->key[i];
      if (!link_->Open(spec)) Die("a connection cannot be opened");
    }
    std::uint8_t here = 1;
    std::uint8_t there = 0;
    Exchange(fd, &here, &there, 1);  // both have opened all
    thread_ = std::thread([this] { Loop(); });
  }

  // The pod's side of the wake object of its region.
  void RingAgent(std::uint32_t region) {
    auto& rung = memories_[region]->Header().rung[1 - Side()].object[kAgentObject - channel::kFirstWakeFd];
    if (rung.load(std::memory_order_relaxed) != 0) return;
    rung.store(1, std::memory_order_relaxed);
    Ring(agent_fd_.Get());
  }

  void Stop() {
    stop_.store(true, std::memory_order_release);
    Ring(agent_fd_.Get());
    thread_.join();
    device_->ClearNotifications();
  }

  [[nodiscard]] std::uint32_t Side() const { return options_.listens ? 0 : 1; }
  [[nodiscard]] int PodFd() const { return pod_fd_.Get(); }
  [[nodiscard]] std::byte* Map(std::uint32_t region) const { return maps_[region]; }
  [[nodiscard]] bool Lost() const { return lost_.load(std::memory_order_acquire); }
  [[nodiscard]] const Link& TheLink() const { return *link_; }
  [[nodiscard]] double AgentSeconds() const { return cpu_seconds_; }
  // Of the agent's thread, while it runs.
  [[nodiscard]] std::uint64_t AgentCpuNs() {
    clockid_t clock{};
    timespec used{};
    if (::pthread_getcpuclockid(thread_.native_handle(), &clock) != 0 || ::clock_gettime(clock, &used) != 0) Die("the agent's clock");
    return static_cast<std::uint64_t>(used.tv_sec) * 1000000000ULL + static_cast<std::uint64_t>(used.tv_nsec);
  }
  [[nodiscard]] bool AllClosed() const { return closed_ == options_.connections; }

  void WakePod(std::uint16_t, std::uint32_t) override { Ring(pod_fd_.Get()); }
  void FarSideWantsBell(std::uint16_t) override {}
  void PathLost(const transport::PathReport& report, const std::string& why) override {
    if (lost_.exchange(true)) return;
    if (!stop_.load(std::memory_order_acquire) && why != "the far agent has closed it") {
      std::printf("path lost: %s; connection %u written %llu consumed %llu received %llu\n", why.c_str(), report.connection,
                  static_cast<unsigned long long>(report.written), static_cast<unsigned long long>(report.known_consumed),
                  static_cast<unsigned long long>(report.received));
    }
  }
  void Closed(std::uint16_t) override { ++closed_; }

 private:
  void Loop() {
    bool closing = false;
    std::uint64_t give_up = 0;
    for (;;) {
      if (!closing && stop_.load(std::memory_order_acquire)) {
        closing = true;
        give_up = NowNs() + 5ULL * 1000000000;
        for (std::uint32_t i = 0; i < options_.connections; ++i) link_->Close(static_cast<std::uint16_t>(i));
      }
      const std::uint64_t now = NowNs();
      std::uint64_t until = runner_.Turn(now);
      if (closing && (AllClosed() || now > give_up)) break;
      if (until == 0) continue;
      if (closing) until = std::min(until, now + 100000000);
      Sleep(until, now);
    }
    // What was posted last is on its way: the far side needs our close as we needed its.
    rusage usage{};
    ::getrusage(RUSAGE_THREAD, &usage);
    cpu_seconds_ = static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                   static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  }

  void Sleep(std::uint64_t until, std::uint64_t now) {
    pollfd items[3] = {{device_->CompletionFd(), POLLIN, 0}, {device_->EventFd(), POLLIN, 0}, {agent_fd_.Get(), POLLIN, 0}};
    timespec patience{};
    if (until != transport::kNoDeadline) {
      patience.tv_sec = static_cast<time_t>((until - now) / 1000000000);
      patience.tv_nsec = static_cast<long>((until - now) % 1000000000);
    }
    ::ppoll(items, 3, until == transport::kNoDeadline ? nullptr : &patience, nullptr);
    if ((items[2].revents & POLLIN) != 0) {
      Drain(agent_fd_.Get());
      for (const auto& memory : memories_) link_->Rung(*memory);
    }
    if (((items[0].revents | items[1].revents) & POLLIN) != 0) runner_.Woken();
  }

  const Options& options_;
  transport::Device* device_;
  transport::Runner runner_;
  UniqueFd agent_fd_, pod_fd_;
  std::vector<std::unique_ptr<transport::Region>> regions_;
  std::vector<std::unique_ptr<RingMemory>> memories_;
  std::vector<std::byte*> maps_;
  std::unique_ptr<Link> link_;
  std::thread thread_;
  std::atomic<bool> stop_{false}, lost_{false};
  std::uint32_t closed_ = 0;
  double cpu_seconds_ = 0;
};

// All pods of the node, in the calling thread.
class Pods {
 public:
  Pods(const Options& options, Node* node) : options_(options), node_(node), random_(options.listens ? 1 : 2) {
    for (std::uint32_t i = 0; i < options.connections; ++i) {
      const std::uint32_t region = i / channel::kSlots;
      const std::uint32_t slot = i % channel::kSlots;
      std::byte* map = node->Map(region);
      ends_.push_back(std::make_unique<RingEnd>(reinterpret_cast<channel::SlotHeader*>(map + channel::SlotOffset(slot)),
                                                map + channel::RingOffset(slot, 0), node->Side(), i,
                                                [node, region] { node->RingAgent(region); }));
    }
  }

  // One round over all ends; false: nothing could be done.
  bool Turn(bool may_send) {
    bool worked = false;
    for (std::size_t i = 0; i < ends_.size(); ++i) {
      RingEnd& end = *ends_[i];
      end.ConsiderGoingUp();
      const bool asleep = options_.traffic == "slow" && i + 1 == ends_.size() && !options_.listens && may_send;
      const std::uint64_t got = asleep ? 0 : end.Receive(kChunk);
      worked |= got != 0;
      if (options_.traffic == "pingpong") {
        worked |= PingPong(end, i, may_send);
      } else if (options_.traffic != "idle" && may_send && (options_.traffic != "stream" || (i == 0 && !options_.listens))) {
        const std::uint64_t want = options_.traffic == "stream" ? kChunk : 1 + (random_() % kChunk >> random_() % 16);
        worked |= end.Send(want) != 0;
      }
    }
    return worked;
  }

  void Sleep(bool may_send, int timeout_ms) {
    if (options_.pods_poll) {
      ::sched_yield();
      return;
    }
    const bool wants_room = may_send && options_.traffic != "pingpong" && options_.traffic != "idle";
    bool may = true;
    for (auto& end : ends_) may &= end->Arm(kPodObject, wants_room);
    pollfd item = {node_->PodFd(), POLLIN, 0};
    if (may) ::poll(&item, 1, timeout_ms);
    Drain(node_->PodFd());
    for (auto& end : ends_) end->Disarm();
  }

  [[nodiscard]] std::vector<std::unique_ptr<RingEnd>>& Ends() { return ends_; }
  [[nodiscard]] std::vector<std::uint64_t>& RoundTrips() { return round_trips_; }

 private:
  static constexpr std::uint64_t kChunk = 64 * 1024;
  static constexpr std::uint64_t kBall = 64;

  // The connecting side serves; a round is over when all of the ball is back.
  bool PingPong(RingEnd& end, std::size_t index, bool may_send) {
    if (index != 0) return false;
    if (options_.listens) {
      const std::uint64_t back = end.Received() / kBall * kBall - end.Sent();
      return back != 0 && end.Send(back) != 0;
    }
    if (end.Received() != end.Sent() || !may_send) return false;
    const std::uint64_t now = NowNs();
    if (end.Sent() != 0) round_trips_.push_back(now - served_ns_);
    served_ns_ = now;
    return end.Send(kBall) != 0;
  }

  const Options& options_;
  Node* node_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<RingEnd>> ends_;
  std::vector<std::uint64_t> round_trips_;
  std::uint64_t served_ns_ = 0;
};

void PrintCosts(const transport::MirrorCounters& counters) {
  const auto& lanes = counters.lanes;
  const double chunks = static_cast<double>(std::max<std::uint64_t>(counters.chunks_sent, 1));
  std::uint64_t posts = 0, doorbells = 0, completions = 0;
  for (const auto& lane : lanes) {
    posts += lane.posts;
    doorbells += lane.doorbells;
    completions += lane.completions;
  }
  std::printf(
      "sent %llu pieces, %llu bytes; a piece: %.2f posts, %.2f doorbells, %.2f completions, %.2f agent wake-ups, %.2f pod wake-ups\n",
      static_cast<unsigned long long>(counters.chunks_sent), static_cast<unsigned long long>(counters.bytes_sent),
      static_cast<double>(posts) / chunks, static_cast<double>(doorbells) / chunks, static_cast<double>(completions) / chunks,
      static_cast<double>(counters.agent_wakes) / chunks, static_cast<double>(counters.pod_wakes) / chunks);
  const char* names[] = {"small", "bulk", "control"};
  for (std::size_t i = 0; i < transport::kLanes; ++i) {
    std::printf("lane %s: %llu posts (%llu inline, %llu signalled, %llu immediate, %llu positions), %llu doorbells, %llu completions\n",
                names[i], static_cast<unsigned long long>(lanes[i].posts), static_cast<unsigned long long>(lanes[i].inlined),
                static_cast<unsigned long long>(lanes[i].signalled), static_cast<unsigned long long>(lanes[i].immediates),
                static_cast<unsigned long long>(lanes[i].positions), static_cast<unsigned long long>(lanes[i].doorbells),
                static_cast<unsigned long long>(lanes[i].completions));
  }
  std::printf("credits %llu, control messages %llu, pings %llu, stalled by lane %llu\n",
              static_cast<unsigned long long>(counters.credits_sent), static_cast<unsigned long long>(counters.control_sent),
              static_cast<unsigned long long>(counters.pings), static_cast<unsigned long long>(counters.stalled_by_lane));
}

int Run(const Options& options) {
  auto device = transport::OpenVerbsDevice(options.wish);
  if (!device) Die(device.Error().what);
  std::printf("device %s\n", device.Value()->Name().c_str());
  const UniqueFd meeting(Meet(options));
  Node node(options, device.Value().get());
  node.Connect(meeting.Get());
  Pods pods(options, &node);

  const std::uint64_t begun = NowNs();
  const auto until = begun + static_cast<std::uint64_t>(options.seconds * 1e9);
  std::uint64_t quiet_since = 0;
  std::uint64_t quiet_cpu = 0;
  while (NowNs() < until && !node.Lost()) {
    if (!pods.Turn(true)) pods.Sleep(true, 100);
    if (quiet_since != 0 || NowNs() < begun + static_cast<std::uint64_t>(options.seconds * 5e8)) continue;
    quiet_since = NowNs();
    quiet_cpu = node.AgentCpuNs();
  }
  if (options.traffic == "idle") {
    std::printf("idle: the agent used %.3f ms of cpu in %.1f s\n", static_cast<double>(node.AgentCpuNs() - quiet_cpu) / 1e6,
                static_cast<double>(NowNs() - quiet_since) / 1e9);
  }
  const double seconds = static_cast<double>(NowNs() - begun) / 1e9;

  // Where each stream ends, so that the last byte can be waited for.
  std::vector<std::uint64_t> mine(kMostConnections), theirs(kMostConnections);
  for (std::size_t i = 0; i < pods.Ends().size(); ++i) mine[i] = pods.Ends()[i]->Sent();
  if (options.traffic == "pingpong") mine[0] = 0;  // the ball is still flying
  Exchange(meeting.Get(), mine.data(), theirs.data(), mine.size() * sizeof mine[0]);
  const std::uint64_t give_up = NowNs() + 20ULL * 1000000000;
  const auto is_here = [&] {
    for (std::size_t i = 0; i < pods.Ends().size(); ++i) {
      if (pods.Ends()[i]->Received() < theirs[i]) return false;
    }
    return true;
  };
  while (!is_here() && NowNs() < give_up && !node.Lost()) {
    if (!pods.Turn(false)) pods.Sleep(false, 100);
  }
  bool good = is_here() && !node.Lost();
  std::uint64_t sent = 0, received = 0, slowest = UINT64_MAX;
  for (const auto& end : pods.Ends()) {
    good &= end->Right();
    sent += end->Sent();
    received += end->Received();
    slowest = std::min(slowest, end->Received());
  }
  std::uint8_t here = 1, there = 0;
  Exchange(meeting.Get(), &here, &there, 1);
  node.Stop();
  std::printf("%s: %u connections, %.1f s, %llu bytes sent, %llu received and checked, %.1f MB/s in, least %llu, agent %.2f s of cpu\n",
              good ? "all bytes right" : "FAILED", options.connections, seconds, static_cast<unsigned long long>(sent),
              static_cast<unsigned long long>(received), static_cast<double>(received) / seconds / 1e6,
              static_cast<unsigned long long>(slowest), node.AgentSeconds());
  auto& trips = pods.RoundTrips();
  if (!trips.empty()) {
    std::sort(trips.begin(), trips.end());
    std::printf("round trip of 64 B: %zu, p50 %.1f us, p99 %.1f us\n", trips.size(), static_cast<double>(trips[trips.size() / 2]) / 1e3,
                static_cast<double>(trips[trips.size() * 99 / 100]) / 1e3);
  }
  PrintCosts(node.TheLink().Counters());
  Exchange(meeting.Get(), &here, &there, 1);
  return good ? 0 : 1;
}

}  // namespace
}  // namespace vsocket::test

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  return vsocket::test::Run(vsocket::test::Parse(count, arguments));
}
