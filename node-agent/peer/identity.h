// Whose certificate it is. The identity of an agent is its node, as a SPIFFE ID in the certificate's only URI name:
// spiffe://TRUST-DOMAIN/vsocket/node/NODE (SPIFFE ID and X.509-SVID specifications, sections 2 and 4). Everything about a far certificate
// is decided here, with OpenSSL, rather than in gRPC's handshake, so that a refusal can be told in words.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace vsocket::peer {

struct NodeIdentity {
  std::string node;
  std::int64_t not_after = 0;  // seconds since 1970: when the certificate runs out
};

// The name that a node's certificate must hold.
std::string SpiffeId(const std::string& trust_domain, const std::string& node);

// Whose the certificate is, when it can be believed: signed, perhaps over intermediates, by one of `roots_pem`; valid at `now` (seconds
// since 1970); made for both ends of TLS; and of a node of this trust domain. `chain_pem`: the certificate first. The error says what is
// wrong, and of which certificate.
Result<NodeIdentity, std::string> VerifyNode(const std::string& chain_pem, const std::string& roots_pem, const std::string& trust_domain,
                                             std::int64_t now);

// What a certificate says, without asking whether it can be believed: for one that VerifyNode has passed in the handshake.
Result<NodeIdentity, std::string> ReadIdentity(const std::string& certificate_pem, const std::string& trust_domain);

// What is wrong with this node's own files, before a far agent has to say it: a certificate of another node or that has run out, a key that
// is not the certificate's. Empty: nothing.
std::string ProblemOf(const std::string& chain_pem, const std::string& key_pem, const std::string& roots_pem,
                      const std::string& trust_domain, const std::string& node, std::int64_t now);

}  // namespace vsocket::peer
