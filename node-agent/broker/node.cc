#include "node-agent/broker/node.h"

#include <sys/random.h>

#include <algorithm>
#include <set>
#include <utility>

#include "node-agent/broker/netns.h"
#include "node-agent/broker/sock_diag.h"

namespace vsocket::broker {

using model::ApiError;
using model::ApiErrorKind;
using model::LocalPod;
using model::LocalPodStatus;

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;

Failure<ApiError> Fail(ApiErrorKind kind, std::string message) {
  return Failure(ApiError{kind, std::move(message)});
}

std::string NameOf(const LocalPod& pod) {
  return pod.ns + "/" + pod.name;
}

bool SameSandbox(const LocalPod& a, const LocalPod& b) {
  return a.uid == b.uid && a.container_id == b.container_id && a.ifname == b.ifname && a.netns_inode == b.netns_inode;
}

}  // namespace

Node::Node(NodeOptions options, NodeQuestions questions, RunDir run_dir, std::unique_ptr<Loop> loop)
    : options_(std::move(options)),
      questions_(std::move(questions)),
      started_ns_(MonotonicNow()),
      run_dir_(std::move(run_dir)),
      store_(options_.state_dir),
      loop_(std::move(loop)) {
  if (::getrandom(&instance_, sizeof instance_, 0) != static_cast<ssize_t>(sizeof instance_)) instance_ = started_ns_;
  broker_ = std::make_unique<Broker>(options_.broker, MakeSocketProbe(), MonotonicNow, instance_);
  server_ = std::make_unique<ControlServer>(*loop_, *broker_, options_.broker.limits.unsent_per_process);
  loop_->OnTick([this] { broker_->Tick(); });
  loop_->DeadlineFrom([this] { return broker_->NextTick(); });
}

Node::~Node() {
  loop_->Stop();
}

Result<std::unique_ptr<Node>, std::string> Node::Open(NodeOptions options, NodeQuestions questions) {
  auto run_dir = RunDir::Open(options.run_dir, options.shim_library);
  if (!run_dir) return Failure(run_dir.Error());
  auto loop = Loop::Make();
  if (!loop) return Failure(loop.Error());
  std::unique_ptr<Node> node(new Node(std::move(options), std::move(questions), std::move(run_dir.Value()), std::move(loop.Value())));
  const auto opened = node->store_.Open();
  if (!opened) return Failure(opened.Error());
  node->LoadStored();
  return node;
}

void Node::Say(Event::Level level, std::string what, Event::Fields fields) const {
  if (options_.broker.events) options_.broker.events({level, std::move(what), std::move(fields)});
}

void Node::LoadStored() {
  const std::lock_guard lock(pods_mutex_);
  PodStore::Loaded loaded = store_.Load();
  for (const std::string& problem : loaded.problems) Say(Event::Level::kWarning, "stored pod not understood", {{"where", problem}});
  for (LocalPod& pod : loaded.pods) {
    auto netns = OpenNetns(pod.netns_path);
    if (!netns || netns->inode != pod.netns_inode || netns->cookie != pod.netns_cookie) {
      Say(Event::Level::kInfo, "stored pod dropped",
          {{"pod", NameOf(pod)}, {"uid", pod.uid}, {"why", netns ? "its network namespace is another one now" : netns.Error()}});
      store_.Remove(pod.uid);
      continue;
    }
    if (const auto installed = Install(pod, std::move(netns->diag)); !installed) {
      Say(Event::Level::kError, "stored pod not served", {{"pod", NameOf(pod)}, {"why", installed.Error().message}});
      continue;
    }
    Say(Event::Level::kInfo, "pod known again", {{"pod", NameOf(pod)}, {"uid", pod.uid}});
    pods_.push_back(std::move(pod));
  }
  // What no pod owns is left from one that went while no agent was there.
  for (const std::string& uid : run_dir_.PodsThere()) {
    if (std::none_of(pods_.begin(), pods_.end(), [&](const LocalPod& pod) { return pod.uid == uid; })) run_dir_.RemovePod(uid);
  }
}

Result<model::Done, ApiError> Node::Install(const LocalPod& pod, UniqueFd diag) {
  auto socket = run_dir_.MakePod(pod.uid);
  if (!socket) return Fail(ApiErrorKind::kUnavailable, socket.Error());
  if (!socket->warning.empty()) Say(Event::Level::kWarning, "shim missing", {{"pod", NameOf(pod)}, {"why", socket->warning}});
  const auto listening = loop_->Call([&] {
    broker_->AddPod(pod, MakePodSockets(std::move(diag)));
    return server_->Listen(pod.uid, std::move(socket->listener));
  });
  if (!listening) return Fail(ApiErrorKind::kUnavailable, listening.Error());
  return model::Done{};
}

void Node::Uninstall(const LocalPod& pod, const std::string& why) {
  loop_->Call([&] {
    server_->StopListening(pod.uid);
    broker_->RemovePod(pod.uid, why);
    return true;
  });
  run_dir_.RemovePod(pod.uid);
  store_.Remove(pod.uid);
  Say(Event::Level::kInfo, "pod removed", {{"pod", NameOf(pod)}, {"uid", pod.uid}, {"why", why}});
}

LocalPodStatus Node::StatusOf(const LocalPod& pod) {
  LocalPodStatus status;
  status.pod = pod;
  status.socket_dir = run_dir_.PodPath(pod.uid);
  const PodLoad load = loop_->Call([&] { return broker_->LoadOf(pod.uid); });
  status.processes = load.processes;
  status.channels = load.channels;
  status.channel_bytes = load.bytes;
  status.bandwidth = load.bandwidth;
  if (questions_.isolated) std::tie(status.isolated_ingress, status.isolated_egress) = questions_.isolated(pod);
  return status;
}

Result<LocalPodStatus, ApiError> Node::AddPod(LocalPod pod) {
  if (!IsSafeUid(pod.uid))
    return Fail(ApiErrorKind::kInvalid, "the pod's uid must be 1 to 64 characters of [A-Za-z0-9-_.]: \"" + pod.uid + "\"");
  if (pod.container_id.empty() || pod.ifname.empty())
    return Fail(ApiErrorKind::kInvalid, "a pod needs its container id and interface name");
  if (pod.ips.empty())
    return Fail(ApiErrorKind::kInvalid, "a pod needs an address: is vsocket-cni chained after the plugin that assigns it?");
  auto netns = OpenNetns(pod.netns_path);
  if (!netns) return Fail(ApiErrorKind::kInvalid, netns.Error());
  pod.netns_cookie = netns->cookie;
  pod.netns_inode = netns->inode;
  {
    const std::lock_guard lock(pods_mutex_);
    const auto known = std::find_if(pods_.begin(), pods_.end(), [&](const LocalPod& other) { return other.uid == pod.uid; });
    if (known != pods_.end() && SameSandbox(*known, pod) && known->ips == pod.ips) return StatusOf(*known);
    if (known != pods_.end()) {
      Uninstall(*known, "replaced by a new sandbox");
      pods_.erase(known);
    }
    if (const auto stored = store_.Put(pod); !stored) return Fail(ApiErrorKind::kUnavailable, stored.Error());
    if (const auto installed = Install(pod, std::move(netns->diag)); !installed) {
      store_.Remove(pod.uid);
      return Failure(installed.Error());
    }
    pods_.push_back(pod);
    Say(Event::Level::kInfo, "pod added", {{"pod", NameOf(pod)}, {"uid", pod.uid}, {"address", pod.ips.front().ToString()}});
  }
  if (questions_.pods_changed) questions_.pods_changed();
  return StatusOf(pod);
}

Result<model::Done, ApiError> Node::RemovePod(const std::string& container_id, const std::string& ifname) {
  bool removed = false;
  {
    const std::lock_guard lock(pods_mutex_);
    std::erase_if(pods_, [&](const LocalPod& pod) {
      if (pod.container_id != container_id || pod.ifname != ifname) return false;
      Uninstall(pod, "the pod was deleted");
      return removed = true;
    });
  }
  if (removed && questions_.pods_changed) questions_.pods_changed();
  return model::Done{};
}

Result<LocalPodStatus, ApiError> Node::CheckPod(const LocalPod& pod) {
  const auto netns = OpenNetns(pod.netns_path);
  if (!netns) return Fail(ApiErrorKind::kInvalid, netns.Error());
  LocalPod known;
  {
    const std::lock_guard lock(pods_mutex_);
    const auto found = std::find_if(pods_.begin(), pods_.end(), [&](const LocalPod& other) {
      return other.container_id == pod.container_id && other.ifname == pod.ifname;
    });
    if (found == pods_.end()) return Fail(ApiErrorKind::kNotFound, "the agent does not know container " + pod.container_id);
    known = *found;
  }
  if (known.netns_inode != netns.Value().inode)
    return Fail(ApiErrorKind::kConflict, "the pod's network namespace is another one than at ADD");
  for (const auto& ip : pod.ips) {
    if (std::find(known.ips.begin(), known.ips.end(), ip) == known.ips.end()) {
      return Fail(ApiErrorKind::kConflict, "the pod had no address " + ip.ToString() + " at ADD");
    }
  }
  return StatusOf(known);
}

Result<std::uint32_t, ApiError> Node::CollectPods(const std::vector<std::pair<std::string, std::string>>& keep) {
  const std::set<std::pair<std::string, std::string>> kept(keep.begin(), keep.end());
  std::uint32_t removed = 0;
  {
    const std::lock_guard lock(pods_mutex_);
    std::erase_if(pods_, [&](const LocalPod& pod) {
      if (kept.contains({pod.container_id, pod.ifname})) return false;
      Uninstall(pod, "garbage collection: the runtime does not know it");
      ++removed;
      return true;
    });
  }
  if (removed != 0 && questions_.pods_changed) questions_.pods_changed();
  return removed;
}

std::vector<LocalPod> Node::LocalPods() const {
  const std::lock_guard lock(pods_mutex_);
  return pods_;
}

std::vector<LocalPodStatus> Node::Pods() {
  std::vector<LocalPodStatus> statuses;
  for (const LocalPod& pod : LocalPods()) statuses.push_back(StatusOf(pod));
  return statuses;
}

std::vector<model::ConnectionInfo> Node::Connections() {
  return loop_->Call([&] { return broker_->Connections(); });
}

Result<model::Verdict, ApiError> Node::TracePolicy(const std::string& source_pod, const std::string& destination_pod,
                                                   const std::string& port) {
  if (!questions_.trace) return Fail(ApiErrorKind::kUnavailable, "no policy is loaded");
  return questions_.trace(source_pod, destination_pod, port);
}

std::vector<model::PolicyInfo> Node::Policies() {
  return questions_.policies ? questions_.policies() : std::vector<model::PolicyInfo>();
}

BrokerStats Node::Stats() {
  return loop_->Call([&] { return broker_->Stats(); });
}

model::AgentStatus Node::Status() {
  const BrokerStats stats = Stats();
  model::AgentStatus status;
  status.version = options_.version;
  status.instance = instance_;
  status.uptime_seconds = (MonotonicNow() - started_ns_) / kSecond;
  status.pods = stats.pods;
  status.processes = stats.processes;
  status.channels = stats.channels;
  status.regions = stats.regions;
  status.upgrades = stats.upgrades;
  for (const std::uint64_t denials : stats.denials) status.denials += denials;
  status.revocations = stats.revocations;
  if (questions_.complete_status) questions_.complete_status(&status);
  const std::vector<LocalPod> pods = LocalPods();
  loop_->Call([&] {
    for (const LocalPod& pod : pods) {
      const std::string problem = broker_->LoadOf(pod.uid).bandwidth.problem;
      if (!problem.empty()) status.problems.push_back({"pod " + NameOf(pod), problem + ": its connections stay on TCP"});
    }
    return true;
  });
  return status;
}

void Node::Reevaluate() {
  {
    const std::lock_guard lock(posted_mutex_);
    if (std::exchange(reevaluation_posted_, true)) return;
  }
  loop_->Post([this] {
    {
      const std::lock_guard lock(posted_mutex_);
      reevaluation_posted_ = false;  // a change from here on is judged by the next one
    }
    broker_->Reevaluate();
  });
}

void Node::SetBandwidth(const std::vector<std::pair<std::string, model::Bandwidth>>& pods) {
  loop_->Call([&] {
    for (const auto& [uid, bandwidth] : pods) broker_->SetBandwidth(uid, bandwidth);
    return true;
  });
}

std::uint32_t Node::ReevaluateNow(const model::Affected& affected) {
  return loop_->Call([&] { return broker_->Reevaluate(affected); });
}

}  // namespace vsocket::broker
