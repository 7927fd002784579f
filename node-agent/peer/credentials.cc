#include "node-agent/peer/credentials.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <ctime>
#include <fstream>
#include <iterator>
#include <utility>

#include "node-agent/peer/identity.h"

namespace vsocket::peer {
namespace {

using grpc::experimental::ExternalCertificateVerifier;
using grpc::experimental::TlsCustomVerificationCheckRequest;

constexpr unsigned kLookSeconds = 1;  // how often the provider looks whether the files have changed

std::string Content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string Text(grpc::string_ref text) {
  return {text.data(), text.size()};
}

// Runs after the handshake has shown that the far side has the certificate's key.
class Verifier : public ExternalCertificateVerifier {
 public:
  // `node` empty: any.
  Verifier(std::string roots, std::string trust_domain, std::string node, std::function<void(const std::string&)> refused)
      : roots_(std::move(roots)), trust_domain_(std::move(trust_domain)), node_(std::move(node)), refused_(std::move(refused)) {}

  bool Verify(TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)>, grpc::Status* status) override {
    // A server is not shown the certificate again in the chain, a client is: twice does no harm.
    const std::string chain = Text(request->peer_cert()) + Text(request->peer_cert_full_chain());
    auto identity = VerifyNode(chain, Content(roots_), trust_domain_, std::time(nullptr));
    std::string why;
    if (!identity) {
      why = identity.Error();
    } else if (!node_.empty() && identity->node != node_) {
      why = "the certificate is that of node " + identity->node + ", the one called is node " + node_;
    }
    if (why.empty()) {
      *status = grpc::Status::OK;
    } else {
      *status = {grpc::StatusCode::UNAUTHENTICATED, why};
      refused_(why);
    }
    return true;
  }
  void Cancel(TlsCustomVerificationCheckRequest*) override {}

 private:
  const std::string roots_, trust_domain_, node_;
  const std::function<void(const std::string&)> refused_;
};

}  // namespace

Credentials::Credentials(CertificateFiles files, std::string trust_domain, std::function<void(const std::string&)> refused)
    : files_(std::move(files)),
      trust_domain_(std::move(trust_domain)),
      refused_(std::move(refused)),
      provider_(std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(files_.key, files_.certificate, kLookSeconds)) {}

std::shared_ptr<grpc::ChannelCredentials> Credentials::ForCalling(const std::string& node) const {
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(provider_);
  options.watch_identity_key_cert_pairs();
  // All of it is Verifier's: gRPC's own check would say no more than "handshake failed".
  options.set_verify_server_certs(false);
  options.set_check_call_host(false);
  options.set_certificate_verifier(ExternalCertificateVerifier::Create<Verifier>(files_.roots, trust_domain_, node, refused_));
  return grpc::experimental::TlsCredentials(options);
}

std::shared_ptr<grpc::ServerCredentials> Credentials::ForListening() const {
  grpc::experimental::TlsServerCredentialsOptions options(provider_);
  options.watch_identity_key_cert_pairs();
  // Required, and verified: by Verifier.
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_BUT_DONT_VERIFY);
  options.set_check_call_host(false);
  options.set_certificate_verifier(ExternalCertificateVerifier::Create<Verifier>(files_.roots, trust_domain_, "", refused_));
  return grpc::experimental::TlsServerCredentials(options);
}

std::string Credentials::Problem(const std::string& node) const {
  return ProblemOf(Content(files_.certificate), Content(files_.key), Content(files_.roots), trust_domain_, node, std::time(nullptr));
}

}  // namespace vsocket::peer
