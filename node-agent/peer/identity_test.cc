#include "node-agent/peer/identity.h"

#include <gtest/gtest.h>

#include <ctime>

#include "node-agent/peer/testing/certificates.h"

namespace vsocket::peer {
namespace {

using testing::Authority;
using testing::CertificateWish;
using testing::WishOf;

class IdentityTest : public ::testing::Test {
 protected:
  std::string ProblemOf(const CertificateWish& wish, const std::string& domain = "test.local") {
    auto identity = VerifyNode(authority.Sign(wish).certificate, authority.Pem(), domain, now);
    return identity ? "" : identity.Error();
  }

  Authority authority{"authority"};
  const std::int64_t now = std::time(nullptr);
};

TEST_F(IdentityTest, ANodesCertificateNamesTheNodeAndItsEnd) {
  auto identity = VerifyNode(authority.Sign(WishOf("node-1.example")).certificate, authority.Pem(), "test.local", now);
  ASSERT_TRUE(identity) << identity.Error();
  EXPECT_EQ(identity->node, "node-1.example");
  EXPECT_NEAR(static_cast<double>(identity->not_after), static_cast<double>(now + 3600), 5);
}

TEST_F(IdentityTest, NamesThatAreNoNodes) {
  CertificateWish wish;
  EXPECT_EQ(ProblemOf(wish), "the certificate has 0 URI names, an agent's has one");
  wish.uris = {"spiffe://test.local/vsocket/node/a", "spiffe://test.local/vsocket/node/b"};
  EXPECT_EQ(ProblemOf(wish), "the certificate has 2 URI names, an agent's has one");
  for (const char* uri : {"spiffe://other.local/vsocket/node/a", "spiffe://test.local/vsocket/node/", "spiffe://test.local/vsocket/node/A",
                          "spiffe://test.local/vsocket/node/a/b", "spiffe://test.local/ns/x/sa/y", "https://test.local/vsocket/node/a",
                          "spiffe://test.local.evil/vsocket/node/a", "xspiffe://test.local/vsocket/node/a"}) {
    wish.uris = {uri};
    EXPECT_NE(ProblemOf(wish).find("is no agent of the trust domain test.local"), std::string::npos) << uri;
  }
  EXPECT_NE(ProblemOf(WishOf("a"), "other.local"), "");
}

TEST_F(IdentityTest, AnAuthorityThatIsNotTrusted) {
  Authority other("authority");  // of the same name
  auto identity = VerifyNode(other.Sign(WishOf("a")).certificate, authority.Pem(), "test.local", now);
  ASSERT_FALSE(identity);
  EXPECT_NE(identity.Error().find("node a"), std::string::npos) << identity.Error();
  identity = VerifyNode(other.Sign(WishOf("a")).certificate, other.Pem() + authority.Pem(), "test.local", now);
  EXPECT_TRUE(identity) << "several roots, as while one takes the place of another";
  EXPECT_FALSE(VerifyNode(other.Sign(WishOf("a")).certificate, "", "test.local", now));
}

TEST_F(IdentityTest, DatesAreSaid) {
  CertificateWish wish = WishOf("a");
  wish.ends_in = -60;
  EXPECT_NE(ProblemOf(wish).find("the certificate of node a: certificate has expired on 20"), std::string::npos) << ProblemOf(wish);
  wish = WishOf("a");
  wish.starts_in = 600;
  EXPECT_NE(ProblemOf(wish).find("certificate is not yet valid before 20"), std::string::npos) << ProblemOf(wish);
}

TEST_F(IdentityTest, BothUsesAreNeeded) {
  CertificateWish wish = WishOf("a");
  wish.usage = "serverAuth";
  EXPECT_NE(ProblemOf(wish), "");
  wish.usage = "clientAuth";
  EXPECT_NE(ProblemOf(wish), "");
  wish.usage = nullptr;
  EXPECT_EQ(ProblemOf(wish), "") << "no restriction is stated";
}

TEST_F(IdentityTest, IntermediatesComeWithTheCertificate) {
  CertificateWish wish;
  wish.authority = true;
  wish.usage = nullptr;
  Authority between("between", authority, wish);
  const std::string leaf = between.Sign(WishOf("a")).certificate;
  EXPECT_FALSE(VerifyNode(leaf, authority.Pem(), "test.local", now));
  EXPECT_TRUE(VerifyNode(leaf + between.Pem(), authority.Pem(), "test.local", now));
  wish.authority = false;
  Authority impostor("impostor", authority, wish);
  EXPECT_FALSE(VerifyNode(impostor.Sign(WishOf("a")).certificate + impostor.Pem(), authority.Pem(), "test.local", now))
      << "an agent's certificate signs nobody";
}

TEST_F(IdentityTest, RubbishIsNoCertificate) {
  EXPECT_EQ(VerifyNode("", authority.Pem(), "test.local", now).Error(), "no certificate was shown");
  EXPECT_FALSE(VerifyNode("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", authority.Pem(), "test.local", now));
}

TEST_F(IdentityTest, OwnFilesAreLookedAtFirst) {
  const auto pair = authority.Sign(WishOf("a"));
  const auto other = authority.Sign(WishOf("a"));
  const auto problem = [&](const std::string& certificate, const std::string& key, const std::string& node) {
    return vsocket::peer::ProblemOf(certificate, key, authority.Pem(), "test.local", node, now);
  };
  EXPECT_EQ(problem(pair.certificate, pair.key, "a"), "");
  EXPECT_EQ(problem(pair.certificate, pair.key, "b"), "the certificate is that of node a, this is node b");
  EXPECT_EQ(problem(pair.certificate, other.key, "a"), "the key is not the certificate's");
  EXPECT_EQ(problem(pair.certificate, "", "a"), "the key is not the certificate's");
  EXPECT_NE(problem("", pair.key, "a"), "");
}

}  // namespace
}  // namespace vsocket::peer
