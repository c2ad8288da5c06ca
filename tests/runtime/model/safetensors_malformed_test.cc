#include <sys/stat.h>
#include <unistd.h>

#include "runtime/model/safetensors.h"
#include "tests/runtime/base/testing.h"
#include "tests/runtime/model/safetensors_writer.h"

namespace lacuna {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

struct Malformed {
  const char* name;
  std::string bytes;
  absl::StatusCode code;
  const char* phrase;
};

// A file whose one tensor "t" is described by `entry`, with `data_bytes` of data.
std::string One(const std::string& entry, size_t data_bytes = 8) {
  return SafetensorsBytes(absl::StrCat("{\"t\":", entry, "}"), std::string(data_bytes, 'd'));
}

// The same with the parts of the entry given.
std::string Tensor(const std::string& dtype, const std::string& shape, const std::string& offsets,
                   size_t data_bytes = 8) {
  return One(
      absl::StrCat("{\"dtype\":", dtype, ",\"shape\":", shape, ",\"data_offsets\":", offsets, "}"),
      data_bytes);
}

std::string Two(const std::string& first, const std::string& second, size_t data_bytes) {
  const auto entry = [](const char* name, const std::string& offsets) {
    return absl::StrCat("\"", name, R"(":{"dtype":"U8","shape":[4],"data_offsets":)", offsets, "}");
  };
  return SafetensorsBytes(absl::StrCat("{", entry("a", first), ",", entry("b", second), "}"),
                          std::string(data_bytes, 'd'));
}

const std::string kGoodEntry = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";

std::vector<Malformed> Cases() {
  std::vector<std::string> many, same_range;
  for (int i = 0; i < 262'145; ++i) {
    many.push_back(absl::StrCat("\"", i, R"(":{"dtype":"U8","shape":[1],"data_offsets":[)", i, ",",
                                i + 1, "]}"));
  }
  for (int i = 0; i < 100'000; ++i) {
    same_range.push_back(
        absl::StrCat("\"", i, R"(":{"dtype":"U8","shape":[160000],"data_offsets":[0,160000]})"));
  }
  const auto header = [](const std::vector<std::string>& entries) {
    return absl::StrCat("{", absl::StrJoin(entries, ","), "}");
  };
  return {
      // The container.
      {"Empty", "", kDataLoss, "the file has 0 bytes"},
      {"OneByte", "x", kDataLoss, "the file has 1 bytes"},
      {"SevenBytes", std::string(7, '\0'), kDataLoss, "the file has 7 bytes"},
      {"LengthZero", SafetensorsBytes("", ""), kInvalid, "does not begin with '{'"},
      {"LengthIsFileSize", SafetensorsBytes("{}", "", 10), kDataLoss,
       "said to have 10 bytes, the file has 10"},
      {"LengthOneTooLong", SafetensorsBytes("{}", "", 3), kDataLoss,
       "said to have 3 bytes, the file has 10"},
      {"LengthAboveLimit", SafetensorsBytes("{}", "", 100'000'001), kInvalid,
       "100000001 bytes, the limit is 100000000"},
      {"LengthAtLimit", SafetensorsBytes("{}", "", 100'000'000), kDataLoss, "100000000 bytes"},
      {"LengthTwoTo63", std::string(7, '\0') + "\x80{}", kInvalid,
       "9223372036854775808 bytes, the limit is"},
      {"AllOnes", std::string(64, '\xFF'), kInvalid, "18446744073709551615 bytes"},
      {"AllZero", std::string(64, '\0'), kInvalid, "does not begin with '{'"},
      {"TrailingByte", SafetensorsBytes("{\"t\":" + kGoodEntry + "}", "12345678x"), kInvalid,
       "1 bytes follow the last tensor"},
      {"AppendedArchive", SafetensorsBytes("{}", "PK\x03\x04........"), kInvalid,
       "12 bytes follow the last tensor"},
      {"DataMissing", One(kGoodEntry, 7), kDataLoss, "ends at byte 8 of the data, the file has"},
      {"NoData", One(kGoodEntry, 0), kDataLoss, "the file has only 0"},
      // The text of the header.
      {"NotUtf8", SafetensorsBytes("{\"\xFF\":" + kGoodEntry + "}", "12345678"), kInvalid,
       "not valid JSON"},
      {"Unterminated", SafetensorsBytes("{\"t\":{\"dtype\":\"F32\"", ""), kInvalid,
       "not valid JSON"},
      {"TwoDocuments", SafetensorsBytes("{}{}", ""), kInvalid, "not valid JSON"},
      {"LeadingSpace", SafetensorsBytes(" {}", ""), kInvalid, "does not begin with '{'"},
      {"List", SafetensorsBytes("[]", ""), kInvalid, "does not begin with '{'"},
      {"DeepLists", SafetensorsBytes("{\"t\":" + std::string(100'000, '['), ""), kInvalid,
       "holds an array where an object must be"},
      {"DeepObjects", SafetensorsBytes("{\"t\":{\"dtype\":{", ""), kInvalid,
       "tensor \"t\" has the unexpected value an object"},
      {"TensorTwice",
       SafetensorsBytes("{\"t\":" + kGoodEntry + ",\"t\":" + kGoodEntry + "}", "12345678"),
       kInvalid, "tensor \"t\" is listed twice"},
      {"KeyTwice", One(R"({"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})"),
       kInvalid, "tensor \"t\" has key \"dtype\" twice"},
      {"UnknownKey", One(R"({"dtype":"F32","strides":[1],"shape":[2],"data_offsets":[0,8]})"),
       kInvalid, "unknown key \"strides\""},
      {"TensorIsNumber", One("5"), kInvalid, "the header holds 5"},
      {"TensorIsNull", One("null"), kInvalid, "the header holds null"},
      {"TensorIsString", One("\"x\""), kInvalid, "the header holds \"x\""},
      {"NameEmpty", SafetensorsBytes("{\"\":" + kGoodEntry + "}", "12345678"), kInvalid,
       "is empty or holds control characters"},
      {"NameWithNul", SafetensorsBytes("{\"a\\u0000b\":" + kGoodEntry + "}", "12345678"), kInvalid,
       "tensor name \"a\\x00"},
      {"NameWithNewline", SafetensorsBytes("{\"a\\nb\":" + kGoodEntry + "}", "12345678"), kInvalid,
       "tensor name \"a\\nb\" is empty or holds control"},
      {"NameTooLong",
       SafetensorsBytes("{\"" + std::string(1'000'000, 'n') + "\":" + kGoodEntry + "}", "12345678"),
       kInvalid, "a tensor name has 1000000 bytes, the limit is 1024"},
      {"MetadataNumber", SafetensorsBytes(R"({"__metadata__":{"a":1}})", ""), kInvalid,
       "\"__metadata__\" has the unexpected value 1"},
      {"MetadataNested", SafetensorsBytes(R"({"__metadata__":{"a":{}}})", ""), kInvalid,
       "unexpected value an object"},
      {"MetadataString", SafetensorsBytes(R"({"__metadata__":"a"})", ""), kInvalid,
       "where an object must be"},
      {"MetadataTwice", SafetensorsBytes(R"({"__metadata__":{},"__metadata__":{}})", ""), kInvalid,
       "\"__metadata__\" is listed twice"},
      {"TooManyTensors", SafetensorsBytes(header(many), std::string(262'145, 'd')), kInvalid,
       "more than 262144 tensors"},
      // Types, shapes and numbers.
      {"NoDtype", One(R"({"shape":[2],"data_offsets":[0,8]})"), kInvalid, "has no dtype"},
      {"NoShape", One(R"({"dtype":"F32","data_offsets":[0,8]})"), kInvalid, "has no shape"},
      {"NoOffsets", One(R"({"dtype":"F32","shape":[2]})"), kInvalid, "has no data_offsets"},
      {"UnknownDtype", Tensor("\"Q4_0\"", "[2]", "[0,8]"), kInvalid, "unknown dtype \"Q4_0\""},
      {"DtypeNumber", Tensor("32", "[2]", "[0,8]"), kInvalid, "unexpected value 32"},
      {"ShapeString", Tensor("\"F32\"", "[\"2\"]", "[0,8]"), kInvalid, "unexpected value \"2\""},
      {"ShapeNumber", Tensor("\"F32\"", "2", "[0,8]"), kInvalid, "unexpected value 2"},
      {"ShapeNested", Tensor("\"F32\"", "[[2]]", "[0,8]"), kInvalid, "unexpected value an array"},
      {"ShapeFraction", Tensor("\"F32\"", "[1.5]", "[0,8]"), kInvalid, "unexpected value 1.5"},
      {"ShapeBoolean", Tensor("\"F32\"", "[true]", "[0,8]"), kInvalid,
       "unexpected value a boolean"},
      {"ShapeZero", Tensor("\"F32\"", "[0,2]", "[0,0]", 0), kInvalid, "has a dimension of 0"},
      {"ShapeNegative", Tensor("\"F32\"", "[-1]", "[0,8]"), kInvalid, "unexpected value -1"},
      {"ShapeHuge", Tensor("\"F32\"", "[1e999]", "[0,8]"), kInvalid, "not valid JSON"},
      {"ShapeTwoTo64", Tensor("\"F32\"", "[18446744073709551616]", "[0,8]"), kInvalid,
       "unexpected value 18446744073709551616"},
      {"ShapeTwoTo63", Tensor("\"F32\"", "[9223372036854775808]", "[0,8]"), kInvalid,
       "unexpected value 9223372036854775808"},
      {"RankNine", Tensor("\"U8\"", "[1,1,1,1,1,1,1,1,1]", "[0,1]", 1), kInvalid,
       "more than 8 dimensions"},
      {"ProductOverflow", Tensor("\"F32\"", "[2,9223372036854775807]", "[0,8]"), kInvalid,
       "shape [2,9223372036854775807] does not fill its 8 bytes"},
      {"ProductOverflowToOne", Tensor("\"U8\"", "[4294967296,4294967296]", "[0,8]"), kInvalid,
       "does not fill its 8 bytes"},
      {"BytesOverflow", Tensor("\"F32\"", "[2305843009213693953]", "[0,8]"), kInvalid,
       "does not fill its 8 bytes"},
      {"HalfByte", Tensor("\"F4\"", "[3]", "[0,2]", 2), kInvalid, "does not fill its 2 bytes"},
      {"SizeTooSmall", Tensor("\"F32\"", "[3]", "[0,8]"), kInvalid, "does not fill its 8 bytes"},
      {"SizeTooLarge", Tensor("\"F32\"", "[1]", "[0,8]"), kInvalid, "does not fill its 8 bytes"},
      {"OneOffset", Tensor("\"F32\"", "[2]", "[0]"), kInvalid, "has 1 data_offsets, not two"},
      {"ThreeOffsets", Tensor("\"F32\"", "[2]", "[0,8,8]"), kInvalid, "more than two data_offsets"},
      {"BeginAfterEnd", Tensor("\"F32\"", "[2]", "[8,0]"), kInvalid, "begins at 8 and ends before"},
      {"OffsetNegative", Tensor("\"F32\"", "[2]", "[-8,0]"), kInvalid, "unexpected value -8"},
      {"EndTwoTo64", Tensor("\"F32\"", "[2]", "[0,18446744073709551615]"), kInvalid,
       "unexpected value 18446744073709551615"},
      {"EndTwoTo63", Tensor("\"U8\"", "[9223372036854775807]", "[0,9223372036854775807]"), kInvalid,
       "does not fill its 9223372036854775807 bytes"},
      {"EndTwoTo60", Tensor("\"U8\"", "[1152921504606846975]", "[0,1152921504606846975]"),
       kDataLoss, "ends at byte 1152921504606846975 of the data"},
      {"SumTwoTo61",
       SafetensorsBytes(R"({"a":{"dtype":"U8","shape":[1152921504606846975],)"
                        R"("data_offsets":[0,1152921504606846975]},"b":{"dtype":"U8",)"
                        R"("shape":[1152921504606846975],)"
                        R"("data_offsets":[1152921504606846975,2305843009213693950]}})",
                        "12345678"),
       kDataLoss, "tensor \"a\" ends at byte 1152921504606846975"},
      // How tensors lie.
      {"HoleAtStart", Tensor("\"F32\"", "[2]", "[1,9]", 9), kInvalid, "there is a hole"},
      {"Hole", Two("[0,4]", "[5,9]", 9), kInvalid,
       "\"b\" begins at byte 5 of the data, the one before it ends at 4: there is a hole"},
      {"Overlap", Two("[0,4]", "[3,7]", 7), kInvalid,
       "\"b\" begins at byte 3 of the data, the one before it ends at 4: they overlap"},
      {"SameRange", Two("[0,4]", "[0,4]", 4), kInvalid, "they overlap"},
      {"HundredThousandOnOneRange", SafetensorsBytes(header(same_range), std::string(160'000, 'd')),
       kInvalid, "they overlap"},
  };
}

TEST(SafetensorsMalformed, EveryCaseGivesItsOwnError) {
  const TempDir dir;
  for (const Malformed& c : Cases()) {
    SCOPED_TRACE(c.name);
    const std::string path = dir.Write(c.name, c.bytes);
    const absl::Status status = SafetensorsFile::Open(path).status();
    EXPECT_TRUE(IsError(status, c.code, c.phrase));
    EXPECT_TRUE(IsError(status, c.code, path));
  }
}

// A small file with everything that a header may have.
std::string TinyFile() {
  SafetensorsWriter writer;
  writer.Add<float>("a", "F32", {2, 2}, {1, 2, 3, 4});
  writer.Add<uint16_t>("b.weight", "BF16", {3}, {1, 2, 3});
  return writer.Bytes();
}

TEST(SafetensorsMalformed, TruncationAtEveryByteIsAnError) {
  const TempDir dir;
  const std::string good = TinyFile();
  ASSERT_TRUE(SafetensorsFile::Open(dir.Write("f", good)).ok());
  for (size_t size = 0; size < good.size(); ++size) {
    const absl::Status status =
        SafetensorsFile::Open(dir.Write("f", good.substr(0, size))).status();
    EXPECT_EQ(status.code(), kDataLoss) << size << " " << status;
  }
}

TEST(SafetensorsMalformed, FlippedBitsInTheHeaderNeverGiveTensorsOutsideTheFile) {
  const TempDir dir;
  const std::string good = TinyFile();
  const size_t header_end = good.rfind('}') + 1;
  int refused = 0;
  for (size_t bit = 0; bit < header_end * 8; ++bit) {
    std::string bytes = good;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ 1 << bit % 8);
    const auto file = SafetensorsFile::Open(dir.Write("f", bytes));
    if (!file.ok()) {
      const absl::StatusCode code = file.status().code();
      EXPECT_TRUE(code == kInvalid || code == kDataLoss) << file.status();
      ++refused;
      continue;
    }
    for (const auto& [name, tensor] : (*file)->tensors()) {
      EXPECT_GE(tensor.offset, 8);
      EXPECT_LE(tensor.offset + tensor.bytes, static_cast<int64_t>(bytes.size()));
    }
  }
  // What survives are other names, types and shapes of the same size.
  EXPECT_GT(refused, static_cast<int>(header_end * 8 / 2));
}

TEST(SafetensorsMalformed, RefusesWhatIsNotARegularFile) {
  const TempDir dir;
  ASSERT_EQ(mkfifo(dir.File("fifo").c_str(), 0600), 0);
  for (const std::string& path : {dir.path(), dir.File("fifo"), std::string("/dev/zero")}) {
    EXPECT_TRUE(IsError(SafetensorsFile::Open(path).status(), kInvalid, "not a regular file"));
  }
}

TEST(SafetensorsMalformed, HugeSparseFileTakesNoMemory) {
  const TempDir dir;
  const std::string path = dir.Write("f", TinyFile());
  ASSERT_EQ(truncate(path.c_str(), int64_t{1} << 40), 0);
  EXPECT_TRUE(IsError(SafetensorsFile::Open(path).status(), kInvalid, "follow the last tensor"));
}

}  // namespace
}  // namespace lacuna
