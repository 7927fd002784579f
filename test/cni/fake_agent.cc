// The agent's gRPC socket over a registry in memory, for what a real agent cannot be made to do at will: another release, not ready,
// nothing else on the machine. SIGTERM ends it; the names of what it was told go to stdout at the end, a line each.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdint>
#include <iostream>
#include <string>

#include "node-agent/rpc/fake_node_api.h"
#include "node-agent/rpc/rpc_server.h"

int main(int argc, char** argv) {
  vsocket::rpc::RpcServerOptions options;
  bool not_ready = false;
  CLI::App app("The agent's gRPC socket over a registry in memory");
  app.add_option("--socket", options.socket_path, "where to listen")->required();
  app.add_option("--spool", options.spool_dir, "the spool to apply at the start");
  app.add_option("--protocol", options.protocol_version, "the protocol version to speak");
  app.add_flag("--not-ready", not_ready, "say so when asked for the status");
  CLI11_PARSE(app, argc, argv);

  // Blocked before any thread exists, so that all inherit it and sigwait(3) alone receives the signal.
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);

  vsocket::rpc::FakeNodeApi api;
  api.status.version = "fake";
  api.status.ready = !not_ready;
  vsocket::rpc::RpcServer server(api, options);
  auto started = server.Start();
  if (!started) {
    std::cerr << started.Error().message << "\n";
    return 1;
  }
  std::cout << "serving" << std::endl;
  int signal = 0;
  sigwait(&ends, &signal);
  server.Stop(std::chrono::milliseconds(500));
  for (const std::string& call : api.Calls()) std::cout << call << "\n";
  return 0;
}
