// What identifies a network namespace, read from the kernel.
#pragma once

#include <string>

#include "base/result.h"
#include "cni-plugin/agent.h"

namespace vsocket::cni {

// Enters the namespace in a thread of its own, so the calling thread stays where it is (setns(2): per thread). The error, in words, is
// of opening `path`; a namespace that may not be entered gives a cookie of 0.
Result<NetnsFacts, std::string> ReadNetns(const std::string& path);

}  // namespace vsocket::cni
