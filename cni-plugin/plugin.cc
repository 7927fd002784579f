#include "cni-plugin/plugin.h"

#include <optional>
#include <utility>

namespace vsocket::cni {
namespace {

using Kind = Answer::Kind;

Outcome FailWith(const std::string& cni_version, const Error& error) {
  return {1, RenderError(cni_version, error), ""};
}

std::string Line(const std::string& text) {
  return "vsocket-cni: " + text + "\n";
}

bool IsAbsent(Kind kind) {
  return kind == Kind::kUnreachable || kind == Kind::kTimedOut || kind == Kind::kOtherVersion;
}

Error ErrorOf(const Answer& answer) {
  switch (answer.kind) {
    case Kind::kUnreachable:
    case Kind::kTimedOut:
      return {Code::kTryAgainLater, answer.message, ""};
    case Kind::kOtherVersion:
      return {Code::kOtherAgentVersion, answer.message, "install the plugin and the agent of one release"};
    case Kind::kNotFound:
      return {Code::kUnknownContainer, answer.message, ""};
    case Kind::kDiffers:
      return {Code::kWiredDifferently, answer.message, ""};
    case Kind::kOk:
    case Kind::kRefused:
      break;
  }
  return {Code::kAgentRefused, answer.message, ""};
}

Pod PodOf(const Invocation& invocation, const NetnsFacts& facts) {
  return {invocation.pod_uid, invocation.pod_ns, invocation.pod_name, invocation.attachment, invocation.netns, facts, invocation.ips};
}

// Asks; when nobody answers, writes the record and asks again, as proto/spool.h explains. `ask` returns an Answer, `write` a Result.
template <typename AskFn, typename WriteFn>
Answer AskOrSpool(const Attachment& attachment, Spool& spool, std::string& log, AskFn ask, WriteFn write) {
  Answer answer = ask();
  if (!IsAbsent(answer.kind)) return answer;
  if (auto written = write(); !written) {
    log += Line("cannot tell the agent later either: " + written.Error());
    return answer;
  }
  if (answer.kind != Kind::kUnreachable) return answer;
  answer = ask();
  if (!IsAbsent(answer.kind)) spool.Forget(attachment);
  return answer;
}

Outcome Add(const Invocation& call, const Seams& seams) {
  auto facts = seams.read_netns(call.netns);
  if (!facts) return FailWith(call.cni_version, {Code::kUnknownContainer, "the network namespace cannot be opened", facts.Error()});
  const Pod pod = PodOf(call, *facts);

  Outcome outcome;
  Answer answer;
  if (call.settings.required) {
    // The runtime tries again or gives up; a record left behind would bring back a pod that never was.
    answer = seams.agent.AddPod(pod);
    if (answer.kind != Kind::kOk) return FailWith(call.cni_version, ErrorOf(answer));
  } else {
    answer = AskOrSpool(
        call.attachment, seams.spool, outcome.log, [&] { return seams.agent.AddPod(pod); }, [&] { return seams.spool.Add(pod); });
  }
  if (answer.kind != Kind::kOk) outcome.log += Line(answer.message + "; the pod runs on plain TCP");
  outcome.out = call.previous_result;
  return outcome;
}

// Never fails: the runtime would repeat it for ever, and there is nothing of ours in the kernel that it must not leave behind.
Outcome Del(const Invocation& call, const Seams& seams) {
  Outcome outcome;
  // First: an arrival still in the spool must not be read after this.
  seams.spool.Forget(call.attachment);
  const Answer answer = AskOrSpool(
      call.attachment, seams.spool, outcome.log, [&] { return seams.agent.RemovePod(call.attachment); },
      [&] { return seams.spool.Remove(call.attachment); });
  if (answer.kind != Kind::kOk) outcome.log += Line(answer.message);
  return outcome;
}

Outcome Check(const Invocation& call, const Seams& seams) {
  auto facts = seams.read_netns(call.netns);
  if (!facts) return FailWith(call.cni_version, {Code::kUnknownContainer, "the network namespace cannot be opened", facts.Error()});
  const Answer answer = seams.agent.CheckPod(PodOf(call, *facts));
  if (answer.kind == Kind::kOk) return {};
  if (IsAbsent(answer.kind) && !call.settings.required) return {0, "", Line(answer.message + "; not checked")};
  return FailWith(call.cni_version, ErrorOf(answer));
}

// Anything but 0 makes the node NotReady, so without "required" the answer is 0: pods can start, on plain TCP.
Outcome Status(const Invocation& call, const Seams& seams) {
  const Answer answer = seams.agent.Status();
  if (answer.kind == Kind::kOk) return {};
  if (!call.settings.required) return {0, "", Line(answer.message + "; pods start on plain TCP")};
  const Code code = answer.kind == Kind::kUnreachable ? Code::kUnavailable : Code::kUnavailableAndLimited;
  return FailWith(call.cni_version, {code, answer.message, ""});
}

Outcome Collect(const Invocation& call, const Seams& seams) {
  const Answer answer = seams.agent.CollectPods(call.keep);
  if (answer.kind == Kind::kOk) return {};
  if (IsAbsent(answer.kind) && !call.settings.required) return {0, "", Line(answer.message + "; nothing collected")};
  return FailWith(call.cni_version, ErrorOf(answer));
}

}  // namespace

Outcome Run(const Invocation& invocation, const Seams& seams) {
  switch (invocation.command) {
    case Command::kAdd:
      return Add(invocation, seams);
    case Command::kDel:
      return Del(invocation, seams);
    case Command::kCheck:
      return Check(invocation, seams);
    case Command::kStatus:
      return Status(invocation, seams);
    case Command::kGc:
      return Collect(invocation, seams);
    case Command::kVersion:
      break;
  }
  return {0, RenderVersions(invocation.cni_version), ""};
}

Outcome Refuse(const Error& error) {
  return FailWith(kSpecVersion, error);
}

}  // namespace vsocket::cni
