#include "node-agent/telemetry/log.h"

#include <gtest/gtest.h>

namespace vsocket::telemetry {
namespace {

TEST(Log, JsonLineIsEscaped) {
  EXPECT_EQ(FormatLine(LogFormat::kJson, LogLevel::kWarning, "channel revoked", {{"pod", "a/b"}, {"why", "say \"no\"\n\x1b[31m"}}, "T"),
            R"({"time":"T","level":"warning","msg":"channel revoked","pod":"a/b","why":"say \"no\"\u000a\u001b[31m"})");
}

TEST(Log, TextLineQuotesWhatIsNotPlain) {
  EXPECT_EQ(FormatLine(LogFormat::kText, LogLevel::kInfo, "pod added", {{"pod", "a/b"}, {"why", "two words"}, {"none", ""}}, "T"),
            "T info pod added pod=a/b why=\"two words\" none=\"\"");
}

TEST(Log, KnowsItsWords) {
  EXPECT_EQ(ParseLogLevel("error"), LogLevel::kError);
  EXPECT_EQ(ParseLogLevel("loud"), std::nullopt);
  EXPECT_EQ(ParseLogFormat("json"), LogFormat::kJson);
  EXPECT_EQ(ParseLogFormat(""), std::nullopt);
}

}  // namespace
}  // namespace vsocket::telemetry
