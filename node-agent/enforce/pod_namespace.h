// Work inside a pod's network namespace, or nowhere.
#pragma once

#include <functional>
#include <optional>

#include "node-agent/enforce/enforcer.h"
#include "node-agent/model/local_pod.h"

namespace vsocket::enforce {

// Runs `work` in the namespace that the pod was wired in, and waits for it; sockets and processes made there belong there. Nothing is run,
// and the error says why, when the namespace is gone, is another one than at ADD, or is the agent's own.
// Thread safety: any thread; the work runs on one of its own.
std::optional<ApplyError> InsidePod(const model::LocalPod& pod, const std::function<void()>& work);

}  // namespace vsocket::enforce
