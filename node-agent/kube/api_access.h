// Where the API server is and how to show who we are, with everything that may be rotated read anew for each request.
//
// Thread safety: immutable; any thread.
#pragma once

#include <string>

#include "base/result.h"

namespace vsocket::kube {

struct ApiAccess {
  std::string server;               // "https://host:port", no path; nothing but HTTPS
  std::string token_file;           // a bearer token; empty: none
  std::string ca_file;              // PEM certificates that sign the server's; empty: those that this machine trusts
  std::string cert_file, key_file;  // PEM; a client certificate, both or neither
};

// What a pod finds by itself (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/): KUBERNETES_SERVICE_HOST and
// KUBERNETES_SERVICE_PORT, and the service account's files. `server` is empty outside of a cluster.
ApiAccess InClusterAccess();

// Empty, or what is wrong with it, for the person who set it.
std::string WhyUnusable(const ApiAccess& access);

struct Credentials {
  std::string token, ca, cert, key;  // contents; empty: none is wanted
};
// Fails when a file that is named cannot be read or makes no sense; the error names it.
Result<Credentials, std::string> ReadCredentials(const ApiAccess& access);

}  // namespace vsocket::kube
