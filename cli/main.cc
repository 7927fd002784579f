// vsocketctl: what the agent of this node knows, for people and for scripts. The composition root.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <utility>

#include "cli/arguments.h"
#include "cli/inspector.h"
#include "cli/render.h"
#include "proto/version.h"

namespace {

using namespace vsocket::cli;  // NOLINT: this file is the tool

struct Options {
  std::string agent_socket = vsocket::rpc::kDefaultAgentSocket;
  int timeout_ms = 5000;
  std::string output = "table";
  std::string pod;
  bool watch = false;
  double interval_seconds = 1;
  std::string source, destination;
  bool all = false, follow = false, denied = false;

  [[nodiscard]] Format Form() const { return output == "json" ? Format::kJson : Format::kTable; }
};

constexpr char kExamples[] = R"(Examples:
  vsocketctl status                                is the agent well, and what has it done
  vsocketctl connections                           every connection: its path, its bytes, why it is not accelerated
  vsocketctl connections --pod shop/web --watch    one pod's, again every second
  vsocketctl pods -o json                          the pods wired on this node
  vsocketctl policy trace web shop/redis:6379      may web in "default" reach port 6379, and which policy says so
  vsocketctl policy trace web shop/dns:53/udp      the same by UDP
  vsocketctl policy list                           the policies that select pods of this node, in words
  vsocketctl flows --denied                        what policies refused or cut lately, on rings and in the kernel, and why
  vsocketctl flows --follow -o json                every event as it happens, a JSON object a line

Exit status: 0 done, 1 the agent failed, 2 wrong usage, 3 the agent does not answer, 4 no such pod or port, 5 the agent is of another
release.)";

int Finish(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  return static_cast<int>(std::fflush(stdout) == 0 ? Exit::kOk : Exit::kFailed);
}

int Fail(const CallError& error) {
  std::fprintf(stderr, "vsocketctl: %s\n", error.message.c_str());
  return static_cast<int>(error.exit);
}

template <typename Answer, typename Render>
int Show(const vsocket::Result<Answer, CallError>& answer, Render render) {
  return answer ? Finish(render(answer.Value())) : Fail(answer.Error());
}

int ShowConnections(Inspector& inspector, const Options& options) {
  std::string pod;
  if (!options.pod.empty()) {
    const auto parsed = ParsePod(options.pod);
    if (!parsed) return Fail({Exit::kUsage, "\"" + options.pod + "\" is not a pod: give NAME or NAMESPACE/NAME"});
    pod = *parsed;
  }
  const auto once = [&] {
    return Show(inspector.Connections(pod), [&](const auto& list) { return RenderConnections(list, options.Form(), options.watch); });
  };
  if (!options.watch) return once();
  // Until interrupted, or until nobody reads (SIGPIPE). An agent that is being restarted is a line on stderr, not the end.
  const bool redraw = options.Form() == Format::kTable && ::isatty(STDOUT_FILENO) == 1;
  for (;;) {
    if (redraw) std::fputs("\033[H\033[2J", stdout);
    const int status = once();
    if (status != 0 && status != static_cast<int>(Exit::kUnreachable)) return status;
    if (!redraw && options.Form() == Format::kTable) Finish("\n");
    std::this_thread::sleep_for(std::chrono::duration<double>(options.interval_seconds));
  }
}

int ShowPolicies(Inspector& inspector, const Options& options) {
  const auto policies = inspector.Policies();
  if (!policies) return Fail(policies.Error());
  return Show(inspector.Status(),
              [&](const auto& status) { return RenderPolicies(policies.Value(), status, options.all, options.Form()); });
}

int ShowFlows(Inspector& inspector, const Options& options) {
  vsocket::v1::WatchFlowsRequest request;
  request.set_follow(options.follow);
  request.set_denied(options.denied);
  if (!options.pod.empty()) {
    const auto pod = ParsePod(options.pod);
    if (!pod) return Fail({Exit::kUsage, "\"" + options.pod + "\" is not a pod: give NAME or NAMESPACE/NAME"});
    request.set_pod(*pod);
  }
  bool told = false;
  for (;;) {
    const auto asked = inspector.Flows(request, [&](const vsocket::v1::FlowsPage& page) {
      if (page.lost() != 0) std::fputs(RenderLostFlows(page.lost(), options.Form()).c_str(), stdout);
      for (const auto& event : page.events()) {
        std::fputs(RenderFlow(event, options.Form()).c_str(), stdout);
        request.set_after_unix_nanos(event.unix_nanos());
      }
      told = false;
      return std::fflush(stdout) == 0;  // nobody reads any more
    });
    if (!options.follow) return asked ? static_cast<int>(Exit::kOk) : Fail(asked.Error());
    if (!asked && asked.Error().exit != Exit::kUnreachable) return Fail(asked.Error());
    if (std::ferror(stdout) != 0) return static_cast<int>(Exit::kFailed);
    // An agent that is being restarted is a line on stderr, not the end: what the next one has to tell is later than what was told.
    if (!asked && !std::exchange(told, true)) Fail(asked.Error());
    std::this_thread::sleep_for(std::chrono::duration<double>(options.interval_seconds));
  }
}

int Trace(Inspector& inspector, const Options& options) {
  const auto source = ParsePod(options.source);
  if (!source) return Fail({Exit::kUsage, "\"" + options.source + "\" is not a pod: give NAME or NAMESPACE/NAME"});
  const auto destination = ParsePodPort(options.destination);
  if (!destination) {
    return Fail({Exit::kUsage, "\"" + options.destination +
                                   "\" is not POD:PORT: give NAME:PORT or NAMESPACE/NAME:PORT, the port as a number or a name, " +
                                   "then /udp or /sctp when it is not TCP"});
  }
  vsocket::v1::TracePolicyRequest request;
  request.set_source_pod(*source);
  request.set_destination_pod(destination->pod);
  request.set_port(destination->port);
  return Show(inspector.TracePolicy(request), [&](const auto& verdict) { return RenderTrace(request, verdict, options.Form()); });
}

}  // namespace

int main(int argc, char** argv) {
  ::setenv("GRPC_VERBOSITY", "NONE", 0);
  Options options;
  CLI::App app("vsocketctl asks the vsocket agent of this node.", "vsocketctl");
  app.footer(kExamples);
  app.require_subcommand(1);
  app.fallthrough();  // options may follow the command
  app.add_option("--agent-socket,--socket", options.agent_socket, "the agent's gRPC socket")->capture_default_str();
  app.add_option("--timeout-ms", options.timeout_ms, "how long the agent may take")->check(CLI::Range(1, 600000))->capture_default_str();
  app.add_option("-o,--output", options.output, "table or json")->check(CLI::IsMember({"table", "json"}))->capture_default_str();

  int status = 0;
  const auto inspector = [&] { return Inspector(options.agent_socket, std::chrono::milliseconds(options.timeout_ms)); };

  app.add_subcommand("status", "is the agent well, what does it read, what has it done")->callback([&] {
    status = Show(inspector().Status(), [&](const auto& answer) { return RenderStatus(answer, options.Form()); });
  });
  app.add_subcommand("pods", "the pods wired on this node")->callback([&] {
    status = Show(inspector().Pods(), [&](const auto& answer) { return RenderPods(answer, options.Form()); });
  });

  CLI::App* connections = app.add_subcommand("connections", "the connections of the pods: path, bytes, and why one is not accelerated");
  connections->add_option("--pod", options.pod, "only those of this pod, NAME or NAMESPACE/NAME");
  connections->add_flag("--watch,-w", options.watch, "again and again, until interrupted; with -o json one line each time");
  connections->add_option("--interval", options.interval_seconds, "seconds between looks with --watch")
      ->check(CLI::Range(0.05, 3600.0))
      ->capture_default_str();
  connections->callback([&] {
    Inspector asks = inspector();
    status = ShowConnections(asks, options);
  });

  CLI::App* policy = app.add_subcommand("policy", "what NetworkPolicies decide");
  policy->require_subcommand(1);
  CLI::App* trace = policy->add_subcommand("trace", "whether one pod may open a connection to another, both directions explained");
  trace->add_option("SOURCE", options.source, "the pod that connects, NAME or NAMESPACE/NAME")->required();
  trace
      ->add_option("DESTINATION:PORT", options.destination,
                   "the pod and port that it connects to; the port by number or name, then /udp or /sctp when it is not TCP")
      ->required();
  trace->callback([&] {
    Inspector asks = inspector();
    status = Trace(asks, options);
  });

  CLI::App* list = policy->add_subcommand("list", "the policies in force in words, and which pods of this node they select");
  list->add_flag("--all", options.all, "also those that select no pod of this node");
  list->callback([&] {
    Inspector asks = inspector();
    status = ShowPolicies(asks, options);
  });

  CLI::App* flows =
      app.add_subcommand("flows", "what policies allowed on rings, denied and cut lately: path, direction, policy and reason");
  flows->add_flag("--follow,-f", options.follow, "go on with what comes, until interrupted");
  flows->add_flag("--denied", options.denied, "only what was denied or cut");
  flows->add_option("--pod", options.pod, "only what has this pod at either end, NAME or NAMESPACE/NAME");
  flows->callback([&] {
    Inspector asks = inspector();
    status = ShowFlows(asks, options);
  });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // CLI11's own statuses begin at 100; help is no error.
    return app.exit(error) == 0 ? 0 : static_cast<int>(Exit::kUsage);
  }
  return status;
}
