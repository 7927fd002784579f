// libFuzzer target: any bytes as a manifest. Besides not crashing, what comes out must be usable: every object named, every error with a
// sentence, every invalid policy replaced.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "node-agent/kube/manifest.h"

namespace {

void Require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // Smaller bounds than in production, so that they are reached.
  const vsocket::kube::YamlLimits limits{std::size_t{1} << 16, 32, 10000};
  const auto manifest = vsocket::kube::ReadManifest({reinterpret_cast<const char*>(data), size}, limits);
  for (const auto& error : manifest.errors) Require(!error.what.empty() && error.line >= 0);
  for (const auto& pod : manifest.pods) Require(!pod.object.name.empty() && !pod.object.ns.empty() && pod.line > 0);
  for (const auto& policy : manifest.policies) {
    Require(!policy.object.name.empty() && !policy.object.ns.empty());
    for (const auto* rules : {&policy.object.ingress, &policy.object.egress}) {
      for (const auto& rule : *rules) {
        for (const auto& peer : rule.peers) Require(peer.ip_block.has_value() != (peer.pod_selector || peer.namespace_selector));
        for (const auto& port : rule.ports)
          Require((!port.end || (port.number && *port.number <= *port.end)) && (port.name.empty() || !port.number));
      }
    }
  }
  for (const auto& node : manifest.nodes) Require(!node.object.name.empty() && node.line > 0);
  Require(manifest.quarantine.empty() || !manifest.errors.empty());
  return 0;
}
