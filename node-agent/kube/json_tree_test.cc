#include "node-agent/kube/json_tree.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "node-agent/kube/field_reader.h"

namespace vsocket::kube {
namespace {

std::string ErrorOf(std::string_view text, const YamlLimits& limits = {}) {
  const auto tree = ParseJson(text, {}, limits);
  return tree ? "" : tree.Error();
}

TEST(JsonTree, TypesAreWhatTheyAreWritten) {
  auto tree = ParseJson(R"({"a":"yes","b":true,"c":80,"d":null,"e":[1,"1"],"f":{"g":-1},"h":1.5,"i":"\u0041\n"})");
  ASSERT_TRUE(tree.Ok()) << tree.Error();
  const YamlNode& root = **tree;
  std::vector<YamlError> errors;
  FieldReader reader(errors);
  EXPECT_EQ(reader.Text(root.Find("a"), "a"), "yes") << "not a boolean, as it would be in YAML";
  EXPECT_EQ(reader.Boolean(root.Find("b"), "b"), true);
  EXPECT_EQ(reader.Integer(root.Find("c"), "c", 1, 65535), 80);
  EXPECT_EQ(root.Find("d")->kind, YamlNode::Kind::kNull);
  EXPECT_EQ(root.Find("e")->items.size(), 2u);
  EXPECT_EQ(TypeOf(*root.Find("e")->items[0]), ScalarType::kInteger);
  EXPECT_EQ(TypeOf(*root.Find("e")->items[1]), ScalarType::kString);
  EXPECT_EQ(reader.Integer(root.Find("f")->Find("g"), "g", -5, 5), -1);
  EXPECT_EQ(TypeOf(*root.Find("h")), ScalarType::kFloat);
  EXPECT_EQ(reader.Text(root.Find("i"), "i"), "A\n");
  EXPECT_TRUE(errors.empty());
}

TEST(JsonTree, RefusesWhatIsNoObjectOfJson) {
  for (const char* text : {"", "[]", "7", "\"x\"", "null", "{", "{}}", "{} {}", "{'a':1}", "{\"a\":1,}", "{\"a\"}", "{a:1}", "{\"a\":01}",
                           "{\"a\":NaN}", "{\"a\":\"\xff\"}", "{\"a\":\"x", "{\"a\":[1,2}", "// {}"}) {
    EXPECT_NE(ErrorOf(text), "") << text;
  }
  EXPECT_NE(ErrorOf("{\"a\":1,\"a\":2}").find("twice"), std::string::npos);
  EXPECT_EQ(ErrorOf("{\"a\":{\"b\":1},\"b\":1}"), "");
}

TEST(JsonTree, LimitsHold) {
  EXPECT_NE(ErrorOf(R"({"a":[[[1]]]})", {1000, 3, 1000}), "");
  EXPECT_EQ(ErrorOf(R"({"a":[[[1]]]})", {1000, 4, 1000}), "");
  EXPECT_NE(ErrorOf(R"({"a":[1,2,3]})", {1000, 64, 4}), "");
  EXPECT_NE(ErrorOf(R"({"a":[1,2,3]})", {5, 64, 100}), "");
  EXPECT_NE(ErrorOf("{\"a\":" + std::string(100'000, '[')), "");
}

TEST(JsonTree, LeavesOutOnlyWhatItIsToldTo) {
  const OmittedFields omitted{"metadata.managedFields", "spec.containers.env"};
  const auto parse = [&](std::string_view text) { return ParseJson(text, omitted, {1 << 20, 8, 100}); };
  auto tree = parse(R"({"metadata":{"managedFields":[{"x":{"y":1}}],"labels":{"env":"prod"},"name":"a"},
    "spec":{"containers":[{"env":[{"name":"A"}],"name":"c","ports":[]},{"env":"text","name":"d"},{"env":7,"name":"e"}]},"env":1})");
  ASSERT_TRUE(tree.Ok()) << tree.Error();
  const YamlNode* metadata = (*tree)->Find("metadata");
  EXPECT_EQ(metadata->Find("managedFields"), nullptr);
  EXPECT_EQ(metadata->Find("name")->scalar, "a");
  EXPECT_EQ(metadata->Find("labels")->Find("env")->scalar, "prod");
  const YamlNode* containers = (*tree)->Find("spec")->Find("containers");
  ASSERT_EQ(containers->items.size(), 3u);
  for (const auto& container : containers->items) EXPECT_EQ(container->Find("env"), nullptr);
  EXPECT_EQ(containers->items[2]->Find("name")->scalar, "e");
  EXPECT_NE((*tree)->Find("env"), nullptr);
  EXPECT_FALSE(parse(R"({"metadata":{"managedFields":[{"x":]}})").Ok()) << "what is left out must be JSON all the same";
  EXPECT_FALSE(parse(R"({"metadata":{"managedFields":[[[[[[[[[[1]]]]]]]]]]}})").Ok()) << "nor may it be too deep";
}

}  // namespace
}  // namespace vsocket::kube
