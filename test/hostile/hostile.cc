// hostile: a pod that speaks to the agent as a shim does, gets a channel to an honest server, and abuses it: garbage in every word of
// the shared memory, garbage and forged frames on the TCP connection. What must hold is checked by the harness (run.py) on the others.
//
//   hostile --agent AGENT_SOCK --address IP --port N [--seed N] [--iterations N] [--micros N]
//
// Each iteration's choices come from (seed, iteration) and are printed when --verbose is given.
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "channel/switch.h"
#include "test/hostile/vandal.h"

namespace vsocket::hostile {
namespace {

using broker::testing::FakeShim;
using broker::testing::MappedRegion;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string agent, address;
  int port = 0;
  std::uint64_t seed = 1, iterations = 1000, micros = 3000;
  std::uint64_t first = 0;
  bool verbose = false;
};

struct Tally {
  std::uint64_t granted = 0, denied = 0, silent = 0, went_up = 0, refused = 0;
};

constexpr int kGrantPatienceMs = 300;
constexpr std::uint64_t kIterationsAProcess = 25;  // a new process pair gets a new region

UniqueFd Connect(const Options& options) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(options.port));
  ::inet_pton(AF_INET, options.address.c_str(), &address.sin_addr);
  if (::connect(fd.Get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) fd.Reset();
  return fd;
}

// One process' life: a control connection, its regions, some attacks.
class Attacker {
 public:
  Attacker(const Options& options, Tally* tally) : options_(options), tally_(tally), shim_(options.agent) {}

  bool Start() { return shim_.Connected() && shim_.Hello("hostile"); }

  // False when the honest server takes no connection any more.
  bool Attack(std::uint64_t iteration) {
    random_ = RandomOf(options_.seed, iteration);
    UniqueFd tcp = Connect(options_);
    if (!tcp.Valid()) return false;
    const int on = 1;
    ::setsockopt(tcp.Get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const char first = RandomChance(&random_, 50) ? 'e' : 'b';
    sent_ = 0;
    SendTcp(tcp.Get(), &first, 1);
    const auto approach = static_cast<Approach>(RandomBelow(&random_, static_cast<std::uint64_t>(Approach::kCount)));
    channel::ChannelRef channel{};
    MappedRegion* region = RequestChannel(tcp.Get(), &channel);
    if (options_.verbose)
      std::fprintf(stderr, "iteration %llu approach %d mode %c granted %d\n", static_cast<unsigned long long>(iteration),
                   static_cast<int>(approach), first, region != nullptr);
    if (region != nullptr) Abuse(tcp.Get(), *region, channel, approach);
    if (RandomChance(&random_, 30)) {
      const linger abort{1, 0};
      ::setsockopt(tcp.Get(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
    }
    return true;
  }

 private:
  void SendTcp(int tcp, const void* data, std::size_t size) {
    const ssize_t n = ::send(tcp, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) sent_ += static_cast<std::uint64_t>(n);
  }

  void DrainTcp(int tcp) {
    std::array<char, 65536> sink;
    for (int i = 0; i < 8 && ::recv(tcp, sink.data(), sink.size(), MSG_DONTWAIT) > 0; ++i) {
    }
  }

  // Asks for an upgrade and waits for the answer, while keeping the honest side busy so that it asks as well.
  MappedRegion* RequestChannel(int tcp, channel::ChannelRef* out) {
    if (!shim_.Upgrade(tcp)) return nullptr;
    const std::uint64_t cookie = broker::testing::CookieOf(tcp);
    const auto deadline = Clock::now() + std::chrono::milliseconds(kGrantPatienceMs);
    while (Clock::now() < deadline) {
      SendTcp(tcp, "x", 1);
      pollfd wait{shim_.Fd(), POLLIN, 0};
      DrainTcp(tcp);
      if (::poll(&wait, 1, 2) != 1) continue;
      std::optional<broker::testing::Answer> answer = shim_.Receive();
      if (!answer) return nullptr;
      if (answer->type == channel::MessageType::kDeny && answer->As<channel::Deny>().cookie == cookie) {
        ++tally_->denied;
        return nullptr;
      }
      if (answer->type != channel::MessageType::kGrant) continue;
      const auto grant = answer->As<channel::Grant>();
      if (answer->fd.Valid()) regions_[grant.channel.region_id] = std::make_unique<MappedRegion>(answer->fd.Get());
      if (grant.cookie != cookie) continue;
      ++tally_->granted;
      *out = grant.channel;
      const auto found = regions_.find(grant.channel.region_id);
      return found != regions_.end() && found->second->Valid() ? found->second.get() : nullptr;
    }
    ++tally_->silent;
    return nullptr;
  }

  void SendFrames(int tcp, std::uint8_t marker) {
    std::array<std::uint8_t, 64> bytes;
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(RandomNext(&random_));
    std::size_t size = 1 + RandomBelow(&random_, bytes.size());
    switch (RandomBelow(&random_, 5)) {
      case 0:
        std::memset(bytes.data(), marker, size);
        break;  // bells
      case 1:   // a switch frame, whole or half, with a generation and position near the truth
      case 2: {
        bytes[0] = static_cast<std::uint8_t>(marker + 1);
        const auto generation = static_cast<std::uint32_t>(RandomBelow(&random_, 3));
        const std::uint64_t resume = RandomChance(&random_, 50) ? sent_ + RandomBelow(&random_, 40000) - 20000 : RandomNext(&random_);
        std::memcpy(&bytes[1], &generation, sizeof generation);
        std::memcpy(&bytes[5], &resume, sizeof resume);
        size = RandomChance(&random_, 50) ? channel::kSwitchFrameSize : 1 + RandomBelow(&random_, channel::kSwitchFrameSize);
        break;
      }
      case 3:
        bytes[0] = marker;
        break;
      default:
        break;
    }
    SendTcp(tcp, bytes.data(), size);
  }

  void Abuse(int tcp, MappedRegion& region, const channel::ChannelRef& channel, Approach approach) {
    Vandal vandal(region, channel, &random_);
    // The proposal needs a marker that is not the next payload byte; there is none after it, so any will do.
    const auto marker = static_cast<std::uint8_t>(RandomNext(&random_));
    if (approach != Approach::kGarbage) vandal.Attach();
    if (approach == Approach::kPropose || approach == Approach::kFrames || approach == Approach::kPatient) {
      vandal.Propose(sent_, marker, RandomBelow(&random_, 16384));
      SendTcp(tcp, &marker, 1);  // a bell: look at the ring
    }
    const auto end = Clock::now() + std::chrono::microseconds(options_.micros);
    const auto garbage_from = approach == Approach::kPatient ? end - std::chrono::microseconds(options_.micros / 3) : Clock::now();
    const channel::SideWords& theirs = region.Slot(channel.slot % channel::kSlots).side[1 - (channel.side & 1)];
    bool up = false;
    while (Clock::now() < end) {
      up = up || theirs.proposal_generation.load() != 0;
      if (Clock::now() < garbage_from) {
        vandal.Consume();
        SendTcp(tcp, &marker, 1);
      } else {
        if (approach != Approach::kFrames) vandal.Wreck();
        if (approach == Approach::kFrames || RandomChance(&random_, 20)) SendFrames(tcp, marker);
      }
      if (RandomChance(&random_, 30)) DrainTcp(tcp);
    }
    if (up) ++tally_->went_up;
  }

  const Options& options_;
  Tally* tally_;
  FakeShim shim_;
  Random random_{};
  std::uint64_t sent_ = 0;
  std::map<std::uint64_t, std::unique_ptr<MappedRegion>> regions_;
};

Options Parse(int argc, char** argv) {
  Options options;
  static const option kLong[] = {{"agent", 1, nullptr, 'a'}, {"address", 1, nullptr, 'd'},    {"port", 1, nullptr, 'p'},
                                 {"seed", 1, nullptr, 's'},  {"iterations", 1, nullptr, 'i'}, {"micros", 1, nullptr, 'm'},
                                 {"first", 1, nullptr, 'f'}, {"verbose", 0, nullptr, 'v'},    {nullptr, 0, nullptr, 0}};
  for (int choice; (choice = ::getopt_long(argc, argv, "", kLong, nullptr)) != -1;) {
    switch (choice) {
      case 'a':
        options.agent = optarg;
        break;
      case 'd':
        options.address = optarg;
        break;
      case 'p':
        options.port = std::atoi(optarg);
        break;
      case 's':
        options.seed = std::strtoull(optarg, nullptr, 0);
        break;
      case 'i':
        options.iterations = std::strtoull(optarg, nullptr, 0);
        break;
      case 'm':
        options.micros = std::strtoull(optarg, nullptr, 0);
        break;
      case 'f':
        options.first = std::strtoull(optarg, nullptr, 0);
        break;
      case 'v':
        options.verbose = true;
        break;
      default:
        std::exit(2);
    }
  }
  return options;
}

// A child process plays `count` iterations from `first` on; its tally comes back through a pipe.
bool PlaySome(const Options& options, std::uint64_t first, std::uint64_t count, Tally* total) {
  int ends[2];
  if (::pipe(ends) != 0) return false;
  const pid_t child = ::fork();
  if (child == 0) {
    Tally tally;
    {
      Attacker attacker(options, &tally);
      if (!attacker.Start()) ::_exit(3);
      for (std::uint64_t i = first; i < first + count; ++i) {
        if (!attacker.Attack(i)) ++tally.refused;
      }
    }
    const bool written = ::write(ends[1], &tally, sizeof tally) == sizeof tally;
    ::_exit(written ? 0 : 1);
  }
  ::close(ends[1]);
  Tally tally;
  const bool read = ::read(ends[0], &tally, sizeof tally) == sizeof tally;
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!read || status != 0) {
    std::fprintf(stderr, "hostile: the attacker of iterations %llu... ended with status %x\n", static_cast<unsigned long long>(first),
                 static_cast<unsigned>(status));
    return false;
  }
  total->granted += tally.granted;
  total->denied += tally.denied;
  total->silent += tally.silent;
  total->went_up += tally.went_up;
  total->refused += tally.refused;
  return true;
}

int Main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  std::signal(SIGPIPE, SIG_IGN);
  Tally total;
  bool good = true;
  for (std::uint64_t i = options.first; good && i < options.first + options.iterations; i += kIterationsAProcess) {
    good = PlaySome(options, i, std::min(kIterationsAProcess, options.first + options.iterations - i), &total);
    good = good && total.refused == 0;
  }
  std::printf(
      "{\"passed\":%s,\"seed\":%llu,\"iterations\":%llu,\"granted\":%llu,\"went_up\":%llu,\"denied\":%llu,\"silent\":%llu,\"refused\":%llu}"
      "\n",
      good ? "true" : "false", static_cast<unsigned long long>(options.seed), static_cast<unsigned long long>(options.iterations),
      static_cast<unsigned long long>(total.granted), static_cast<unsigned long long>(total.went_up),
      static_cast<unsigned long long>(total.denied), static_cast<unsigned long long>(total.silent),
      static_cast<unsigned long long>(total.refused));
  return good ? 0 : 1;
}

}  // namespace
}  // namespace vsocket::hostile

int main(int argc, char** argv) {
  return vsocket::hostile::Main(argc, argv);
}
