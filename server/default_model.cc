#include "server/default_model.h"

#include <filesystem>
#include <set>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace lacuna {

namespace fs = std::filesystem;

absl::StatusOr<std::string> FindDefaultModel(const std::string& binary) {
  std::string searched;
  for (fs::path parent = fs::path(binary).parent_path(); parent != parent.root_path();
       parent = parent.parent_path()) {
    for (const char* place : {"share/lacuna/models", "models"}) {
      std::error_code ignored;
      std::set<std::string> found;
      for (const auto& entry : fs::directory_iterator(parent / place, ignored)) {
        if (fs::exists(entry.path() / "config.json", ignored)) found.insert(entry.path().string());
      }
      if (!found.empty()) return *found.begin();
      absl::StrAppend(&searched, searched.empty() ? "" : ", ", (parent / place).string());
    }
  }
  return absl::NotFoundError(
      absl::StrCat("no embedded model in any of: ", searched, "; give one with --model=PATH"));
}

}  // namespace lacuna
