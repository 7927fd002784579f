#include "node-agent/transport/fabric/fabric.h"

namespace vsocket::transport {

const char* StatusText(CompletionStatus status) {
  switch (status) {
    case CompletionStatus::kSuccess:
      return "done";
    case CompletionStatus::kFlushed:
      return "flushed after an earlier failure";
    case CompletionStatus::kRetriesExhausted:
      return "the far side does not acknowledge (retries exhausted)";
    case CompletionStatus::kReceiverNotReady:
      return "the far side has no receive posted";
    case CompletionStatus::kRemoteRefused:
      return "the far side refused the request";
    case CompletionStatus::kLocalFailure:
      return "local failure";
  }
  return "?";
}

}  // namespace vsocket::transport
