#include "node-agent/model/selector.h"

#include <gtest/gtest.h>

namespace vsocket::model {
namespace {

using Op = SelectorTerm::Operator;

LabelSelector Term(Op op, std::vector<std::string> values = {}) {
  return {{}, {{"tier", op, std::move(values)}}};
}

TEST(SelectorTest, EmptyMatchesEverything) {
  EXPECT_TRUE(Matches({}, {}));
  EXPECT_TRUE(Matches({}, {{"a", "b"}}));
}

TEST(SelectorTest, MatchLabelsAreAnded) {
  const LabelSelector both{{{"a", "1"}, {"b", "2"}}, {}};
  EXPECT_TRUE(Matches(both, {{"a", "1"}, {"b", "2"}, {"c", "3"}}));
  EXPECT_FALSE(Matches(both, {{"a", "1"}}));
  EXPECT_FALSE(Matches(both, {{"a", "1"}, {"b", "3"}}));
  EXPECT_FALSE(Matches({{{"a", ""}}, {}}, {}));  // an empty value is a value
  EXPECT_TRUE(Matches({{{"a", ""}}, {}}, {{"a", ""}}));
}

TEST(SelectorTest, Operators) {
  const Labels db{{"tier", "db"}}, web{{"tier", "web"}}, none{};
  EXPECT_TRUE(Matches(Term(Op::kIn, {"db", "cache"}), db));
  EXPECT_FALSE(Matches(Term(Op::kIn, {"db", "cache"}), web));
  EXPECT_FALSE(Matches(Term(Op::kIn, {"db"}), none));
  EXPECT_FALSE(Matches(Term(Op::kNotIn, {"db"}), db));
  EXPECT_TRUE(Matches(Term(Op::kNotIn, {"db"}), web));
  EXPECT_TRUE(Matches(Term(Op::kNotIn, {"db"}), none));
  EXPECT_TRUE(Matches(Term(Op::kExists), db));
  EXPECT_FALSE(Matches(Term(Op::kExists), none));
  EXPECT_FALSE(Matches(Term(Op::kDoesNotExist), db));
  EXPECT_TRUE(Matches(Term(Op::kDoesNotExist), none));
}

TEST(SelectorTest, LabelsAndExpressionsAreAnded) {
  LabelSelector selector = Term(Op::kExists);
  selector.match_labels = {{"a", "1"}};
  EXPECT_TRUE(Matches(selector, {{"a", "1"}, {"tier", "x"}}));
  EXPECT_FALSE(Matches(selector, {{"a", "1"}}));
  EXPECT_FALSE(Matches(selector, {{"tier", "x"}}));
}

}  // namespace
}  // namespace vsocket::model
