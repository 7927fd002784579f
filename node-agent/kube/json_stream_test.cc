#include "node-agent/kube/json_stream.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace vsocket::kube {
namespace {

// Feeds `text` in pieces of `size` bytes; what came out, and whether all was taken.
template <typename Decoder>
std::pair<std::vector<std::string>, bool> FeedInPieces(Decoder& decoder, std::string_view text, std::size_t size) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < text.size(); at += size) {
    const bool going_on = decoder.Feed(text.substr(at, size), [&](std::string_view object) {
      out.emplace_back(object);
      return true;
    });
    if (!going_on) return {out, false};
  }
  return {out, true};
}

const std::vector<std::size_t> kPieces{1, 2, 3, 7, 1000};

TEST(WatchDecoder, CutsAtTheLastBraceWhateverThePieces) {
  const std::string text = "{\"a\":\"}{\\\"\"}\n{\"b\":[{}]}{\"c\":{\"d\":\"\\\\\"}}\r\n  {\n\"e\":\n1}\n";
  const std::vector<std::string> expected{"{\"a\":\"}{\\\"\"}", "{\"b\":[{}]}", "{\"c\":{\"d\":\"\\\\\"}}", "{\n\"e\":\n1}"};
  for (const std::size_t size : kPieces) {
    WatchDecoder decoder;
    EXPECT_EQ(FeedInPieces(decoder, text, size), std::make_pair(expected, true)) << size;
    EXPECT_FALSE(decoder.Incomplete());
  }
}

TEST(WatchDecoder, KnowsWhenSomethingIsMissing) {
  WatchDecoder decoder;
  EXPECT_TRUE(FeedInPieces(decoder, "{\"a\":1}\n{\"b\":", 3).second);
  EXPECT_TRUE(decoder.Incomplete());
}

TEST(WatchDecoder, RefusesWhatIsNoObjectAndWhatNeverEnds) {
  for (const char* text : {"<html>", "[1]", "{\"a\":1},", "]", "null"}) {
    WatchDecoder decoder;
    EXPECT_FALSE(FeedInPieces(decoder, text, 2).second) << text;
    EXPECT_NE(decoder.Error(), "");
    EXPECT_FALSE(decoder.Feed("{}", [](std::string_view) { return true; })) << "no way back";
  }
  WatchDecoder bounded({100, 100});
  const auto [objects, all] = FeedInPieces(bounded, "{\"ok\":1}\n{\"a\":\"" + std::string(1000, 'x'), 8);
  EXPECT_EQ(objects.size(), 1u);
  EXPECT_FALSE(all);
  EXPECT_NE(bounded.Error().find("more than 100 bytes"), std::string::npos);
  WatchDecoder at_once({100, 100});
  EXPECT_FALSE(FeedInPieces(at_once, "{\"a\":\"" + std::string(1000, 'x') + "\"}", 4096).second) << "also when it comes in one piece";
}

TEST(WatchDecoder, StopsWhenAskedTo) {
  WatchDecoder decoder;
  int seen = 0;
  EXPECT_FALSE(decoder.Feed("{}{}{}", [&](std::string_view) { return ++seen < 2; }));
  EXPECT_EQ(seen, 2);
  EXPECT_EQ(decoder.Error(), "");
}

TEST(ListDecoder, GivesItemsAndWhatIsAroundThem) {
  const std::string text =
      " {\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":\"12\",\"continue\":\"tok/en\",\"items\":[1]},\n"
      "\"items\":[{\"a\":[\"items\"]} , {\"b\":\"]\"}],\"other\":[{\"c\":1}]}\n";
  for (const std::size_t size : kPieces) {
    ListDecoder decoder;
    EXPECT_EQ(FeedInPieces(decoder, text, size), std::make_pair(std::vector<std::string>{"{\"a\":[\"items\"]}", "{\"b\":\"]\"}"}, true));
    const auto end = decoder.Finish();
    ASSERT_TRUE(end.Ok()) << end.Error();
    EXPECT_EQ(end.Value().resource_version, "12");
    EXPECT_EQ(end.Value().continue_token, "tok/en");
  }
}

TEST(ListDecoder, ItemsMayComeFirstBeNullOrBeEmpty) {
  for (const char* text :
       {R"({"items":[{}],"metadata":{"resourceVersion":"1"}})", R"({"items":[],"metadata":{"resourceVersion":"1"}})",
        R"({"items":null,"metadata":{"resourceVersion":"1"}})", R"({"kind":"items","items":[],"metadata":{"resourceVersion":"1"}})"}) {
    ListDecoder decoder;
    EXPECT_TRUE(FeedInPieces(decoder, text, 5).second) << decoder.Error();
    const auto end = decoder.Finish();
    EXPECT_TRUE(end.Ok()) << text << end.Error();
  }
}

TEST(ListDecoder, RefusesWhatIsNoList) {
  for (const char* text :
       {"", "<html>", "{}", R"({"items":[]})", R"({"metadata":{"resourceVersion":"1"}})", R"({"items":[{"a":1})",
        R"({"items":[{"a":1}],"metadata":{"resourceVersion":"1"})", R"({"items":[7],"metadata":{"resourceVersion":"1"}})",
        R"({"items":[{}],"items":[{}],"metadata":{"resourceVersion":"1"}})", R"({"items":[],"metadata":{"resourceVersion":7}})",
        R"({"items":[],"metadata":{"resourceVersion":"1"}}x)", R"(}{"items":[],"metadata":{"resourceVersion":"1"}})",
        R"({"items":[],"metadata":[]})", R"([{"items":[],"metadata":{"resourceVersion":"1"}}])",
        R"({"items":[{}],"metadata":{"resourceVersion":"1"}}{"items":[]})"}) {
    ListDecoder decoder;
    const bool fed = FeedInPieces(decoder, text, 3).second;
    EXPECT_FALSE(fed && decoder.Finish().Ok()) << text;
  }
}

TEST(ListDecoder, IsBounded) {
  ListDecoder item({100, 1000});
  EXPECT_FALSE(FeedInPieces(item, R"({"items":[{"a":")" + std::string(10'000, 'x'), 10).second);
  ListDecoder envelope({1000, 100});
  EXPECT_FALSE(FeedInPieces(envelope, R"({"a":")" + std::string(10'000, 'x'), 10).second);
  ListDecoder many({100, 100});
  std::string text = R"({"metadata":{"resourceVersion":"1"},"items":[{})";
  for (int i = 0; i < 10'000; ++i) text += ",{}";
  EXPECT_EQ(FeedInPieces(many, text + "]}", 4096).first.size(), 10'001u) << "how many items there are is not its affair";
  EXPECT_TRUE(many.Finish().Ok());
}

}  // namespace
}  // namespace vsocket::kube
