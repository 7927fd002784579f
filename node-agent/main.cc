// The composition root of vsocket-agent: reads the flags, makes each part, and hands every part what it needs of the others.
#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <map>
#include <memory>
#include <string>

#include "node-agent/agent_metrics.h"
#include "node-agent/broker/node.h"
#include "node-agent/flags.h"
#include "node-agent/flow_recorder.h"
#include "node-agent/kernel_path.h"
#include "node-agent/kube/dir_source.h"
#include "node-agent/kube/event_poster.h"
#include "node-agent/kube/kube_source.h"
#include "node-agent/kube_metrics.h"
#include "node-agent/policy_keeper.h"
#include "node-agent/rpc/rpc_server.h"
#include "node-agent/telemetry/http_server.h"
#include "node-agent/telemetry/log.h"
#include "node-agent/telemetry/metrics.h"

namespace vsocket {
namespace {

constexpr std::chrono::milliseconds kRpcGrace{500};

telemetry::LogLevel ToLogLevel(broker::Event::Level level) {
  switch (level) {
    case broker::Event::Level::kDebug:
      return telemetry::LogLevel::kDebug;
    case broker::Event::Level::kInfo:
      return telemetry::LogLevel::kInfo;
    case broker::Event::Level::kWarning:
      return telemetry::LogLevel::kWarning;
    case broker::Event::Level::kError:
      return telemetry::LogLevel::kError;
  }
  return telemetry::LogLevel::kInfo;
}

// Each region and each connected process is a descriptor: as many as the administrator lets us have.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// Blocked in every thread from here on; taken by sigwait in main.
sigset_t BlockSignals() {
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  return stop;
}

broker::NodeOptions NodeOptionsOf(const Flags& flags, PolicyKeeper& policy, FlowRecorder& flows, telemetry::Log& log) {
  broker::NodeOptions options;
  options.run_dir = flags.run_dir;
  options.state_dir = flags.state_dir;
  options.shim_library = flags.shim_library;
  options.version = VSOCKET_VERSION;
  options.broker.quota = {flags.quota_channels, flags.quota_bytes};
  options.broker.lease_ns = flags.lease_seconds * 1'000'000'000ULL;
  options.broker.revocation = {flags.revocation_deadline_ms * 1'000'000ULL, flags.strict_revocation};
  options.broker.verdict = [&policy](const model::Flow& flow) { return policy.Judge(flow); };
  options.broker.events = [&log](const broker::Event& event) { log.Write(ToLogLevel(event.level), event.what, event.fields); };
  options.broker.flows = [&flows](model::FlowEvent event) { flows.Record(std::move(event)); };
  return options;
}

broker::NodeQuestions NodeQuestionsOf(PolicyKeeper& policy, const KernelPath& kernel) {
  broker::NodeQuestions questions;
  questions.trace = [&policy](const std::string& source, const std::string& destination, const std::string& port) {
    return policy.Trace(source, destination, port);
  };
  questions.isolated = [&policy](const model::LocalPod& pod) { return policy.Isolated(pod); };
  questions.policies = [&policy] { return policy.Policies(); };
  questions.complete_status = [&policy, &kernel](model::AgentStatus* status) {
    policy.CompleteStatus(status);
    kernel.CompleteStatus(status);
  };
  questions.pods_changed = [&policy] { policy.OnPodsChanged(); };
  return questions;
}

std::map<std::string, telemetry::HttpServer::Handler> HandlersOf(broker::Node& node, const PolicyKeeper& policy,
                                                                 const telemetry::Metrics& metrics) {
  return {{"/metrics",
           [&metrics] {
             return telemetry::HttpAnswer{200, "text/plain; version=0.0.4; charset=utf-8", metrics.Render()};
           }},
          // Alive: the broker's thread answers. A probe of one that does not times out.
          {"/healthz",
           [&node] {
             static_cast<void>(node.Stats());
             return telemetry::HttpAnswer{200, "text/plain; charset=utf-8", "ok\n"};
           }},
          {"/readyz", [&policy] {
             return policy.Ready() ? telemetry::HttpAnswer{200, "text/plain; charset=utf-8", "ready\n"}
                                   : telemetry::HttpAnswer{503, "text/plain; charset=utf-8", "no policy has been read yet\n"};
           }}};
}

std::string SourceName(const Flags& flags) {
  return flags.source == SourceKind::kKube ? "kube:" + flags.kube.server : "dir:" + flags.cluster_dir;
}

constexpr char kUserAgent[] = "vsocket-agent/" VSOCKET_VERSION;

// One of the two.
struct Source {
  std::unique_ptr<kube::DirSource> directory;
  std::unique_ptr<kube::KubeSource> kube;
};

// With a directory the first snapshot comes before this returns, so the first shim is judged by the policy. An API server may be long in
// answering: until it has, upgrades are denied, and connections that an earlier agent allowed go on.
Result<Source, std::string> StartSource(const Flags& flags, PolicyKeeper& policy, telemetry::Log& log) {
  const auto snapshot = [&policy](std::shared_ptr<const model::ClusterState> state, std::vector<model::SourceProblem> problems) {
    policy.OnSnapshot(std::move(state), std::move(problems));
  };
  const auto info = [&log](const std::string& line) { log.Write(telemetry::LogLevel::kInfo, "cluster source", {{"what", line}}); };
  Source source;
  if (flags.source == SourceKind::kDirectory) {
    auto started = kube::DirSource::Start(flags.cluster_dir, snapshot, info);
    if (!started) return Failure(started.Error());
    source.directory = std::move(started.Value());
    return source;
  }
  kube::KubeSourceOptions options;
  options.access = flags.kube;
  options.node_name = flags.node_name;
  options.user_agent = kUserAgent;
  options.reflector.list_silence = std::chrono::seconds(flags.kube_timeout_seconds);
  options.reflector.watch_silence = 5 * options.reflector.list_silence;
  auto started = kube::KubeSource::Start(std::move(options), snapshot, info);
  if (!started) return Failure(started.Error());
  source.kube = std::move(started.Value());
  return source;
}

int Run(const Flags& flags) {
  const sigset_t stop = BlockSignals();
  RaiseDescriptorLimit();
  telemetry::Log log(flags.log_level, flags.log_format);
  const auto fail = [&log](const std::string& why) {
    log.Write(telemetry::LogLevel::kError, "cannot start", {{"why", why}});
    return 1;
  };

  // Null with a directory: there is nobody to tell.
  std::unique_ptr<model::EventSink> events;
  if (flags.source == SourceKind::kKube) {
    auto poster = kube::EventPoster::Start(flags.kube, flags.node_name, kUserAgent);
    if (!poster) return fail(poster.Error());
    events = std::move(poster.Value());
  }
  PolicyKeeper policy(SourceName(flags), log);
  FlowRecorder flows(policy, events.get());
  KernelPath kernel(flags.enforcement, {.cni_conf_dir = flags.cni_conf_dir}, log,
                    [&flows](const enforce::Denial& denial) { flows.RecordDenial(denial); });

  auto node = broker::Node::Open(NodeOptionsOf(flags, policy, flows, log), NodeQuestionsOf(policy, kernel));
  if (!node) return fail(node.Error());

  auto source = StartSource(flags, policy, log);
  if (!source) return fail(source.Error());
  policy.Begin(node->get(), &kernel);

  const telemetry::Metrics metrics([&] {
    model::AgentStatus known;
    policy.CompleteStatus(&known);
    telemetry::MetricsSample sample =
        SampleAgent({(*node)->Stats(), kernel.RuleCounters(), kernel.DenialCounters(), flows.Counts(), flows.Log().Lost(), known});
    if (source->kube != nullptr) AddKubeMetrics(source->kube->GetCounters(), events->GetCounters(), &sample);
    return sample;
  });
  std::unique_ptr<telemetry::HttpServer> http;
  if (!flags.http_listen.empty()) {
    auto started = telemetry::HttpServer::Start(flags.http_listen, HandlersOf(**node, policy, metrics));
    if (!started) return fail(started.Error());
    http = std::move(started.Value());
  }

  rpc::RpcServer rpc(**node, {.socket_path = flags.rpc_socket, .spool_dir = flags.spool_dir, .flows = &flows.Log()});
  const auto spool = rpc.Start();
  if (!spool) return fail(spool.Error().message);
  for (const std::string& problem : spool.Value().problems) {
    log.Write(telemetry::LogLevel::kWarning, "spool record not applied", {{"why", problem}});
  }
  kernel.Watch([&policy] { policy.OnPodsChanged(); });
  log.Write(telemetry::LogLevel::kInfo, "agent ready",
            {{"version", VSOCKET_VERSION}, {"run_dir", flags.run_dir}, {"rpc", flags.rpc_socket}, {"source", SourceName(flags)}});

  int signal = 0;
  sigwait(&stop, &signal);
  log.Write(telemetry::LogLevel::kInfo, "agent ends", {{"signal", std::to_string(signal)}});
  // Those who ask go first, what they ask about last. Rings go on without us.
  flows.Log().Close();
  rpc.Stop(kRpcGrace);
  http.reset();
  source.Value() = {};
  kernel.Stop();
  policy.End();
  node.Value().reset();
  return 0;
}

}  // namespace
}  // namespace vsocket

int main(int argc, char** argv) {
  int exit_status = 0;
  const auto flags = vsocket::ParseFlags(argc, argv, VSOCKET_VERSION, &exit_status);
  return flags ? vsocket::Run(*flags) : exit_status;
}
