#include "node-agent/enforce/nft_applier.h"

#include <optional>
#include <utility>

#include "node-agent/enforce/pod_namespace.h"
#include "node-agent/enforce/run_program.h"

namespace vsocket::enforce {
namespace {

ApplyError Broken(std::string what) {
  return {false, std::move(what)};
}

std::optional<ApplyError> RunNft(const std::string& nft_path, const std::string& text, std::chrono::milliseconds timeout) {
  const ProgramResult result = RunProgram({nft_path, "-f", "-"}, text, timeout);
  if (result.exit_status == 0) return std::nullopt;
  if (!result.trouble.empty()) return Broken(result.trouble);
  return Broken("nft refused the rules: " + result.output);
}

}  // namespace

NftApplier::NftApplier(std::string nft_path, std::chrono::milliseconds timeout) : nft_path_(std::move(nft_path)), timeout_(timeout) {}

Result<Applied, ApplyError> NftApplier::Apply(const model::LocalPod& pod, const std::vector<std::string>& texts) {
  std::optional<ApplyError> refused;
  auto error = InsidePod(pod, [&] {
    for (const std::string& text : texts) {
      if (!refused) refused = RunNft(nft_path_, text, timeout_);
    }
  });
  if (!error) error = std::move(refused);
  if (error) return Failure<ApplyError>(*std::move(error));
  return Applied{};
}

Result<std::string, ApplyError> NftApplier::ListHook(const model::LocalPod& pod) {
  ProgramResult result;
  if (auto error = InsidePod(pod, [&] { result = RunProgram({nft_path_, "list", "chain", "inet", "vsocket", "input"}, "", timeout_); })) {
    return Failure<ApplyError>(*std::move(error));
  }
  if (!result.trouble.empty()) return Failure(Broken(result.trouble));
  // Any failure but "no such thing" is met again by who writes there.
  return result.exit_status == 0 ? result.output + "\n" : std::string();
}

}  // namespace vsocket::enforce
