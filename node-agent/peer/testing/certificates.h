// Certificates for tests, made by OpenSSL when they are needed: an authority, and what it signs. Keys are of the P-256 curve.
// Thread safety: none.
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

namespace vsocket::peer::testing {

struct Pair {
  std::string certificate, key;  // PEM
};

struct CertificateWish {
  std::vector<std::string> uris;  // subject alternative names
  long starts_in = -3600;         // seconds from now
  long ends_in = 3600;
  const char* usage = "serverAuth,clientAuth";  // extended; nullptr: none is stated
  bool authority = false;                       // it may sign others
};

class Authority {
 public:
  explicit Authority(const std::string& name) : key_(EVP_EC_gen("P-256")), certificate_(X509_new()) {
    CertificateWish wish;
    wish.authority = true;
    wish.usage = nullptr;
    Fill(certificate_, key_, name, wish, certificate_, key_);
  }
  // An intermediate one.
  Authority(const std::string& name, Authority& above, const CertificateWish& wish) : key_(EVP_EC_gen("P-256")), certificate_(X509_new()) {
    Fill(certificate_, key_, name, wish, above.certificate_, above.key_);
  }
  ~Authority() {
    X509_free(certificate_);
    EVP_PKEY_free(key_);
  }
  Authority(const Authority&) = delete;
  Authority& operator=(const Authority&) = delete;

  [[nodiscard]] std::string Pem() const { return PemOf(certificate_); }

  Pair Sign(const CertificateWish& wish) {
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* certificate = X509_new();
    Fill(certificate, key, "agent", wish, certificate_, key_);
    Pair pair{PemOf(certificate), PemOf(key)};
    X509_free(certificate);
    EVP_PKEY_free(key);
    return pair;
  }

 private:
  static std::string Text(BIO* bio) {
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio, &data);
    std::string text(data, static_cast<std::size_t>(size));
    BIO_free(bio);
    return text;
  }
  static std::string PemOf(X509* certificate) {
    BIO* bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, certificate);
    return Text(bio);
  }
  static std::string PemOf(EVP_PKEY* key) {
    BIO* bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PKCS8PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
    return Text(bio);
  }
  static void Extend(X509* certificate, X509* issuer, int kind, const std::string& value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str());
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }
  static void Fill(X509* certificate, EVP_PKEY* key, const std::string& name, const CertificateWish& wish, X509* issuer, EVP_PKEY* signer) {
    static long serial = 1;
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial++);
    X509_gmtime_adj(X509_getm_notBefore(certificate), wish.starts_in);
    X509_gmtime_adj(X509_getm_notAfter(certificate), wish.ends_in);
    X509_set_pubkey(certificate, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    X509_set_issuer_name(certificate, X509_get_subject_name(issuer));
    Extend(certificate, issuer, NID_basic_constraints, wish.authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
    if (wish.usage != nullptr) Extend(certificate, issuer, NID_ext_key_usage, wish.usage);
    std::string names;
    for (const std::string& uri : wish.uris) names += (names.empty() ? "URI:" : ",URI:") + uri;
    if (!names.empty()) Extend(certificate, issuer, NID_subject_alt_name, names);
    X509_sign(certificate, signer, EVP_sha256());
  }

  EVP_PKEY* key_;
  X509* certificate_;
};

// A certificate as agents have it.
inline CertificateWish WishOf(const std::string& node, const std::string& trust_domain = "test.local") {
  CertificateWish wish;
  wish.uris = {"spiffe://" + trust_domain + "/vsocket/node/" + node};
  return wish;
}

// At once: nobody reads half a file.
inline void Replace(const std::filesystem::path& path, const std::string& text) {
  const std::filesystem::path fresh = path.string() + ".new";
  std::ofstream(fresh, std::ios::binary) << text;
  std::filesystem::rename(fresh, path);
}

}  // namespace vsocket::peer::testing
