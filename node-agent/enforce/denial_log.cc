#include "node-agent/enforce/denial_log.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "node-agent/enforce/packet_heads.h"
#include "node-agent/enforce/pod_namespace.h"
#include "node-agent/enforce/ruleset.h"

namespace vsocket::enforce {
namespace {

constexpr std::uint64_t kStopId = 0;
constexpr std::size_t kBuffer = 65536;
constexpr int kMessagesAWake = 64;  // of one pod, before the others have their turn
constexpr std::uint32_t kCopied = 96;

std::string ErrnoText(const char* what) {
  return std::string(what) + ": " + std::strerror(errno);
}

std::string KeyOf(const model::LocalPod& pod) {
  return pod.uid + "\n" + pod.container_id + "\n" + pod.ifname + "\n" + pod.netns_path;
}

// One request about our group, and the kernel's answer. 0, or an errno.
template <typename Fill>
int Configure(int fd, std::uint32_t sequence, Fill fill) {
  std::array<char, 256> buffer{};
  nlmsghdr* header = mnl_nlmsg_put_header(buffer.data());
  header->nlmsg_type = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG;
  header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  header->nlmsg_seq = sequence;
  auto* group = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(header, sizeof(nfgenmsg)));
  group->nfgen_family = AF_UNSPEC;
  group->version = NFNETLINK_V0;
  group->res_id = htons(kDenialGroup);
  fill(header);
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  if (::sendto(fd, header, header->nlmsg_len, 0, reinterpret_cast<sockaddr*>(&kernel), sizeof kernel) < 0) return errno;
  std::array<char, 4096> answer{};
  for (;;) {
    const ssize_t size = ::recv(fd, answer.data(), answer.size(), 0);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return errno;
    const auto* reply = reinterpret_cast<const nlmsghdr*>(answer.data());
    if (!mnl_nlmsg_ok(reply, static_cast<int>(size)) || reply->nlmsg_type != NLMSG_ERROR || reply->nlmsg_seq != sequence) continue;
    return -static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(reply))->error;
  }
}

// Inside the pod's namespace. The error is a sentence.
std::optional<std::string> Listen(UniqueFd* out) {
  UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
  if (!fd.Valid()) return ErrnoText("no netfilter netlink socket");
  const timeval patience{2, 0};  // a kernel fault must not hang the agent
  ::setsockopt(fd.Get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  sockaddr_nl own{};
  own.nl_family = AF_NETLINK;
  if (::bind(fd.Get(), reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0) return ErrnoText("bind of a netlink socket");
  errno = Configure(fd.Get(), 1, [](nlmsghdr* header) {
    const nfulnl_msg_config_cmd command{NFULNL_CFG_CMD_BIND};
    mnl_attr_put(header, NFULA_CFG_CMD, sizeof command, &command);
  });
  if (errno != 0) return ErrnoText("the kernel's packet log");
  errno = Configure(fd.Get(), 2, [](nlmsghdr* header) {
    nfulnl_msg_config_mode mode{};
    mode.copy_range = htonl(kCopied);
    mode.copy_mode = NFULNL_COPY_PACKET;
    mnl_attr_put(header, NFULA_CFG_MODE, sizeof mode, &mode);
    // At once, not a hundred together or a second later; the rules bound how many there are.
    mnl_attr_put_u32(header, NFULA_CFG_QTHRESH, htonl(1));
  });
  if (errno != 0) return ErrnoText("the mode of the kernel's packet log");
  *out = std::move(fd);
  return std::nullopt;
}

struct Logged {
  std::string_view prefix;
  const void* packet = nullptr;
  std::size_t size = 0;
};

std::optional<Logged> ReadMessage(const nlmsghdr* header) {
  if (header->nlmsg_type != (NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET)) return std::nullopt;
  Logged logged;
  // mnl_attr_for_each, whose conversions a C++ compiler refuses.
  const auto* end = static_cast<const char*>(mnl_nlmsg_get_payload_tail(header));
  for (auto* attribute = static_cast<const nlattr*>(mnl_nlmsg_get_payload_offset(header, sizeof(nfgenmsg)));
       mnl_attr_ok(attribute, static_cast<int>(end - reinterpret_cast<const char*>(attribute))); attribute = mnl_attr_next(attribute)) {
    if (mnl_attr_get_type(attribute) == NFULA_PREFIX) {
      const auto* text = static_cast<const char*>(mnl_attr_get_payload(attribute));
      logged.prefix = {text, ::strnlen(text, mnl_attr_get_payload_len(attribute))};
    } else if (mnl_attr_get_type(attribute) == NFULA_PAYLOAD) {
      logged.packet = mnl_attr_get_payload(attribute);
      logged.size = mnl_attr_get_payload_len(attribute);
    }
  }
  return logged;
}

// What a prefix means. `answer`: the packet runs against its flow.
struct Meaning {
  bool ingress = false, answer = false;
};
std::optional<Meaning> MeaningOf(std::string_view prefix) {
  if (prefix == kDeniedIn) return Meaning{true, false};
  if (prefix == kDeniedOut) return Meaning{false, false};
  if (prefix == kDeniedInAnswer) return Meaning{false, true};  // comes in, and belongs to what the pod began
  if (prefix == kDeniedOutAnswer) return Meaning{true, true};
  return std::nullopt;
}

}  // namespace

Result<std::unique_ptr<DenialLog>, std::string> DenialLog::Start(std::function<void(const Denial&)> tell) {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  epoll_event event{EPOLLIN, {.u64 = kStopId}};
  if (!epoll.Valid() || !stop.Valid() || ::epoll_ctl(epoll.Get(), EPOLL_CTL_ADD, stop.Get(), &event) != 0) {
    return Failure(ErrnoText("cannot wait for refused flows"));
  }
  std::unique_ptr<DenialLog> log(new DenialLog(std::move(epoll), std::move(stop), std::move(tell)));
  try {
    log->thread_ = std::thread([raw = log.get()] { raw->Run(); });
  } catch (const std::system_error& failure) {
    return Failure(std::string("cannot start a thread: ") + failure.what());
  }
  return log;
}

DenialLog::DenialLog(UniqueFd epoll, UniqueFd stop, std::function<void(const Denial&)> tell)
    : epoll_(std::move(epoll)), stop_(std::move(stop)), tell_(std::move(tell)) {}

DenialLog::~DenialLog() {
  if (!thread_.joinable()) return;
  ::eventfd_write(stop_.Get(), 1);
  thread_.join();
}

std::vector<EnforceError> DenialLog::Watch(const std::vector<model::LocalPod>& pods) {
  std::vector<EnforceError> errors;
  std::set<std::string> present;
  for (const model::LocalPod& pod : pods) {
    const std::string key = KeyOf(pod);
    present.insert(key);
    {
      const std::lock_guard lock(mutex_);
      if (listeners_.contains(key)) continue;
    }
    auto listener = std::make_shared<Listener>();
    listener->pod = pod;
    std::optional<std::string> trouble;
    if (const auto outside = InsidePod(pod, [&] { trouble = Listen(&listener->netlink); })) trouble = outside->what;
    const std::lock_guard lock(mutex_);
    if (!trouble) {
      listener->id = next_id_++;
      epoll_event event{EPOLLIN, {.u64 = listener->id}};
      listeners_[key] = listener;  // before the first event of it
      if (::epoll_ctl(epoll_.Get(), EPOLL_CTL_ADD, listener->netlink.Get(), &event) != 0) {
        trouble = ErrnoText("cannot wait for refused flows");
        listeners_.erase(key);
      }
    }
    if (trouble) errors.push_back({pod.ns + "/" + pod.name, *trouble});
  }
  const std::lock_guard lock(mutex_);
  std::erase_if(listeners_, [&](const auto& entry) {
    if (present.contains(entry.first)) return false;
    ::epoll_ctl(epoll_.Get(), EPOLL_CTL_DEL, entry.second->netlink.Get(), nullptr);
    return true;
  });
  return errors;
}

std::shared_ptr<DenialLog::Listener> DenialLog::ById(std::uint64_t id) const {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(listeners_.begin(), listeners_.end(), [&](const auto& entry) { return entry.second->id == id; });
  return found == listeners_.end() ? nullptr : found->second;
}

void DenialLog::Run() {
  std::array<epoll_event, 64> events{};
  for (;;) {
    const int ready = ::epoll_wait(epoll_.Get(), events.data(), static_cast<int>(events.size()), -1);
    if (ready < 0 && errno != EINTR) return;
    for (int i = 0; i < ready; ++i) {
      if (events[static_cast<std::size_t>(i)].data.u64 == kStopId) return;
      if (const auto listener = ById(events[static_cast<std::size_t>(i)].data.u64)) Read(*listener);
    }
  }
}

void DenialLog::Read(const Listener& listener) {
  alignas(nlmsghdr) std::array<char, kBuffer> buffer;  // NOLINT: filled by the kernel
  for (int i = 0; i < kMessagesAWake; ++i) {
    const ssize_t got = ::recv(listener.netlink.Get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got < 0) {
      if (errno != ENOBUFS) return;
      const std::lock_guard lock(mutex_);
      ++counters_.overruns;
      continue;
    }
    int left = static_cast<int>(got);
    for (const auto* header = reinterpret_cast<const nlmsghdr*>(buffer.data()); mnl_nlmsg_ok(header, left);
         header = mnl_nlmsg_next(header, &left)) {
      const auto logged = ReadMessage(header);
      if (!logged) continue;
      const auto meaning = MeaningOf(logged->prefix);
      const auto heads = ReadHeads({static_cast<const std::byte*>(logged->packet), logged->size});
      {
        const std::lock_guard lock(mutex_);
        ++(meaning && heads ? counters_.told : counters_.not_understood);
      }
      if (!meaning || !heads) continue;
      Denial denial{listener.pod, meaning->ingress, {}, heads->source_port};
      denial.flow = {heads->source, heads->destination, heads->destination_port, heads->protocol};
      if (meaning->answer) {
        std::swap(denial.flow.source, denial.flow.destination);
        std::swap(denial.flow.destination_port, denial.source_port);
      }
      tell_(denial);
    }
  }
}

DenialLog::Counters DenialLog::GetCounters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

}  // namespace vsocket::enforce
