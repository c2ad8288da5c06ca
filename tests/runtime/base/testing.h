#ifndef LACUNA_TESTS_RUNTIME_BASE_TESTING_H_
#define LACUNA_TESTS_RUNTIME_BASE_TESTING_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace lacuna {

// A folder that is removed with the object.
class TempDir {
 public:
  TempDir() : path_(testing::TempDir() + "lacuna_XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) ADD_FAILURE() << "cannot make " << path_;
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string File(std::string_view name) const { return path_ + "/" + std::string(name); }
  // Writes a file and returns its path.
  std::string Write(std::string_view name, std::string_view contents) const {
    std::ofstream(File(name), std::ios::binary).write(contents.data(), contents.size());
    return File(name);
  }

 private:
  std::string path_;
};

// True if `status` has this code and its message holds `phrase`.
inline testing::AssertionResult IsError(const absl::Status& status, absl::StatusCode code,
                                        std::string_view phrase) {
  const std::string message(status.message());
  if (status.code() == code && message.find(phrase) != std::string::npos) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure()
         << "got " << status << "\nexpected " << code << " with \"" << phrase << "\"";
}

}  // namespace lacuna

#endif  // LACUNA_TESTS_RUNTIME_BASE_TESTING_H_
