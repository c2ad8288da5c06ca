#include "runtime/model/safetensors.h"

#include "tests/runtime/base/testing.h"
#include "tests/runtime/model/safetensors_writer.h"

namespace lacuna {
namespace {

TEST(Safetensors, ListsTensorsWithTheirPlaceInTheFile) {
  const TempDir dir;
  SafetensorsWriter writer;
  writer.Add<float>("a", "F32", {2, 3}, {1, 2, 3, 4, 5, 6});
  writer.Add<uint16_t>("b", "BF16", {2}, {7, 8});
  writer.Add<uint16_t>("c", "F16", {1, 1}, {9});
  const auto file = SafetensorsFile::Open(dir.Write("f", writer.Bytes()));
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->tensors().size(), 3u);
  const TensorInfo& a = (*file)->tensors().at("a");
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.type, StoredType::kF32);
  EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(a.bytes, 24);
  const TensorInfo& b = (*file)->tensors().at("b");
  EXPECT_EQ(b.type, StoredType::kBf16);
  EXPECT_EQ(b.offset, a.offset + 24);
  uint16_t values[2];
  ASSERT_TRUE((*file)->Read(b.offset, b.bytes, reinterpret_cast<std::byte*>(values)).ok());
  EXPECT_EQ(values[0], 7);
  EXPECT_EQ(values[1], 8);
  EXPECT_EQ((*file)->tensors().at("c").type, StoredType::kF16);
}

TEST(Safetensors, OrderInTheHeaderNeedNotBeTheOrderOfTheData) {
  const TempDir dir;
  const auto file = SafetensorsFile::Open(
      dir.Write("f", SafetensorsBytes(R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},)"
                                      R"("a":{"data_offsets":[0,1],"shape":[1],"dtype":"U8"}})",
                                      "xyz")));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->tensors().at("b").offset, (*file)->tensors().at("a").offset + 1);
}

TEST(Safetensors, AcceptsMetadataPaddingScalarsAndNoTensors) {
  const TempDir dir;
  for (const std::string& bytes :
       {SafetensorsBytes("{}", ""), SafetensorsBytes("{}      ", ""),
        SafetensorsBytes(R"({"__metadata__":{}})", ""),
        SafetensorsBytes(R"({"__metadata__":{"format":"pt","x":"y"}})", ""),
        SafetensorsBytes(R"({"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", "1234")}) {
    const auto file = SafetensorsFile::Open(dir.Write("f", bytes));
    EXPECT_TRUE(file.ok()) << file.status();
  }
}

TEST(Safetensors, ListsTensorsOfEveryTypeOfTheFormat) {
  const TempDir dir;
  struct Case {
    const char* dtype;
    int64_t count;
    size_t bytes;
  };
  for (const Case& c :
       {Case{"BOOL", 3, 3}, {"U8", 3, 3},   {"I8", 3, 3},   {"F8_E4M3", 3, 3}, {"F8_E5M2", 3, 3},
        {"F8_E8M0", 3, 3},  {"I16", 3, 6},  {"U16", 3, 6},  {"F16", 3, 6},     {"BF16", 3, 6},
        {"I32", 3, 12},     {"U32", 3, 12}, {"F32", 3, 12}, {"I64", 3, 24},    {"U64", 3, 24},
        {"F64", 3, 24},     {"C64", 3, 24}, {"F4", 4, 2},   {"F6_E2M3", 4, 3}, {"F6_E3M2", 4, 3}}) {
    SafetensorsWriter writer;
    writer.Add("t", c.dtype, {c.count}, std::string(c.bytes, '\0'));
    const auto file = SafetensorsFile::Open(dir.Write("f", writer.Bytes()));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_STREQ((*file)->tensors().at("t").dtype, c.dtype);
  }
}

TEST(Safetensors, LongestNameAndHighestRankAreAccepted) {
  const TempDir dir;
  SafetensorsWriter writer;
  writer.Add(std::string(1024, 'n'), "U8", {1, 1, 1, 1, 1, 1, 1, 1}, "x");
  const auto file = SafetensorsFile::Open(dir.Write("f", writer.Bytes()));
  EXPECT_TRUE(file.ok()) << file.status();
}

}  // namespace
}  // namespace lacuna
