// TLS for both ends of a stream between agents. Certificates and roots are files that are read anew when they change: a stream that is up
// stays up, the next handshake uses what is there then.
//
// Only peer/ sees this header.
//
// Thread safety: every method from any thread; `refused` is called on gRPC's threads.
#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <functional>
#include <memory>
#include <string>

namespace grpc::experimental {
class CertificateProviderInterface;
}

namespace vsocket::peer {

struct CertificateFiles {
  std::string certificate;  // PEM: the agent's, then intermediates
  std::string key;          // PEM
  std::string roots;        // PEM: who may sign agents' certificates
};

class Credentials {
 public:
  // `refused`: a far agent was not let in, or its certificate not believed; in words, for the log.
  Credentials(CertificateFiles files, std::string trust_domain, std::function<void(const std::string&)> refused);

  // For a call to this node's agent and no other's.
  [[nodiscard]] std::shared_ptr<grpc::ChannelCredentials> ForCalling(const std::string& node) const;
  // For any node of the trust domain: which one it was is in the call's auth context.
  [[nodiscard]] std::shared_ptr<grpc::ServerCredentials> ForListening() const;
  // What is wrong with this node's own files now; empty: nothing.
  [[nodiscard]] std::string Problem(const std::string& node) const;

 private:
  const CertificateFiles files_;
  const std::string trust_domain_;
  const std::function<void(const std::string&)> refused_;
  std::shared_ptr<grpc::experimental::CertificateProviderInterface> provider_;
};

}  // namespace vsocket::peer
