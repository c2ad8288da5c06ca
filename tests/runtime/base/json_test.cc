#include "runtime/base/json.h"

#include "tests/runtime/base/testing.h"

namespace lacuna {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::Status Parse(const std::string& text) { return ParseJsonObject(text, "f.json").status(); }

TEST(Json, ParsesAnObject) {
  const auto object = ParseJsonObject(R"( {"a": {"b": [1, 2.5, "x", null, true]}} )", "f.json");
  ASSERT_TRUE(object.ok()) << object.status();
  EXPECT_EQ((*object)["a"]["b"][1].get<double>(), 2.5);
}

TEST(Json, SameKeyInTwoObjectsIsNotADuplicate) {
  EXPECT_TRUE(Parse(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]})").ok());
}

TEST(Json, RefusesMalformedDocuments) {
  EXPECT_TRUE(IsError(Parse(""), kInvalid, "f.json is not valid JSON: error at byte"));
  EXPECT_TRUE(IsError(Parse("{\"a\": 1"), kInvalid, "not valid JSON"));
  EXPECT_TRUE(IsError(Parse("{} {}"), kInvalid, "not valid JSON"));
  EXPECT_TRUE(IsError(Parse("{\"a\": 1e999}"), kInvalid, "not valid JSON"));
  EXPECT_TRUE(IsError(Parse("{\"a\": \"\xFF\"}"), kInvalid, "not valid JSON"));
  EXPECT_TRUE(IsError(Parse("{\"a\": NaN}"), kInvalid, "not valid JSON"));
  EXPECT_TRUE(IsError(Parse("[1]"), kInvalid, "f.json is not a JSON object"));
  EXPECT_TRUE(IsError(Parse("7"), kInvalid, "f.json is not a JSON object"));
}

TEST(Json, RefusesAKeyThatIsThereTwice) {
  EXPECT_TRUE(IsError(Parse(R"({"x": {"a": 1, "b": 2, "a": 3}})"), kInvalid,
                      "f.json has key \"a\" twice in one object"));
}

TEST(Json, BoundsTheDepth) {
  const auto nested = [](int depth) {
    return "{\"a\":" + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
  };
  EXPECT_TRUE(Parse(nested(kMaxJsonDepth)).ok());
  EXPECT_TRUE(IsError(Parse(nested(kMaxJsonDepth + 1)), kInvalid, "nested deeper than 32"));
  EXPECT_TRUE(IsError(Parse(std::string(1'000'000, '[')), kInvalid, "nested deeper than 32"));
}

TEST(Json, EscapesAndCutsNamesInMessages) {
  const std::string key = "\\n" + std::string(200, 'k');
  const absl::Status status = Parse("{\"" + key + "\": 1, \"" + key + "\": 1}");
  EXPECT_TRUE(IsError(status, kInvalid, "has key \"\\nkkk"));
  EXPECT_EQ(status.message().find('\n'), absl::string_view::npos);
  EXPECT_LT(status.message().size(), 150u);
}

class JsonReaderTest : public testing::Test {
 protected:
  const nlohmann::json object_ = nlohmann::json::parse(
      R"({"int": 7, "big": 18446744073709551615, "negative": -1, "float": 0.5, "text": "t",
          "yes": true, "null": null, "list": [1], "object": {}})");
  JsonReader reader_{object_, "f.json"};
};

TEST_F(JsonReaderTest, ReadsTypedValues) {
  EXPECT_EQ(reader_.Int("int", 1, 10), 7);
  EXPECT_EQ(reader_.Int("negative", -5, 10), -1);
  EXPECT_EQ(reader_.Float("float", 0, 1), 0.5f);
  EXPECT_EQ(reader_.Float("int", 0, 10), 7.0f);
  EXPECT_EQ(reader_.String("text", ""), "t");
  EXPECT_TRUE(reader_.Bool("yes", false));
  EXPECT_TRUE(reader_.status().ok());
}

TEST_F(JsonReaderTest, MissingAndNullMeanTheDefault) {
  for (const char* const key : {"none", "null"}) {
    EXPECT_EQ(reader_.Int(key, 0, 1, 5), 5);
    EXPECT_EQ(reader_.Float(key, 0, 1, 0.25f), 0.25f);
    EXPECT_EQ(reader_.String(key, "d"), "d");
    EXPECT_TRUE(reader_.Bool(key, true));
  }
  EXPECT_TRUE(reader_.status().ok());
}

TEST_F(JsonReaderTest, RequiredKeyThatIsMissingIsAnError) {
  reader_.Int("none", 0, 1);
  EXPECT_TRUE(IsError(reader_.status(), kInvalid, "f.json has no none"));
}

TEST_F(JsonReaderTest, FirstErrorWins) {
  reader_.Int("int", 8, 10);
  reader_.Bool("text", false);
  EXPECT_TRUE(IsError(reader_.status(), kInvalid, "has int = 7, expected an integer in [8, 10]"));
}

TEST_F(JsonReaderTest, WrongTypesAndRangesNameKeyAndValue) {
  const auto error = [this](auto read) {
    JsonReader reader(object_, "f.json");
    read(reader);
    return reader.status();
  };
  const auto Read = [&](const char* key) {
    return error([key](JsonReader& r) { r.Int(key, 0, 100); });
  };
  EXPECT_TRUE(IsError(Read("big"), kInvalid, "big = 18446744073709551615, expected an integer"));
  EXPECT_TRUE(IsError(Read("negative"), kInvalid, "negative = -1, expected an integer"));
  EXPECT_TRUE(IsError(Read("float"), kInvalid, "float = 0.5, expected an integer"));
  EXPECT_TRUE(IsError(Read("text"), kInvalid, "text = \"t\", expected an integer"));
  EXPECT_TRUE(IsError(Read("list"), kInvalid, "list = a list, expected an integer"));
  EXPECT_TRUE(IsError(Read("object"), kInvalid, "object = an object, expected an integer"));
  EXPECT_TRUE(IsError(Read("yes"), kInvalid, "yes = true, expected an integer"));
  EXPECT_TRUE(IsError(error([](JsonReader& r) { r.Float("text", 0, 1); }), kInvalid,
                      "text = \"t\", expected a number in [0, 1]"));
  EXPECT_TRUE(IsError(error([](JsonReader& r) { r.Float("int", 0, 1); }), kInvalid,
                      "int = 7, expected a number in [0, 1]"));
  EXPECT_TRUE(IsError(error([](JsonReader& r) { r.Bool("int", true); }), kInvalid,
                      "int = 7, expected true or false"));
  EXPECT_TRUE(IsError(error([](JsonReader& r) { r.String("int", ""); }), kInvalid,
                      "int = 7, expected a string"));
}

}  // namespace
}  // namespace lacuna
