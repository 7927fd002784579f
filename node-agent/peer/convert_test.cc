#include "node-agent/peer/convert.h"

#include <gtest/gtest.h>

#include "node-agent/peer/testing/fake_host.h"

namespace vsocket::peer {
namespace {

using testing::ClientEnd;
using testing::EndOf;

v1::PeerMessage OfferMessage() {
  return ToProto(Offer{7, ClientEnd()});
}

TEST(ConvertTest, EveryMessageComesBackAsItWas) {
  model::PeerEnd translated = EndOf("a1", "fd00::1", 40000, "fd00::99", 8080);
  translated.wire.remote = {testing::Ip("fd00::2"), 80};
  translated.wire.local = {testing::Ip("fd00::3"), 50000};
  translated.listens = true;
  translated.bytes_acked = 1ULL << 60U;
  translated.bytes_received = 17;
  const Message all[] = {Hello{1, 3, "a", 99, "1.0", 500, {"verbs", "relay"}},
                         Goodbye{Farewell::kVersion, "why"},
                         Heartbeat{12},
                         LinkSetup{"verbs", std::string("\0\xff", 2)},
                         Offer{7, translated},
                         Withdraw{7},
                         Refuse{7, channel::Reason::kPolicy, "policy a/b", 5000},
                         Accept{3, 7, 8, "verbs", std::string(model::kMaxSetupBytes, '\x80')},
                         Commit{3},
                         Abort{3, channel::Reason::kNoMemory, "no memory"},
                         Close{3, channel::Reason::kClosing},
                         Note{3, {model::PeerNote::Kind::kConsumed, 2, 1ULL << 50U, 1}},
                         Resume{{1, 2, 3}},
                         Resume{}};
  EXPECT_EQ(std::size(all), std::variant_size_v<Message> + 1);
  for (const Message& message : all) {
    std::string bytes;
    ASSERT_TRUE(ToProto(message).SerializeToString(&bytes));
    v1::PeerMessage parsed;
    ASSERT_TRUE(parsed.ParseFromString(bytes));
    const auto back = FromProto(parsed);
    ASSERT_TRUE(back) << message.index() << ": " << back.Error();
    EXPECT_EQ(back.Value(), message) << message.index();
  }
}

TEST(ConvertTest, AnAddressThatIsNotTranslatedIsNotSentTwice) {
  EXPECT_FALSE(OfferMessage().offer().end().has_wire_local());
}

TEST(ConvertTest, TheLargestMessageFits) {
  Resume resume;
  for (std::size_t i = 0; i < kMaxResumed; ++i) resume.channels.push_back(UINT64_MAX - i);
  EXPECT_LE(ToProto(resume).ByteSizeLong(), kMaxMessageBytes);
}

TEST(ConvertTest, WhatIsOutOfItsBoundsIsNamed) {
  const auto error = [](v1::PeerMessage message) {
    const auto result = FromProto(message);
    return result ? std::string() : result.Error();
  };
  const auto offer = [&](auto change) {
    v1::PeerMessage message = OfferMessage();
    change(message.mutable_offer());
    return error(message);
  };
  EXPECT_EQ(offer([](v1::Offer*) {}), "");
  EXPECT_EQ(offer([](v1::Offer* m) { m->set_offer(0); }), "offer.offer is out of its bounds");
  for (const char* pod : {"", "a1", "/a1", "shop/", "a/b/c", "shop/a\n1", "shop/a\x1b[2J"}) {
    EXPECT_EQ(offer([&](v1::Offer* m) { m->mutable_end()->set_pod(pod); }), "end.pod is out of its bounds") << pod;
  }
  EXPECT_EQ(offer([](v1::Offer* m) { m->mutable_end()->set_pod("shop/" + std::string(600, 'a')); }), "end.pod is out of its bounds");
  EXPECT_EQ(offer([](v1::Offer* m) { m->mutable_end()->set_socket_cookie(0); }), "end.socket_cookie is out of its bounds");
  EXPECT_EQ(offer([](v1::Offer* m) { m->mutable_end()->mutable_local()->set_ip("abc"); }), "end.local is out of its bounds");
  EXPECT_EQ(offer([](v1::Offer* m) { m->mutable_end()->mutable_local()->set_port(65536); }), "end.local is out of its bounds");
  EXPECT_EQ(offer([](v1::Offer* m) { m->mutable_end()->mutable_remote()->set_port(0); }), "end.remote is out of its bounds");
  EXPECT_EQ(offer([](v1::Offer* m) { m->mutable_end()->mutable_remote()->set_ip("\x7f\0\0\1", 4); }), "end.remote is out of its bounds");
  EXPECT_EQ(offer([](v1::Offer* m) { m->mutable_end()->mutable_remote()->set_ip(std::string(16, 'x')); }),
            "end.wire_remote is out of its bounds")
      << "of two families";
  EXPECT_EQ(offer([](v1::Offer* m) { m->clear_end(); }), "end.pod is out of its bounds");

  v1::PeerMessage message;
  EXPECT_EQ(error(message), "a message of no kind that this version knows");
  message.mutable_hello();
  EXPECT_EQ(error(message), "hello.max_version is out of its bounds");
  message = ToProto(Hello{1, 1, "a", 1, "", 500, {}});
  message.mutable_hello()->set_heartbeat_ms(0);
  EXPECT_EQ(error(message), "hello.heartbeat_ms is out of its bounds");
  message = ToProto(Hello{1, 1, "a", 1, "", 500, std::vector<std::string>(9, "x")});
  EXPECT_EQ(error(message), "hello.transports is out of its bounds");
  EXPECT_EQ(error(ToProto(Accept{1, 1, 1, "verbs", std::string(model::kMaxSetupBytes + 1, 'x')})), "accept.setup is out of its bounds");
  EXPECT_EQ(error(ToProto(LinkSetup{"verbs", std::string(model::kMaxLinkBytes + 1, 'x')})), "link.data is out of its bounds");
  EXPECT_EQ(error(ToProto(Resume{std::vector<std::uint64_t>(kMaxResumed + 1, 1)})), "resume.channels is out of its bounds");
  message = v1::PeerMessage();
  message.mutable_note()->set_channel(1);
  EXPECT_EQ(error(message), "note.kind is out of its bounds");
  message.mutable_note()->set_kind(static_cast<v1::Note::Kind>(6));
  EXPECT_EQ(error(message), "note.kind is out of its bounds");
}

TEST(ConvertTest, LongTextsOfOursAreCutBetweenCharacters) {
  const std::string text = std::string(kMaxTextBytes - 1, 'x') + "\xc3\xa9";  // an e with an accent across the bound
  const auto back = FromProto(ToProto(Goodbye{Farewell::kEnding, text}));
  ASSERT_TRUE(back);
  EXPECT_EQ(std::get<Goodbye>(back.Value()).text, std::string(kMaxTextBytes - 1, 'x'));
}

TEST(ConvertTest, AFarewellOfANewerVersionIsStillOne) {
  v1::PeerMessage message;
  message.mutable_goodbye()->set_why(1000);
  const auto back = FromProto(message);
  ASSERT_TRUE(back);
  EXPECT_EQ(std::get<Goodbye>(back.Value()).why, Farewell::kNone);
}

}  // namespace
}  // namespace vsocket::peer
