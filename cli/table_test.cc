#include "cli/table.h"

#include <gtest/gtest.h>

namespace vsocket::cli {
namespace {

TEST(Table, ColumnsAreAlignedAndLinesEndInText) {
  Table table({"NAME", "N", "LAST"}, {1});
  table.Add({"a", "1", "x"});
  table.Add({"longer", "100", ""});
  EXPECT_EQ(table.Render(),
            "NAME      N  LAST\n"
            "a         1  x\n"
            "longer  100  -\n");
}

TEST(Table, CountsCharactersNotBytes) {
  Table table({"A", "B"});
  table.Add({"é", "x"});
  table.Add({"ab", "y"});
  EXPECT_EQ(table.Render(), "A   B\né   x\nab  y\n");
}

TEST(HumanBytes, ThreeOrFourDigits) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(1023), "1023 B");
  EXPECT_EQ(HumanBytes(1024), "1.0 KiB");
  EXPECT_EQ(HumanBytes(1536), "1.5 KiB");
  EXPECT_EQ(HumanBytes(1024 * 1024 - 1), "1.0 MiB");
  EXPECT_EQ(HumanBytes(5ULL << 30), "5.0 GiB");
  EXPECT_EQ(HumanBytes(~0ULL), "16.0 EiB");
}

TEST(HumanSeconds, TwoUnits) {
  EXPECT_EQ(HumanSeconds(0), "0s");
  EXPECT_EQ(HumanSeconds(59), "59s");
  EXPECT_EQ(HumanSeconds(192), "3m12s");
  EXPECT_EQ(HumanSeconds(5 * 3600 + 3 * 60 + 7), "5h03m");
  EXPECT_EQ(HumanSeconds(2 * 86400 + 4 * 3600), "2d04h");
}

TEST(Printable, EscapeSequencesDoNotReachTheTerminal) {
  EXPECT_EQ(Printable("a\033[2Jb\n\x7f"), "a?[2Jb??");
  EXPECT_EQ(Printable("é"), "é");
}

}  // namespace
}  // namespace vsocket::cli
