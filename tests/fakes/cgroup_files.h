#ifndef LACUNA_TESTS_FAKES_CGROUP_FILES_H_
#define LACUNA_TESTS_FAKES_CGROUP_FILES_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace lacuna {

// A folder in the place of /sys/fs/cgroup, empty at first.
class CgroupFilesTest : public testing::Test {
 protected:
  CgroupFilesTest()
      : mount_(testing::TempDir() + "cgroup_" +
               testing::UnitTest::GetInstance()->current_test_info()->test_suite_name() + "_" +
               testing::UnitTest::GetInstance()->current_test_info()->name()) {}
  ~CgroupFilesTest() override { std::filesystem::remove_all(mount_); }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = mount_ + "/" + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }

  const std::string mount_;
};

}  // namespace lacuna

#endif  // LACUNA_TESTS_FAKES_CGROUP_FILES_H_
