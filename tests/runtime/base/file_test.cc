#include "runtime/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "tests/runtime/base/testing.h"

namespace lacuna {
namespace {

TEST(File, ReadsWhatWasWritten) {
  const TempDir dir;
  absl::StatusOr<RegularFile> file = RegularFile::Open(dir.Write("f", "0123456789"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->size(), 10);
  char buffer[4];
  ASSERT_TRUE(file->Read(3, 4, buffer).ok());
  EXPECT_EQ(std::string(buffer, 4), "3456");
}

TEST(File, FollowsSymbolicLinks) {
  const TempDir dir;
  dir.Write("target", "text");
  ASSERT_EQ(symlink("target", dir.File("link").c_str()), 0);
  EXPECT_EQ(ReadFile(dir.File("link"), 100).value(), "text");
}

TEST(File, MissingFileIsNotFound) {
  const TempDir dir;
  EXPECT_TRUE(IsError(RegularFile::Open(dir.File("none")).status(), absl::StatusCode::kNotFound,
                      dir.File("none")));
}

TEST(File, RefusesWhatIsNotARegularFileWithoutWaiting) {
  const TempDir dir;
  ASSERT_EQ(mkfifo(dir.File("fifo").c_str(), 0600), 0);
  ASSERT_EQ(symlink("/dev/zero", dir.File("device").c_str()), 0);
  for (const std::string& path : {dir.path(), dir.File("fifo"), dir.File("device")}) {
    EXPECT_TRUE(IsError(RegularFile::Open(path).status(), absl::StatusCode::kInvalidArgument,
                        "not a regular file"))
        << path;
  }
}

TEST(File, FileThatShrinksAfterOpenIsDataLoss) {
  const TempDir dir;
  const std::string path = dir.Write("f", std::string(1000, 'x'));
  absl::StatusOr<RegularFile> file = RegularFile::Open(path);
  ASSERT_TRUE(file.ok());
  ASSERT_EQ(truncate(path.c_str(), 600), 0);
  char buffer[1000];
  EXPECT_TRUE(file->Read(0, 600, buffer).ok());
  EXPECT_TRUE(IsError(file->Read(500, 200, buffer), absl::StatusCode::kDataLoss,
                      path + " ends at byte 600, 100 bytes short"));
}

// Large pieces that are not in the page cache go another way.
class UncachedFile : public ::testing::Test {
 protected:
  UncachedFile() : contents_(5'000'003, '\0') {
    uint32_t state = 1;
    for (char& c : contents_) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
    path_ = dir_.Write("f", contents_);
    DropFromPageCache();
  }
  void DropFromPageCache() {
    const int fd = open(path_.c_str(), O_RDONLY);
    EXPECT_EQ(fsync(fd), 0);
    EXPECT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    close(fd);
  }

  const TempDir dir_;
  std::string contents_;
  std::string path_;
};

TEST_F(UncachedFile, IsReadAtAnyOffsetAndLength) {
  const absl::StatusOr<RegularFile> file = RegularFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto size = static_cast<int64_t>(contents_.size());
  const int64_t mib = 1 << 20;
  for (const int64_t offset : {int64_t{0}, int64_t{1}, int64_t{4095}, int64_t{4096}, mib + 7}) {
    for (const int64_t length : {mib, mib + 1, 2 * mib + 4095, size - offset}) {
      DropFromPageCache();
      std::string out(length, '\0');
      ASSERT_TRUE(file->Read(offset, length, out.data()).ok());
      EXPECT_EQ(out, contents_.substr(offset, length)) << offset << " " << length;
    }
  }
}

TEST_F(UncachedFile, ThatHasShrunkIsDataLossAtItsEnd) {
  const absl::StatusOr<RegularFile> file = RegularFile::Open(path_);
  ASSERT_TRUE(file.ok());
  for (const int64_t length : {4'000'001, 2'097'152}) {
    ASSERT_EQ(truncate(path_.c_str(), length), 0);
    DropFromPageCache();
    std::string out(4'500'000, '\0');
    EXPECT_TRUE(IsError(file->Read(100, 4'500'000, out.data()), absl::StatusCode::kDataLoss,
                        absl::StrCat(path_, " ends at byte ", length)));
  }
}

TEST(File, ReadFileRefusesMoreThanItsLimit) {
  const TempDir dir;
  const std::string path = dir.Write("f", "12345");
  EXPECT_EQ(ReadFile(path, 5).value(), "12345");
  EXPECT_TRUE(IsError(ReadFile(path, 4).status(), absl::StatusCode::kInvalidArgument,
                      "has 5 bytes, the limit is 4"));
}

}  // namespace
}  // namespace lacuna
