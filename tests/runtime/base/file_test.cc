#include "runtime/base/file.h"

#include <sys/stat.h>
#include <unistd.h>

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

TEST(File, ReadFileRefusesMoreThanItsLimit) {
  const TempDir dir;
  const std::string path = dir.Write("f", "12345");
  EXPECT_EQ(ReadFile(path, 5).value(), "12345");
  EXPECT_TRUE(IsError(ReadFile(path, 4).status(), absl::StatusCode::kInvalidArgument,
                      "has 5 bytes, the limit is 4"));
}

}  // namespace
}  // namespace lacuna
