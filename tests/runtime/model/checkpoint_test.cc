#include "runtime/model/checkpoint.h"

#include <unistd.h>

#include <cmath>
#include <map>

#include "runtime/model/float_bits.h"
#include "tests/runtime/base/testing.h"
#include "tests/runtime/model/safetensors_writer.h"

namespace lacuna {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string OneTensor(const std::string& name) {
  SafetensorsWriter writer;
  writer.Add<float>(name, "F32", {2}, {1, 2});
  return writer.Bytes();
}

absl::Status Open(const TempDir& dir) { return Checkpoint::Open(dir.path()).status(); }

absl::Status OpenIndex(const TempDir& dir, const std::string& index) {
  dir.Write("model.safetensors.index.json", index);
  return Open(dir);
}

TEST(Checkpoint, OpensASingleFile) {
  const TempDir dir;
  dir.Write("model.safetensors", OneTensor("a"));
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_NE((*checkpoint)->Find("a"), nullptr);
  EXPECT_EQ((*checkpoint)->Find("b"), nullptr);
  EXPECT_EQ((*checkpoint)->names(), std::vector<std::string_view>{"a"});
}

TEST(Checkpoint, OpensShardsAndReadsEachTensorFromItsOwn) {
  const TempDir dir;
  for (const char* const name : {"a", "b"}) {
    SafetensorsWriter writer;
    writer.Add<float>(name, "F32", {1}, {name[0] == 'a' ? 1.0f : 2.0f});
    writer.Add<float>("not in the index", "F32", {1}, {0.0f});
    dir.Write(std::string(name) + ".safetensors", writer.Bytes());
  }
  dir.Write("model.safetensors.index.json",
            R"({"metadata":{"total_size":8},)"
            R"("weight_map":{"a":"a.safetensors","b":"b.safetensors"}})");
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->names().size(), 2u);
  EXPECT_EQ((*checkpoint)->Find("not in the index"), nullptr);
  for (const char* const name : {"a", "b"}) {
    float value = 0;
    ASSERT_TRUE((*checkpoint)
                    ->ReadRows(*(*checkpoint)->Find(name), 0, 1, DType::kF32,
                               reinterpret_cast<std::byte*>(&value), 4)
                    .ok());
    EXPECT_EQ(value, name[0] == 'a' ? 1.0f : 2.0f);
  }
}

TEST(Checkpoint, MissingFilesAreNotFound) {
  const TempDir dir;
  EXPECT_TRUE(IsError(Checkpoint::Open(dir.File("none")).status(), absl::StatusCode::kNotFound,
                      "cannot open " + dir.File("none")));
  EXPECT_TRUE(IsError(Open(dir), absl::StatusCode::kNotFound,
                      "neither model.safetensors nor model.safetensors.index.json"));
  EXPECT_TRUE(
      IsError(Checkpoint::Open(dir.Write("file", "")).status(), kInvalid, "is not a directory"));
}

TEST(Checkpoint, AMissingShardIsNamed) {
  const TempDir dir;
  dir.Write("model.safetensors.index.json",
            R"({"weight_map": {"a": "model-00002-of-00002.safetensors"}})");
  EXPECT_TRUE(IsError(Open(dir), absl::StatusCode::kNotFound,
                      "names model-00002-of-00002.safetensors, which is not there: the download is "
                      "not complete"));
}

TEST(Checkpoint, PickledWeightsAreRefusedWithTheCommandThatConvertsThem) {
  for (const char* const name : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    const TempDir dir;
    dir.Write(name, "");
    EXPECT_TRUE(IsError(Open(dir), kInvalid, "python3 -c \"import glob, torch;"));
  }
}

TEST(Checkpoint, RefusesMalformedIndexes) {
  const TempDir dir;
  dir.Write("a.safetensors", OneTensor("a"));
  EXPECT_TRUE(IsError(OpenIndex(dir, "{"), kInvalid, "index.json is not valid JSON"));
  EXPECT_TRUE(IsError(OpenIndex(dir, "[]"), kInvalid, "is not a JSON object"));
  EXPECT_TRUE(IsError(OpenIndex(dir, "{}"), kInvalid, "has no weight_map"));
  EXPECT_TRUE(IsError(OpenIndex(dir, R"({"weight_map":[]})"), kInvalid, "has no weight_map"));
  EXPECT_TRUE(IsError(OpenIndex(dir, R"({"weight_map":{}})"), kInvalid, "has no weight_map"));
  EXPECT_TRUE(IsError(OpenIndex(dir, R"({"weight_map":{"a":1}})"), kInvalid,
                      "tensor \"a\" is mapped to something else"));
  EXPECT_TRUE(IsError(OpenIndex(dir, R"({"weight_map":{"a":"a.safetensors","a":"a.safetensors"}})"),
                      kInvalid, "has key \"a\" twice"));
  EXPECT_TRUE(IsError(OpenIndex(dir, R"({"weight_map":{"b":"a.safetensors"}})"), kInvalid,
                      "says that tensor \"b\" is in a.safetensors, it is not"));
  EXPECT_TRUE(IsError(OpenIndex(dir, R"({"weight_map":{"a":"none.safetensors"}})"),
                      absl::StatusCode::kNotFound, "none.safetensors"));
  dir.Write("cut.safetensors", OneTensor("a").substr(0, 40));
  EXPECT_TRUE(IsError(OpenIndex(dir, R"({"weight_map":{"a":"cut.safetensors"}})"),
                      absl::StatusCode::kDataLoss, "cut.safetensors"));
}

TEST(Checkpoint, IndexCannotNameFilesElsewhere) {
  const TempDir dir;
  for (const char* const name : {"../a.safetensors", "/etc/passwd", "sub/a.safetensors", "..", ".",
                                 "", ".hidden", "a\\u0000.safetensors", "a\\n.safetensors"}) {
    EXPECT_TRUE(IsError(OpenIndex(dir, std::string(R"({"weight_map":{"a":")") + name + R"("}})"),
                        kInvalid, "is not the name of a file beside the index"))
        << name;
  }
}

TEST(Checkpoint, IndexMayNotNameMoreFilesThanDescriptors) {
  const TempDir dir;
  std::string map;
  for (int i = 0; i < 513; ++i) {
    const std::string name = "t" + std::to_string(i);
    dir.Write(name, OneTensor(name));
    map += (i ? ",\"" : "\"") + name + "\":\"" + name + "\"";
  }
  EXPECT_TRUE(IsError(OpenIndex(dir, "{\"weight_map\":{" + map + "}}"), kInvalid,
                      "names more than 512 files"));
}

// Values with all kinds of bits that each stored type can hold.
std::vector<float> Values(int64_t n) {
  std::vector<float> values(n);
  for (int64_t i = 0; i < n; ++i)
    values[i] = std::ldexp(static_cast<float>(i % 97) - 48, i % 5 - 3);
  return values;
}

class ReadRowsTest : public testing::Test {
 protected:
  // `rows` x `cols` of Values, of each type, and one tensor of a type that is not read.
  void Make(int64_t rows, int64_t cols) {
    values_ = Values(rows * cols);
    std::map<float, uint16_t> f16_of;
    for (uint16_t h = 0; h < 0x7C00; ++h) f16_of[F16ToF32(h)] = h;
    std::vector<uint16_t> bf16, f16;
    for (const float v : values_) {
      bf16.push_back(F32ToBf16(v));
      const uint16_t h = f16_of.at(std::abs(v));
      f16.push_back(h | (v < 0 ? 0x8000 : 0));
    }
    SafetensorsWriter writer;
    writer.Add("F32", "F32", {rows, cols}, values_);
    writer.Add("F16", "F16", {rows, cols}, f16);
    writer.Add("BF16", "BF16", {rows, cols}, bf16);
    writer.Add("I8", "I8", {rows, cols}, std::string(rows * cols, '\0'));
    writer.Add("vector", "F32", {rows * cols}, values_);
    writer.Add("cube", "F32", {1, rows, cols}, values_);
    dir_.Write("model.safetensors", writer.Bytes());
    auto checkpoint = Checkpoint::Open(dir_.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    checkpoint_ = *std::move(checkpoint);
  }
  absl::Status Read(const char* name, int64_t first, int64_t rows, DType as, void* out,
                    int64_t stride) {
    return checkpoint_->ReadRows(*checkpoint_->Find(name), first, rows, as,
                                 static_cast<std::byte*>(out), stride);
  }

  const TempDir dir_;
  std::vector<float> values_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_F(ReadRowsTest, ConvertsEveryPairOfTypesIntoStridedRows) {
  // Rows that cross, and rows that are longer than, the 65536 elements converted at a time.
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{7, 5}, {3, 70'000}, {40, 3333}}) {
    Make(rows, cols);
    for (const char* const type : {"F32", "F16", "BF16"}) {
      for (const int64_t padding : {0, 3}) {
        const int64_t stride = cols + padding;
        std::vector<float> f32(rows * stride, -1.0f);
        ASSERT_TRUE(Read(type, 0, rows, DType::kF32, f32.data(), stride * 4).ok());
        std::vector<uint16_t> bf16(rows * stride, 0xFFFF);
        ASSERT_TRUE(Read(type, 0, rows, DType::kBf16, bf16.data(), stride * 2).ok());
        for (int64_t i = 0; i < rows * stride; ++i) {
          const int64_t row = i / stride;
          const int64_t col = i % stride;
          const float want = col < cols ? values_[row * cols + col] : -1.0f;
          ASSERT_EQ(f32[i], want) << type << " " << row << " " << col;
          ASSERT_EQ(bf16[i], col < cols ? F32ToBf16(want) : 0xFFFF) << type << " " << row;
        }
      }
    }
  }
}

TEST_F(ReadRowsTest, ReadsOnlyTheRowsThatAreAsked) {
  Make(7, 5);
  std::vector<float> out(2 * 5 + 1, -1.0f);
  ASSERT_TRUE(Read("F16", 3, 2, DType::kF32, out.data(), 5 * 4).ok());
  for (int i = 0; i < 10; ++i) EXPECT_EQ(out[i], values_[15 + i]);
  EXPECT_EQ(out[10], -1.0f);
  EXPECT_TRUE(Read("F32", 7, 0, DType::kF32, out.data(), 5 * 4).ok());
}

TEST_F(ReadRowsTest, VectorIsOneRow) {
  Make(7, 5);
  std::vector<float> out(35);
  ASSERT_TRUE(Read("vector", 0, 1, DType::kF32, out.data(), 0).ok());
  EXPECT_EQ(out, values_);
  EXPECT_TRUE(IsError(Read("vector", 1, 1, DType::kF32, out.data(), 0), kInvalid, "which has 1"));
}

TEST_F(ReadRowsTest, RefusesRowsOutsideOfTheTensor) {
  Make(7, 5);
  std::vector<float> out(35);
  const int64_t max = INT64_MAX;
  for (const auto& [first, rows] : {std::pair<int64_t, int64_t>{0, 8},
                                    {7, 1},
                                    {8, 0},
                                    {-1, 2},
                                    {0, -1},
                                    {1, max},
                                    {max, max},
                                    {max, 1}}) {
    EXPECT_TRUE(IsError(Read("F32", first, rows, DType::kF32, out.data(), 20), kInvalid,
                        "of tensor \"F32\", which has 7"));
  }
}

TEST_F(ReadRowsTest, RefusesOtherTypesAndRanks) {
  Make(7, 5);
  std::vector<float> out(35);
  EXPECT_TRUE(IsError(Read("I8", 0, 1, DType::kF32, out.data(), 20),
                      absl::StatusCode::kUnimplemented, "tensor \"I8\" is stored as I8"));
  EXPECT_TRUE(IsError(Read("cube", 0, 1, DType::kF32, out.data(), 20), kInvalid,
                      "has shape [1,7,5], neither a matrix nor a vector"));
}

TEST_F(ReadRowsTest, FileThatShrinksAfterOpenIsDataLoss) {
  Make(7, 5);
  std::vector<float> out(35);
  const std::string path = dir_.File("model.safetensors");
  ASSERT_EQ(truncate(path.c_str(), checkpoint_->Find("F16")->offset + 10), 0);
  EXPECT_TRUE(Read("F32", 0, 7, DType::kF32, out.data(), 20).ok());
  EXPECT_TRUE(IsError(Read("F16", 0, 7, DType::kF32, out.data(), 20), absl::StatusCode::kDataLoss,
                      "model.safetensors ends at byte"));
}

}  // namespace
}  // namespace lacuna
