#include "node-agent/peer/identity.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <ctime>
#include <memory>
#include <string_view>
#include <vector>

namespace vsocket::peer {
namespace {

constexpr std::string_view kScheme = "spiffe://";
constexpr std::string_view kNodePath = "/vsocket/node/";
constexpr int kMostIntermediates = 4;
constexpr std::size_t kMostCertificates = 32;  // of a file of roots, or a chain
constexpr std::size_t kLongestNode = 253;

template <typename T, void (*kFree)(T*)>
struct Freer {
  void operator()(T* what) const { kFree(what); }
};
void FreeBio(BIO* bio) {
  BIO_free(bio);
}
void FreeNames(GENERAL_NAMES* names) {
  GENERAL_NAMES_free(names);
}
using Bio = std::unique_ptr<BIO, Freer<BIO, FreeBio>>;
using Certificate = std::unique_ptr<X509, Freer<X509, X509_free>>;
using Store = std::unique_ptr<X509_STORE, Freer<X509_STORE, X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, Freer<X509_STORE_CTX, X509_STORE_CTX_free>>;
using Names = std::unique_ptr<GENERAL_NAMES, Freer<GENERAL_NAMES, FreeNames>>;
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY, EVP_PKEY_free>>;

using Error = Failure<std::string>;

Bio Reading(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::vector<Certificate> ReadAll(const std::string& pem) {
  std::vector<Certificate> found;
  const Bio bio = Reading(pem);
  while (found.size() < kMostCertificates) {
    Certificate one(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (!one) break;
    found.push_back(std::move(one));
  }
  ERR_clear_error();  // the last read fails by design
  return found;
}

std::string Date(std::int64_t seconds) {
  const std::time_t time = seconds;
  std::tm parts{};
  char text[32];
  if (::gmtime_r(&time, &parts) == nullptr || std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts) == 0) return "?";
  return text;
}

std::int64_t Seconds(const ASN1_TIME* time) {
  std::tm parts{};
  return ASN1_TIME_to_tm(time, &parts) == 1 ? static_cast<std::int64_t>(::timegm(&parts)) : 0;
}

// The URI names; nothing when there are none. Every byte of them counts: a name with a zero byte in it is no name.
std::vector<std::string> UriNames(const X509& certificate) {
  std::vector<std::string> found;
  const Names names(static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(&certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* text = name->d.uniformResourceIdentifier;
    found.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)), static_cast<std::size_t>(ASN1_STRING_length(text)));
  }
  return found;
}

bool IsNodeName(std::string_view name) {
  if (name.empty() || name.size() > kLongestNode) return false;
  for (const char c : name) {
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.')) return false;
  }
  return true;
}

Result<std::string, std::string> NodeOf(const X509& certificate, const std::string& trust_domain) {
  const auto uris = UriNames(certificate);
  if (uris.size() != 1) return Error("the certificate has " + std::to_string(uris.size()) + " URI names, an agent's has one");
  const std::string start = SpiffeId(trust_domain, "");
  const std::string& uri = uris[0];
  const std::string_view node = uri.size() > start.size() ? std::string_view(uri).substr(start.size()) : std::string_view();
  if (uri.compare(0, start.size(), start) != 0 || !IsNodeName(node)) {
    std::string shown;
    for (const char c : uri.substr(0, kLongestNode)) shown += c >= 0x20 && c < 0x7f ? c : '?';
    return Error("\"" + shown + "\" is no agent of the trust domain " + trust_domain);
  }
  return std::string(node);
}

// nullopt-like: empty when the chain holds.
std::string ProblemOfChain(X509* leaf, const std::vector<Certificate>& chain, const std::string& roots_pem, int purpose, std::int64_t now) {
  const Store store(X509_STORE_new());
  const auto roots = ReadAll(roots_pem);
  if (roots.empty()) return "there is no root certificate to trust";
  for (const Certificate& root : roots) X509_STORE_add_cert(store.get(), root.get());
  STACK_OF(X509)* between = sk_X509_new_null();
  for (std::size_t i = 1; i < chain.size(); ++i) sk_X509_push(between, chain[i].get());
  const StoreContext context(X509_STORE_CTX_new());
  std::string problem;
  if (X509_STORE_CTX_init(context.get(), store.get(), leaf, between) != 1) {
    problem = "OpenSSL cannot verify";
  } else {
    X509_VERIFY_PARAM* parameters = X509_STORE_CTX_get0_param(context.get());
    X509_VERIFY_PARAM_set_time(parameters, now);
    X509_VERIFY_PARAM_set_depth(parameters, kMostIntermediates);
    X509_VERIFY_PARAM_set_purpose(parameters, purpose);
    if (X509_verify_cert(context.get()) != 1) {
      const int code = X509_STORE_CTX_get_error(context.get());
      problem = X509_verify_cert_error_string(code);
      const X509* culprit = X509_STORE_CTX_get_current_cert(context.get());
      if (culprit != nullptr && code == X509_V_ERR_CERT_HAS_EXPIRED) problem += " on " + Date(Seconds(X509_get0_notAfter(culprit)));
      if (culprit != nullptr && code == X509_V_ERR_CERT_NOT_YET_VALID) problem += " before " + Date(Seconds(X509_get0_notBefore(culprit)));
    }
  }
  sk_X509_free(between);
  ERR_clear_error();
  return problem;
}

}  // namespace

std::string SpiffeId(const std::string& trust_domain, const std::string& node) {
  return std::string(kScheme) + trust_domain + std::string(kNodePath) + node;
}

Result<NodeIdentity, std::string> VerifyNode(const std::string& chain_pem, const std::string& roots_pem, const std::string& trust_domain,
                                             std::int64_t now) {
  const auto chain = ReadAll(chain_pem);
  if (chain.empty()) return Error("no certificate was shown");
  X509* leaf = chain[0].get();
  auto node = NodeOf(*leaf, trust_domain);
  if (!node) return Error(node.Error());
  // An agent's certificate serves both ends: the same agent calls and is called.
  for (const int purpose : {X509_PURPOSE_SSL_CLIENT, X509_PURPOSE_SSL_SERVER}) {
    const std::string problem = ProblemOfChain(leaf, chain, roots_pem, purpose, now);
    if (!problem.empty()) return Error("the certificate of node " + node.Value() + ": " + problem);
  }
  return NodeIdentity{node.Value(), Seconds(X509_get0_notAfter(leaf))};
}

Result<NodeIdentity, std::string> ReadIdentity(const std::string& certificate_pem, const std::string& trust_domain) {
  const auto chain = ReadAll(certificate_pem);
  if (chain.empty()) return Error("no certificate was shown");
  auto node = NodeOf(*chain[0], trust_domain);
  if (!node) return Error(node.Error());
  return NodeIdentity{node.Value(), Seconds(X509_get0_notAfter(chain[0].get()))};
}

std::string ProblemOf(const std::string& chain_pem, const std::string& key_pem, const std::string& roots_pem,
                      const std::string& trust_domain, const std::string& node, std::int64_t now) {
  auto own = VerifyNode(chain_pem, roots_pem, trust_domain, now);
  if (!own) return own.Error();
  if (own->node != node) return "the certificate is that of node " + own->node + ", this is node " + node;
  const Bio bio = Reading(key_pem);
  // Nobody is there to type a password.
  const auto no_password = [](char*, int, int, void*) { return 0; };
  const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
  const auto chain = ReadAll(chain_pem);
  const bool fits = key && X509_check_private_key(chain[0].get(), key.get()) == 1;
  ERR_clear_error();
  return fits ? "" : "the key is not the certificate's";
}

}  // namespace vsocket::peer
