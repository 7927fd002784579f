#include "node-agent/kube/yaml_tree.h"

#include <gtest/gtest.h>

#include <string>

namespace vsocket::kube {
namespace {

std::string FirstError(const std::string& text, const YamlLimits& limits = {}) {
  const YamlStream stream = ParseYaml(text, limits);
  return stream.errors.empty() ? "" : std::to_string(stream.errors[0].line) + ": " + stream.errors[0].what;
}

TEST(YamlTreeTest, MapsListsScalarsAndLines) {
  const YamlStream stream = ParseYaml("# comment\na: 1\nb:\n  - x\n  - \"y\"\nc: ~\nd: |\n  80\n");
  ASSERT_TRUE(stream.errors.empty());
  ASSERT_EQ(stream.documents.size(), 1u);
  const YamlNode& root = *stream.documents[0];
  EXPECT_EQ(root.Find("a")->scalar, "1");
  EXPECT_EQ(root.Find("a")->line, 2);
  EXPECT_FALSE(root.Find("a")->quoted);
  ASSERT_EQ(root.Find("b")->items.size(), 2u);
  EXPECT_EQ(root.Find("b")->items[1]->line, 5);
  EXPECT_TRUE(root.Find("b")->items[1]->quoted);
  EXPECT_EQ(root.Find("c")->kind, YamlNode::Kind::kNull);
  EXPECT_EQ(root.entries[2].key_line, 6);
  EXPECT_TRUE(root.Find("d")->quoted);
  EXPECT_EQ(root.Find("nothing"), nullptr);
}

TEST(YamlTreeTest, JsonAndSeveralDocuments) {
  const YamlStream stream = ParseYaml("{\n\t\"a\": [1, 2],\n\t\"b\": {\"c\": \"\\u0041\"}\n}\n---\n---\nx: 1\n...\n");
  ASSERT_TRUE(stream.errors.empty()) << stream.errors[0].line << stream.errors[0].what;
  ASSERT_EQ(stream.documents.size(), 2u);
  EXPECT_EQ(stream.documents[0]->Find("b")->Find("c")->scalar, "A");
  EXPECT_EQ(stream.documents[1]->Find("x")->line, 7);
}

TEST(YamlTreeTest, DocumentsBeforeASyntaxErrorAreKept) {
  const YamlStream stream = ParseYaml("a: 1\n---\nb: [1\n---\nc: 3\n");
  ASSERT_EQ(stream.errors.size(), 1u);
  EXPECT_GE(stream.errors[0].line, 3);
  ASSERT_EQ(stream.documents.size(), 1u);
  EXPECT_NE(stream.documents[0]->Find("a"), nullptr);
}

TEST(YamlTreeTest, RefusesTwiceTheSameFieldAndKeysThatAreNoTexts) {
  EXPECT_EQ(FirstError("a: 1\nb: 2\na: 3\n"), "3: the field \"a\" is here twice");
  EXPECT_NE(FirstError("? [x]\n: 1\n"), "");
  EXPECT_NE(FirstError("~: 1\n"), "");
  EXPECT_EQ(FirstError("{\"a\": 1,\n \"b\": }\n"), "");  // null, as YAML has it
  for (const char* cut : {"{\"a\": 1,\n", "{\"a\": 1,\n \"b", "{\"a\": [1,\n", "{\"a\": 1,\n ,}"})
    EXPECT_GT(std::stoi("0" + FirstError(cut)), 0) << cut;
  EXPECT_NE(FirstError("x: &x {a: 1}\ny:\n  <<: *x\n"), "");
  EXPECT_NE(FirstError(std::string("a: \0b\n", 6)), "");
}

TEST(YamlTreeTest, AliasesAreSharedAndCounted) {
  const YamlStream stream = ParseYaml("a: &x [1, 2]\nb: *x\n");
  ASSERT_TRUE(stream.errors.empty());
  EXPECT_EQ(stream.documents[0]->Find("a"), stream.documents[0]->Find("b"));
  EXPECT_EQ(stream.documents[0]->weight, 1u + 2u + 3u + 3u);  // the map, two keys, the list with its items, and that again
}

TEST(YamlTreeTest, RefusesBillionLaughs) {
  std::string text = "l0: &l0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n";
  for (int i = 1; i < 10; ++i) {
    const std::string name = "l" + std::to_string(i), before = "*l" + std::to_string(i - 1);
    text += name + ": &" + name + " [" + before;
    for (int j = 1; j < 10; ++j) text += ", " + before;
    text += "]\n";
  }
  EXPECT_NE(FirstError(text).find("more than 1000000 values"), std::string::npos);
}

TEST(YamlTreeTest, RefusesDepthDirectAndThroughAliases) {
  const std::string limit = "nested more than 64 levels deep";
  EXPECT_NE(FirstError(std::string(100000, '[')), "");
  EXPECT_EQ(FirstError(std::string(64, '[') + std::string(64, ']')), "");
  EXPECT_NE(FirstError(std::string(65, '[') + std::string(65, ']')).find(limit), std::string::npos);
  const std::string deep = std::string(40, '[') + "1" + std::string(40, ']');
  EXPECT_NE(FirstError("a: &a " + deep + "\nb: " + std::string(40, '[') + "*a" + std::string(40, ']') + "\n").find(limit),
            std::string::npos);
  std::string block;
  for (int i = 0; i < 200; ++i) block += std::string(static_cast<std::size_t>(i), ' ') + "a:\n";
  EXPECT_NE(FirstError(block).find(limit), std::string::npos);
}

TEST(YamlTreeTest, RefusesAnAliasInsideItsOwnAnchor) {
  EXPECT_NE(FirstError("a: &a [*a]\n"), "");
}

TEST(YamlTreeTest, RefusesTooMuchText) {
  EXPECT_EQ(FirstError("a: 12345678\n", {10, 64, 1000}), "0: larger than 10 bytes");
}

TEST(YamlTreeTest, ScalarTypes) {
  const auto type = [](const char* text) {
    YamlNode node;
    node.kind = YamlNode::Kind::kScalar;
    node.scalar = text;
    return TypeOf(node);
  };
  for (const char* text : {"web", "10.0.0.0/8", "1.2.3.4", "v1", "-", "1a", "", "tcp", "0xg", "e5", "."})
    EXPECT_EQ(type(text), ScalarType::kString) << text;
  for (const char* text : {"true", "False", "yes", "NO", "on", "off"}) EXPECT_EQ(type(text), ScalarType::kBool) << text;
  for (const char* text : {"0", "80", "-1", "+7", "0x1F", "0o17", "010"}) EXPECT_EQ(type(text), ScalarType::kInteger) << text;
  for (const char* text : {"1.5", "1e3", ".5", "-1.0E-3", ".inf", ".nan", "1."}) EXPECT_EQ(type(text), ScalarType::kFloat) << text;
}

}  // namespace
}  // namespace vsocket::kube
