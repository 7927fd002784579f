// libFuzzer target: any bytes as what an API server sends, as a list and as a watch, in pieces of a size that the first byte chooses.
// Whatever comes, memory is bounded, and what is taken is usable: every object is named, every invalid one closes what it concerns.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "node-agent/kube/json_stream.h"
#include "node-agent/kube/json_tree.h"
#include "node-agent/kube/replica.h"

namespace {

using namespace vsocket::kube;  // NOLINT(google-build-using-namespace): one short file

void Require(bool holds) {
  if (!holds) std::abort();
}

constexpr StreamLimits kLimits{std::size_t{1} << 14, std::size_t{1} << 12};  // smaller than in production, so that they are reached
constexpr vsocket::kube::YamlLimits kTreeLimits{std::size_t{1} << 14, 32, 1000};

// The object of an event, or an item of a list.
void TakeIn(Replica& replica, std::string_view text, bool in_list) {
  Require(!text.empty() && text.size() <= kLimits.object_bytes && text.front() == '{');
  auto tree = ParseJson(text, {"metadata.managedFields"}, kTreeLimits);
  if (!tree) {
    Require(!tree.Error().empty());
    return;
  }
  const YamlNode* object = in_list ? tree->get() : (*tree)->Find("object");
  if (object == nullptr) return;
  const auto identity = IdentityOf(*object);
  if (!identity) return;
  for (const Kind kind : kKinds) {
    Require(in_list ? replica.AddToList(kind, identity.Value(), *object) : replica.Put(kind, identity.Value(), *object));
  }
}

template <typename Decoder>
void Feed(Decoder& decoder, std::string_view bytes, std::size_t piece, Replica& replica, bool in_list) {
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    const bool going_on = decoder.Feed(bytes.substr(at, piece), [&](std::string_view text) {
      TakeIn(replica, text, in_list);
      return true;
    });
    Require(going_on != !decoder.Error().empty());
    if (!going_on) return;
  }
}

void Check(const Replica::View& view) {
  for (const auto& problem : view.problems) Require(!problem.where.empty() && !problem.what.empty());
  for (const auto& policy : view.state.policies) Require(!policy->name.empty());
  for (const auto& pod : view.state.pods) Require(!pod->name.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::size_t piece = 1 + data[0];
  Replica replica;
  for (const Kind kind : kKinds) replica.BeginList(kind);
  ListDecoder list(kLimits);
  Feed(list, bytes, piece, replica, true);
  const auto end = list.Finish();
  Require(end.Ok() ? !end.Value().resource_version.empty() : !end.Error().empty());
  for (const Kind kind : kKinds) replica.EndList(kind);
  WatchDecoder watch(kLimits);
  Feed(watch, bytes, piece, replica, false);
  Require(replica.Complete());
  Check(replica.Assemble());
  return 0;
}
