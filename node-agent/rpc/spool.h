// Reads what vsocket-cni wrote while no agent answered (proto/spool.h), for an agent that starts.
//
// Thread safety: none needed; one agent reads, and only at its start, under the lock of RpcServer. Plugins may write meanwhile.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "node-agent/model/node_api.h"

namespace vsocket::rpc {

struct SpoolReport {
  std::uint32_t added = 0;            // pods wired late
  std::uint32_t removed = 0;          // attachments forgotten late
  std::uint32_t stale = 0;            // of an earlier boot, or the network namespace is gone: dropped
  std::vector<std::string> problems;  // a line each, naming the file: unreadable records, and what the api refused
};

// Applies the records in `dir` to `api`, oldest first, and deletes each once it is applied.
//   stale                                    dropped
//   unreadable or of another version         kept aside as FILE.rejected, and a problem
//   refused for good (kInvalid, kNotFound)   dropped, and a problem
//   refused for now (any other error)        kept for the next start, and a problem
// A missing directory is an empty one. Never fails: what goes wrong is in the report.
SpoolReport ApplySpool(const std::string& dir, model::NodeApi& api);

}  // namespace vsocket::rpc
