// GGUF files that are split into several, as llama-gguf-split does it.

#include <gtest/gtest.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "runtime/model/gguf_file.h"
#include "runtime/model/load_model.h"
#include "tests/runtime/base/testing.h"
#include "tests/runtime/model/gguf_writer.h"

namespace lacuna {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr int32_t kParts = 3;

void SetSplit(GgufWriter* file, uint16_t no, uint16_t count) {
  file->SetRaw("split.no", GgufValueType::kUint16, GgufWriter::Raw(no));
  file->SetRaw("split.count", GgufValueType::kUint16, GgufWriter::Raw(count));
}

// The small model in three parts, of which the last has the tensors from `last` on and the first
// those before `second`.
std::vector<GgufWriter> Split(size_t second = 7, size_t last = 15) {
  const GgufWriter whole = SmallGguf();
  std::vector<GgufWriter> parts(kParts);
  parts[0] = whole;
  parts[0].tensors.clear();
  const auto count = static_cast<int32_t>(whole.tensors.size());
  parts[0].SetRaw("split.tensors.count", GgufValueType::kInt32, GgufWriter::Raw(count));
  for (size_t i = 0; i < whole.tensors.size(); ++i) {
    parts[i < second ? 0 : i < last ? 1 : 2].tensors.push_back(whole.tensors[i]);
  }
  for (uint16_t no = 0; no < kParts; ++no) SetSplit(&parts[no], no, kParts);
  return parts;
}

constexpr const char* kNames[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf",
                                  "m-00003-of-00003.gguf"};

// A directory with the parts, one of which is opened.
class Files {
 public:
  explicit Files(const std::vector<GgufWriter>& parts) {
    for (size_t i = 0; i < parts.size(); ++i) dir_.Write(kNames[i], parts[i].Bytes());
  }
  const TempDir& dir() const { return dir_; }
  absl::StatusOr<LoadedModel> Load(const std::string& name = kNames[0]) const {
    LoadOptions options;
    options.path = dir_.File(name);
    options.threads = 1;
    return LoadModel(options);
  }

 private:
  TempDir dir_;
};

TEST(GgufSplit, ThePartsHaveTheTensorsOfTheWhole) {
  const TempDir dir;
  dir.Write("whole.gguf", SmallGguf().Bytes());
  const auto whole = GgufFile::Open(dir.File("whole.gguf"));
  ASSERT_TRUE(whole.ok()) << whole.status();
  // Also with a first part that has metadata only.
  for (const size_t second : {7, 0}) {
    const Files files(Split(second));
    const auto parts = GgufFile::Open(files.dir().File(kNames[0]));
    ASSERT_TRUE(parts.ok()) << parts.status();
    ASSERT_EQ((*parts)->header().tensors.size(), (*whole)->header().tensors.size());
    for (const auto& [name, tensor] : (*whole)->header().tensors) {
      const GgufTensor& part = (*parts)->header().tensors.at(name);
      ASSERT_EQ(part.shape, tensor.shape) << name;
      std::vector<std::byte> a(tensor.bytes), b(part.bytes);
      ASSERT_TRUE((*whole)->Read(tensor, 0, tensor.bytes, a.data()).ok());
      ASSERT_TRUE((*parts)->Read(part, 0, part.bytes, b.data()).ok());
      EXPECT_EQ(a, b) << name;
    }
    const absl::StatusOr<LoadedModel> loaded = files.Load();
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->model->config().vocab_size, 264);
  }
}

TEST(GgufSplit, AMissingPartIsNamed) {
  for (const int part : {1, 2}) {
    const Files files(Split());
    std::filesystem::remove(files.dir().File(kNames[part]));
    EXPECT_TRUE(IsError(files.Load().status(), absl::StatusCode::kNotFound,
                        std::string(kNames[part]) + ", part " + std::to_string(part + 1) +
                            " of 3, is not there: the download is not complete"));
  }
}

TEST(GgufSplit, AnotherPartThanTheFirstNamesTheFirst) {
  const Files files(Split());
  EXPECT_TRUE(
      IsError(files.Load(kNames[1]).status(), kInvalid, "is part 2 of 3; give the first: "));
  EXPECT_TRUE(IsError(files.Load(kNames[1]).status(), kInvalid, kNames[0]));
}

TEST(GgufSplit, APartThatWasRenamedSaysWhatItsNameMustBe) {
  const Files files(Split());
  std::filesystem::rename(files.dir().File(kNames[0]), files.dir().File("model.gguf"));
  EXPECT_TRUE(IsError(files.Load("model.gguf").status(), kInvalid,
                      "its name does not end in -00001-of-00003.gguf"));
}

TEST(GgufSplit, PartsOfOtherFilesAreRefused) {
  std::vector<GgufWriter> swapped = Split();
  std::swap(swapped[1], swapped[2]);
  EXPECT_TRUE(IsError(Files(swapped).Load().status(), kInvalid,
                      "00002-of-00003.gguf says that it is part 3 of 3, not 2 of 3"));
  std::vector<GgufWriter> unsplit = Split();
  unsplit[1].Remove("split.no");
  unsplit[1].Remove("split.count");
  EXPECT_TRUE(IsError(Files(unsplit).Load().status(), kInvalid, "says that it is part 1 of 1"));
  std::vector<GgufWriter> twice = Split();
  twice[2].tensors.push_back(twice[1].tensors[0]);
  EXPECT_TRUE(IsError(Files(twice).Load().status(), kInvalid, "is in another part, too"));
  std::vector<GgufWriter> fewer = Split();
  fewer[2].tensors.pop_back();
  EXPECT_TRUE(IsError(Files(fewer).Load().status(), kInvalid,
                      "00001-of-00003.gguf: key split.tensors.count is 20, the parts have 19"));
}

TEST(GgufSplit, APartThatIsCutShortIsNamed) {
  const Files files(Split());
  const std::string path = files.dir().File(kNames[2]);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 64);
  EXPECT_TRUE(IsError(files.Load().status(), absl::StatusCode::kDataLoss, kNames[2]));
}

}  // namespace
}  // namespace lacuna
