#include "node-agent/kube/api_access.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/unique_fd.h"

namespace vsocket::kube {
namespace {

constexpr const char* kServiceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token";
constexpr const char* kServiceAccountCa = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
constexpr std::size_t kLargestFile = std::size_t{1} << 20;

Result<std::string, std::string> ReadFile(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.Valid()) return Failure("cannot open " + path + ": " + std::strerror(errno));
  std::string text;
  char chunk[16384];
  while (text.size() <= kLargestFile) {
    const ssize_t got = ::read(fd.Get(), chunk, sizeof(chunk));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Failure("cannot read " + path + ": " + std::strerror(errno));
    if (got == 0) return text;
    text.append(chunk, static_cast<std::size_t>(got));
  }
  return Failure(path + " is larger than " + std::to_string(kLargestFile) + " bytes");
}

// RFC 6750 section 2.1: a token is of visible ASCII characters. Anything else could become a header of its own.
bool IsToken(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

}  // namespace

ApiAccess InClusterAccess() {
  ApiAccess access;
  const char* host = std::getenv("KUBERNETES_SERVICE_HOST");
  const char* port = std::getenv("KUBERNETES_SERVICE_PORT");
  if (host != nullptr && *host != '\0') {
    const std::string name = host;
    access.server = "https://" + (name.find(':') != std::string::npos ? "[" + name + "]" : name);
    if (port != nullptr && *port != '\0') access.server += std::string(":") + port;
  }
  access.token_file = kServiceAccountToken;
  access.ca_file = kServiceAccountCa;
  return access;
}

std::string WhyUnusable(const ApiAccess& access) {
  if (access.server.empty()) return "no API server is named, and KUBERNETES_SERVICE_HOST is not set";
  const std::string scheme = "https://";
  if (access.server.rfind(scheme, 0) != 0) return "the API server's URL must begin with https://, or the token could be read on the way";
  const std::string rest = access.server.substr(scheme.size());
  if (rest.empty() || rest.find_first_of("/?#@ \t\r\n") != std::string::npos) {
    return "the API server's URL must be https://HOST:PORT and nothing more";
  }
  if (access.cert_file.empty() != access.key_file.empty()) return "a client certificate and its key go together";
  return {};
}

Result<Credentials, std::string> ReadCredentials(const ApiAccess& access) {
  Credentials credentials;
  const auto read = [](const std::string& path, std::string& into) {
    if (path.empty()) return std::string();
    auto text = ReadFile(path);
    if (!text) return text.Error();
    if (text->empty()) return path + " is empty";
    into = std::move(text.Value());
    return std::string();
  };
  for (const std::string& error : {read(access.token_file, credentials.token), read(access.ca_file, credentials.ca),
                                   read(access.cert_file, credentials.cert), read(access.key_file, credentials.key)}) {
    if (!error.empty()) return Failure(error);
  }
  if (!access.token_file.empty()) {
    while (!credentials.token.empty() && std::strchr(" \t\r\n", credentials.token.back()) != nullptr) credentials.token.pop_back();
    if (!IsToken(credentials.token)) return Failure(access.token_file + " holds no token");
  }
  return credentials;
}

}  // namespace vsocket::kube
