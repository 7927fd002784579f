// The spool: what vsocket-cni could not tell an agent that was down, for the agent to read when it starts.
//
// One file an attachment, "<container id>@<ifname>.json", holding one vsocket.v1.SpoolRecord as protobuf JSON. A later record of the
// same attachment replaces the earlier one (rename), so a pod that came and went while the agent was down leaves only its removal.
//
// No record is lost between a plugin that finds no agent and an agent that starts at that moment:
//   agent:   listens, then applies the spool, then answers what came in meanwhile (RpcServer::Start)
//   plugin:  asks the agent (nobody there), writes the record, asks again; told this time, it takes the record back
// If the second question still finds nobody, the agent listens later than the record was written, and will read it.
#pragma once

namespace vsocket::rpc {

inline constexpr char kDefaultSpoolDir[] = "/var/lib/vsocket/cni-spool";
inline constexpr char kSpoolSuffix[] = ".json";
inline constexpr char kSpoolSeparator = '@';            // not in a container id, and an interface name ends the file name
inline constexpr char kRejectedSuffix[] = ".rejected";  // a record the agent could not read, kept for people

}  // namespace vsocket::rpc
